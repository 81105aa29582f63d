//! Sending replies, good ones and bad ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use rustix::fs::StatVfs;

use super::convert::{attr, errno};
use super::shared::{Call, Shared, generation};
use crate::fuse::serve::{Requester, Write};
use crate::union::{Attr, Entry, NAME_MAX, NodeId, Result, Union, Validity};

/// Every reply can say that it failed.
pub(super) trait Fail {
    fn fail(self, errno: Errno);
}

macro_rules! fail_by_error {
    ($($reply:ty),*) => { $(impl Fail for $reply {
        fn fail(self, errno: Errno) {
            self.error(errno);
        }
    })* };
}
fail_by_error!(
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

impl Shared {
    /// Runs an operation and sends its reply. A panic answers EIO for this request (fuser does so
    /// for a reply that is dropped unsent), and the mount lives on. What a disk refused is logged.
    pub(super) fn answer<R: Fail, T>(
        &self,
        call: Call<'_>,
        reply: R,
        operation: impl FnOnce() -> Result<T>,
        send: impl FnOnce(R, T),
    ) {
        let outcome = catch_unwind(AssertUnwindSafe(|| match operation() {
            Ok(value) => send(reply, value),
            Err(error) => {
                self.report(call, &error);
                reply.fail(errno(&error));
            }
        }));
        if outcome.is_err() {
            log::error!("{}: panicked; answered EIO", call.name);
        }
    }

    /// The same for an operation on the node that the request is addressed to. Errors: ESTALE for a
    /// number that the kernel does not know.
    pub(super) fn answer_on<R: Fail, T>(
        &self,
        call: Call<'_>,
        reply: R,
        operation: impl FnOnce(&Union, NodeId) -> Result<T>,
        send: impl FnOnce(R, T),
    ) {
        let operation = || operation(&self.union, self.node(call.ino)?);
        self.answer(call, reply, operation, send);
    }

    /// A reply that names a node: the kernel counts one lookup on it.
    pub(super) fn send_entry(&self, reply: ReplyEntry, entry: &Entry) {
        let wire = self.ids.count_lookup(entry);
        let validity = entry.attr.validity;
        reply.entry_with_ttls(
            &self.attr_lifetime(wire, validity),
            &self.agreed().name_lifetime(validity),
            &attr(&entry.attr, wire.id),
            generation(entry),
        );
    }

    /// The reply to CREATE: the same, and the file is open.
    pub(super) fn send_created(&self, reply: ReplyCreate, entry: &Entry) {
        let wire = self.ids.count_lookup(entry);
        reply.created(
            &self.attr_lifetime(wire, entry.attr.validity),
            &attr(&entry.attr, wire.id),
            generation(entry),
            FileHandle(0),
            FopenFlags::empty(),
        );
    }

    /// Attributes alone, with the true `st_ino`.
    pub(super) fn send_attr(&self, reply: ReplyAttr, value: &Attr) {
        let lifetime = self.agreed().attr_lifetime(value.validity);
        reply.attr(&lifetime, &attr(value, value.ino));
    }

    /// Node 0 with a lifetime: the kernel remembers that there is nothing.
    pub(super) fn send_absent(&self, reply: ReplyEntry, validity: Validity) {
        let lifetime = self.agreed().name_lifetime(validity);
        reply.entry(&lifetime, &absent(), Generation(0));
    }
}

impl Shared {
    /// WRITE, in whichever thread.
    pub(super) fn write(
        &self,
        ino: INodeNo,
        requester: Requester,
        write: &Write<'_>,
        reply: ReplyWrite,
    ) {
        let written = u32::try_from(write.data.len()).unwrap_or(u32::MAX);
        self.answer_on(
            Call::on("write", ino),
            reply,
            |_, node| self.setid_rules(requester).write(node, write),
            |reply, ()| reply.written(written),
        );
    }
}

/// The numbers of a disk.
pub(super) fn send_statfs(reply: ReplyStatfs, disk: &StatVfs) {
    let size = |value: u64| u32::try_from(value).unwrap_or(4096);
    reply.statfs(
        disk.f_blocks,
        disk.f_bfree,
        disk.f_bavail,
        disk.f_files,
        disk.f_ffree,
        size(disk.f_bsize),
        u32::try_from(NAME_MAX).unwrap_or(255),
        size(disk.f_frsize),
    );
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
