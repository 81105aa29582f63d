//! The bytes of files.

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::server::{Server, fail};
use super::setid::{Write, WriteKind};
use crate::fuse::proto::InHeader;
use crate::fuse::proto::reply::Body;
use crate::fuse::proto::wire::{
    CopyFileRangeIn, CopyFileRangeOut, FSYNC_FDATASYNC, FallocateIn, FsyncIn, LseekIn, LseekOut,
    ReadIn, WriteIn, WriteOut, write_flags,
};
use crate::union::{NodeId, Result};

/// Most bytes of one copy whose reply has 32 bits for the length.
pub(in crate::fuse) const NARROW_COPY: u64 = 1 << 30;
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
        let has = |flag: u32| arg.write_flags & flag != 0;
        let append = arg.flags & OFlags::APPEND.bits() != 0;
        let write = Write {
            offset: arg.offset,
            data,
            kind: WriteKind::of(has(write_flags::CACHE), self.agreed.writeback, append),
            kill_setid: has(write_flags::KILL_SUIDGID),
        };
        self.setid_rules(header).write(node, &write)?;
        Ok(body.put(&WriteOut {
            size: arg.size,
            padding: 0,
        })?)
    }

    pub(super) fn fsync(&self, node: NodeId, arg: &FsyncIn) -> Result<()> {
        self.union
            .fsync(node, arg.fsync_flags & FSYNC_FDATASYNC != 0)
    }

    pub(super) fn fallocate(&self, header: &InHeader, arg: &FallocateIn) -> Result<()> {
        let node = NodeId(header.nodeid);
        self.setid_rules(header).before_content_changes(node)?;
        self.union.fallocate(node, arg.mode, arg.offset, arg.length)
    }

    pub(super) fn lseek(&self, node: NodeId, arg: &LseekIn, body: &mut Body<'_>) -> Result<()> {
        let hole = match i32::try_from(arg.whence) {
            Ok(libc::SEEK_DATA) => false,
            Ok(libc::SEEK_HOLE) => true,
            _ => return fail(Errno::INVAL),
        };
        if i64::try_from(arg.offset).is_err() {
            return fail(Errno::NXIO);
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
        self.setid_rules(header).before_content_changes(to)?;
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
