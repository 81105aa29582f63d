//! Tells the kernel what it should not believe any more: names that somebody changed in the layers.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::Builder;

use rustix::io::Errno;

use super::init::Agreed;
use super::proto::notify::Notification;
use crate::union::{Change, Union};

/// Starts telling, where there is anything to tell: a thread of its own, since the kernel locks the directory for it and
/// may have to wait for a request there.
///
/// # Errors
/// EAGAIN when the thread cannot be made.
pub(super) fn start(union: &Union, agreed: Agreed, device: OwnedFd) -> io::Result<()> {
    let Some(changes) = union.changes() else {
        return Ok(());
    };
    Builder::new()
        .name("unionmount-news".into())
        .spawn(move || {
            let mut message = Vec::new();
            for change in changes {
                message.clear();
                notification(&change, agreed).encode(&mut message);
                match rustix::io::write(&device, &message) {
                    // ENOENT: the kernel does not know the name; ENOTEMPTY, EBUSY: something is mounted there or below.
                    Ok(_) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::BUSY | Errno::NOTDIR) => {}
                    Err(Errno::NODEV | Errno::CONNABORTED) => return,
                    Err(errno) => log::warn!("tell the kernel of a change: {errno}"),
                }
            }
        })
        .map(drop)
}

fn notification(change: &Change, agreed: Agreed) -> Notification<'_> {
    let (parent, name) = (change.parent.0, &*change.name);
    match change.child {
        Some(child) if change.gone => Notification::Delete {
            parent,
            child: child.0,
            name,
        },
        _ if agreed.expires => Notification::ExpireEntry { parent, name },
        _ => Notification::InvalEntry { parent, name },
    }
}
