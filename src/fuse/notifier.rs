//! Tells the kernel what it should not believe any more: what somebody changed in the layers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::Builder;

use rustix::io::Errno;

use super::proto::notify::Notification;
use crate::union::{Change, NodeId, Union};

/// Starts telling, where there is anything to tell: a thread that hears of changes, and one that tells them, since the
/// kernel locks the directory for that and may have to wait for a request there. `wire` gives the number that the kernel
/// knows a node by; `expires`: it knows names that are only to be looked up again.
///
/// # Errors
/// EAGAIN when a thread cannot be made.
pub(super) fn start(
    union: &Arc<Union>,
    device: OwnedFd,
    expires: bool,
    wire: impl Fn(NodeId) -> Option<u64> + Send + 'static,
) -> io::Result<()> {
    let Some(changes) = union.changes() else {
        return Ok(());
    };
    let following = Arc::clone(union);
    Builder::new()
        .name("unionmount-ears".into())
        .spawn(move || following.follow())?;
    Builder::new()
        .name("unionmount-news".into())
        .spawn(move || {
            let mut message = Vec::new();
            for change in changes {
                message.clear();
                // What it does not know it need not forget.
                let Some(notification) = notification(&change, expires, &wire) else {
                    continue;
                };
                notification.encode(&mut message);
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

fn notification<'a>(
    change: &'a Change,
    expires: bool,
    wire: impl Fn(NodeId) -> Option<u64>,
) -> Option<Notification<'a>> {
    Some(match change {
        Change::Node(node) => Notification::InvalInode {
            node: wire(*node)?,
            offset: 0,
            len: 0,
        },
        Change::Below { parent, name } => Notification::InvalEntry {
            parent: wire(*parent)?,
            name,
        },
        Change::Name {
            parent,
            name,
            gone,
            child,
        } => {
            let parent = wire(*parent)?;
            match child.and_then(wire) {
                Some(child) if *gone => Notification::Delete {
                    parent,
                    child,
                    name,
                },
                _ if expires => Notification::ExpireEntry { parent, name },
                _ => Notification::InvalEntry { parent, name },
            }
        }
    })
}
