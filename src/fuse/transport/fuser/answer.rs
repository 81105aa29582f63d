//! Sending replies, good ones and bad ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use fuser::{
    Errno, FileAttr, FileType, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};

use super::convert::errno;
use crate::fuse::serve::report::report;
use crate::union::Result;

/// Every reply can say that it failed.
pub(super) trait Refuse {
    fn refuse(self, errno: Errno);
}

macro_rules! refuse_by_error {
    ($($reply:ty),*) => { $(impl Refuse for $reply {
        fn refuse(self, errno: Errno) {
            self.error(errno);
        }
    })* };
}
refuse_by_error!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyIoctl,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// Runs an operation and sends its reply. A panic answers EIO for this request (fuser does so for a reply that
/// is dropped unsent), and the mount lives on. What a disk refused is logged once.
pub(super) fn answer<R: Refuse, T>(
    call: &str,
    reply: R,
    operation: impl FnOnce() -> Result<T>,
    send: impl FnOnce(R, T),
) {
    let outcome = catch_unwind(AssertUnwindSafe(|| match operation() {
        Ok(value) => send(reply, value),
        Err(error) => {
            report(call, &error);
            reply.refuse(errno(&error));
        }
    }));
    if outcome.is_err() {
        log::error!("{call}: panicked; answered EIO");
    }
}

/// The attributes of nothing.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Sends a value, or its length when that is what was asked for (size 0).
pub(super) fn send_xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        reply.size(length);
    } else if length > size {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
