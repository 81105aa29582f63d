//! Messages to the kernel that answer no request: what it should forget.
//!
//! A notification is a reply with the number 0 and a code in place of the error. Sources: the
//! kernel's `include/uapi/linux/fuse.h`, `enum fuse_notify_code`. The kernel answers ENOENT for
//! what it does not know, which is as good.

use zerocopy::{Immutable, IntoBytes};

use super::wire::{
    EXPIRE_ONLY, NotifyDeleteOut, NotifyInvalEntryOut, NotifyInvalInodeOut, NotifyRetrieveOut,
    OutHeader,
};

const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const RETRIEVE: i32 = 5;
const DELETE: i32 = 6;

/// What the kernel is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notification<'a> {
    /// Attributes of a node are old, and its data from `offset` on for `len` bytes (0: to the end);
    /// a negative `offset` leaves the data.
    InvalInode {
        /// The node id.
        node: u64,
        /// Where the data begin that are old.
        offset: i64,
        /// How many bytes.
        len: i64,
    },
    /// A name must be looked up again, and what is cached below it goes.
    InvalEntry {
        /// The directory's node id.
        parent: u64,
        /// The name.
        name: &'a [u8],
    },
    /// A name must be looked up again; what is cached below it stays if it still means the same.
    /// Needs `FUSE_HAS_EXPIRE_ONLY`.
    ExpireEntry {
        /// The directory's node id.
        parent: u64,
        /// The name.
        name: &'a [u8],
    },
    /// The kernel is to send what its page cache holds of a node, as a request NOTIFY_REPLY: here
    /// nothing of it.
    RetrieveNothing {
        /// The number that the request gets. Even, since the kernel keeps odd ones for INTERRUPT.
        unique: u64,
        /// The node id.
        node: u64,
    },
    /// A name is gone: watchers of the directory are notified.
    Delete {
        /// The directory's node id.
        parent: u64,
        /// The node id that the name had.
        child: u64,
        /// The name.
        name: &'a [u8],
    },
}

impl Notification<'_> {
    /// The message as it is written to /dev/fuse, appended to `message`.
    pub(crate) fn encode(&self, message: &mut Vec<u8>) {
        match *self {
            Self::InvalInode { node, offset, len } => {
                let body = NotifyInvalInodeOut {
                    ino: node,
                    off: offset,
                    len,
                };
                begin(message, INVAL_INODE, &body, 0);
            }
            Self::InvalEntry { parent, name } => entry(message, parent, name, 0),
            Self::ExpireEntry { parent, name } => entry(message, parent, name, EXPIRE_ONLY),
            Self::RetrieveNothing { unique, node } => {
                let body = NotifyRetrieveOut {
                    notify_unique: unique,
                    nodeid: node,
                    offset: 0,
                    size: 0,
                    padding: 0,
                };
                begin(message, RETRIEVE, &body, 0);
            }
            Self::Delete {
                parent,
                child,
                name,
            } => {
                let body = NotifyDeleteOut {
                    parent,
                    child,
                    namelen: length(name.len()),
                    padding: 0,
                };
                begin(message, DELETE, &body, name.len() + 1);
                message.extend_from_slice(name);
                message.push(0);
            }
        }
    }
}

fn entry(message: &mut Vec<u8>, parent: u64, name: &[u8], flags: u32) {
    let body = NotifyInvalEntryOut {
        parent,
        namelen: length(name.len()),
        flags,
    };
    begin(message, INVAL_ENTRY, &body, name.len() + 1);
    message.extend_from_slice(name);
    message.push(0);
}

/// Header and structure; `more` bytes follow.
fn begin(message: &mut Vec<u8>, code: i32, body: &(impl IntoBytes + Immutable), more: usize) {
    let header = OutHeader {
        len: length(size_of::<OutHeader>() + body.as_bytes().len() + more),
        error: code,
        unique: 0,
    };
    message.extend_from_slice(header.as_bytes());
    message.extend_from_slice(body.as_bytes());
}

fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(notification: Notification<'_>) -> Vec<u8> {
        let mut message = Vec::new();
        notification.encode(&mut message);
        let len = u32::from_ne_bytes([message[0], message[1], message[2], message[3]]);
        assert_eq!(usize::try_from(len), Ok(message.len()));
        assert_eq!(message[8..16], [0; 8], "a notification has no number");
        message
    }

    #[test]
    fn lengths_and_codes_are_the_kernels() {
        let inode = encoded(Notification::InvalInode {
            node: 5,
            offset: -1,
            len: 0,
        });
        assert_eq!((inode.len(), inode[4]), (40, 2));
        let entry = encoded(Notification::InvalEntry {
            parent: 1,
            name: b"abc",
        });
        assert_eq!((entry.len(), entry[4]), (36, 3));
        assert_eq!(&entry[32..], b"abc\0");
        let expired = encoded(Notification::ExpireEntry {
            parent: 1,
            name: b"abc",
        });
        assert_eq!(expired[28], 1);
        let gone = encoded(Notification::Delete {
            parent: 1,
            child: 2,
            name: b"x",
        });
        assert_eq!((gone.len(), gone[4]), (42, 6));
        let retrieved = encoded(Notification::RetrieveNothing { unique: 6, node: 1 });
        assert_eq!((retrieved.len(), retrieved[4]), (48, 5));
        assert_eq!((retrieved[16], retrieved[24]), (6, 1));
    }
}
