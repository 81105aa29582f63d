//! Notifies the kernel of what it caches and is out of date: what others changed in the layers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::Builder;

use rustix::io::Errno;

use crate::fuse::proto::notify::Notification;
use crate::union::{Change, NodeId, Union};

/// Starts the notifications, where layers may change: a thread that follows changes, and one that
/// notifies the kernel, which locks the directory for that and may have to wait for a request
/// there. `wire` returns the number that the kernel knows a node by; `expires`: it knows names that
/// are only to be looked up again.
///
/// # Errors
/// EAGAIN when a thread cannot be made.
pub(in crate::fuse) fn start(
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
        .name("unionmount-live".into())
        .spawn(move || following.follow())?;
    Builder::new()
        .name("unionmount-send".into())
        .spawn(move || {
            let mut message = Vec::new();
            for change in changes {
                message.clear();
                // What it does not know it does not cache.
                let Some(notification) = notification(&change, expires, &wire) else {
                    continue;
                };
                notification.encode(&mut message);
                match rustix::io::write(&device, &message) {
                    // ENOENT: the kernel does not know the name; ENOTEMPTY, EBUSY: something is
                    // mounted there or below.
                    Ok(_) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::BUSY | Errno::NOTDIR) => {}
                    Err(Errno::NODEV | Errno::CONNABORTED) => return,
                    Err(errno) => log::warn!("notify the kernel of a change: {errno}"),
                }
            }
        })
        .map(drop)
}

/// Invalidates a node's attributes and cached data, before it is read or written beside them. The
/// kernel has no other open of it, so nothing of it is being read that this would wait for.
pub(in crate::fuse) fn invalidate_content(connection: impl AsFd, node: NodeId) {
    invalidate(connection, node.0, 0);
}

/// Invalidates the attributes of the node that is `wire` to the kernel. The kernel takes no lock
/// for that, so it may be done while a request is answered.
pub(in crate::fuse) fn invalidate_attributes(connection: impl AsFd, wire: u64) {
    invalidate(connection, wire, -1);
}

fn invalidate(connection: impl AsFd, node: u64, offset: i64) {
    let mut message = Vec::new();
    Notification::InvalInode {
        node,
        offset,
        len: 0,
    }
    .encode(&mut message);
    match rustix::io::write(connection, &message) {
        // ENOENT: a new file, which the same reply names.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
        Err(errno) => log::warn!("invalidate what the kernel caches of a file: {errno}"),
    }
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
