//! The bytes of files.

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Server, refuse};
use crate::fuse::proto::InHeader;
use crate::fuse::proto::reply::Body;
use crate::fuse::proto::wire::{
    CopyFileRangeIn, CopyFileRangeOut, FSYNC_FDATASYNC, FallocateIn, FsyncIn, LseekIn, LseekOut,
    ReadIn, WriteIn, WriteOut, write_flags,
};
use crate::fuse::serve::notifier;
use crate::fuse::serve::privilege::{belongs, may_keep_setid};
use crate::union::{NodeId, Result};

/// Most bytes of one copy whose reply has 32 bits for the length.
const NARROW_COPY: u64 = 1 << 30;
/// Most bytes of one copy: a copy that cannot share blocks should end some time.
const WIDE_COPY: u64 = 1 << 40;

impl Server {
    pub(super) fn read(&self, node: NodeId, arg: &ReadIn, body: &mut Body<'_>) -> Result<()> {
        let size = usize::try_from(arg.size).unwrap_or(usize::MAX);
        body.fill(size, |buffer| self.union.read(node, arg.offset, buffer))
    }

    pub(super) fn write(
        &self,
        header: &InHeader,
        arg: &WriteIn,
        data: &[u8],
        body: &mut Body<'_>,
    ) -> Result<()> {
        let node = NodeId(header.nodeid);
        if arg.write_flags & write_flags::KILL_SUIDGID != 0 {
            self.clear_setid(header, node)?;
        }
        let from_cache = arg.write_flags & write_flags::CACHE != 0;
        if from_cache && self.agreed.writeback {
            self.union.write_back(node, arg.offset, data)?;
        } else if from_cache {
            self.union.write_mapped(node, arg.offset, data)?;
        } else if arg.flags & OFlags::APPEND.bits() != 0 {
            self.union.append(node, arg.offset, data)?;
        } else {
            self.union.write(node, arg.offset, data)?;
        }
        Ok(body.put(&WriteOut {
            size: arg.size,
            padding: 0,
        })?)
    }

    /// Takes setuid and setgid from a file that is about to be changed, unless its bits may stay. (The file's
    /// `security.capability` goes whoever writes; the upper's disk sees to that.)
    fn drop_setid(&self, header: &InHeader, node: NodeId) -> Result<()> {
        const SETID: u32 = 0o6000;
        if self.union.getattr(node)?.mode & SETID != 0 && !may_keep_setid(header) {
            self.clear_setid(header, node)?;
        }
        Ok(())
    }

    /// The kernel leaves the clearing to us and goes on believing the old mode, with which the program that somebody
    /// just wrote could be executed: it has to ask again.
    fn clear_setid(&self, header: &InHeader, node: NodeId) -> Result<()> {
        let cleared = self
            .union
            .clear_setid(node, &|group| belongs(header.pid, group))?;
        if let (true, Some(connection)) = (cleared, &self.connection) {
            notifier::forget_attributes(connection, node.0);
        }
        Ok(())
    }

    pub(super) fn fsync(&self, node: NodeId, arg: &FsyncIn) -> Result<()> {
        self.union
            .fsync(node, arg.fsync_flags & FSYNC_FDATASYNC != 0)
    }

    pub(super) fn fallocate(&self, header: &InHeader, arg: &FallocateIn) -> Result<()> {
        let node = NodeId(header.nodeid);
        self.drop_setid(header, node)?;
        self.union.fallocate(node, arg.mode, arg.offset, arg.length)
    }

    pub(super) fn lseek(&self, node: NodeId, arg: &LseekIn, body: &mut Body<'_>) -> Result<()> {
        let hole = match i32::try_from(arg.whence) {
            Ok(libc::SEEK_DATA) => false,
            Ok(libc::SEEK_HOLE) => true,
            _ => return refuse(Errno::INVAL),
        };
        if i64::try_from(arg.offset).is_err() {
            return refuse(Errno::NXIO);
        }
        let offset = self.union.seek(node, arg.offset, hole)?;
        Ok(body.put(&LseekOut { offset })?)
    }

    /// COPY_FILE_RANGE, and its 64-bit form whose reply can tell of more than 4 GiB.
    pub(super) fn copy_file_range(
        &self,
        header: &InHeader,
        arg: &CopyFileRangeIn,
        wide: bool,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let (from, to) = (NodeId(header.nodeid), NodeId(arg.nodeid_out));
        self.drop_setid(header, to)?;
        let most = if wide { WIDE_COPY } else { NARROW_COPY };
        let len = usize::try_from(arg.len.min(most)).unwrap_or(usize::MAX);
        let copied = self
            .union
            .copy_file_range(from, arg.off_in, to, arg.off_out, len)? as u64;
        if wide {
            body.put(&CopyFileRangeOut {
                bytes_copied: copied,
            })?;
        } else {
            let size = u32::try_from(copied).unwrap_or(u32::MAX);
            body.put(&WriteOut { size, padding: 0 })?;
        }
        Ok(())
    }
}
