//! The bytes of files.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{OFlags, StatVfs};
use rustix::io::Errno;

use crate::union::Union;
use crate::union::copyup::copydata::copy_data;
use crate::union::error::{Context, Result, fail};
use crate::union::node::ids::NodeId;
use crate::union::node::real::real_stat;

impl Union {
    /// Reads into `buffer` from `offset`; returns the number of bytes, less than asked only at the
    /// end of file.
    pub fn read(&self, node: NodeId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let inode = self.nodes.table.get(node)?;
        self.inode_read(&inode, offset, buffer)
    }

    /// Writes all of `data` at `offset`. Errors: EROFS, ENOSPC, EDQUOT, EFBIG, EIO, EPERM for an
    /// immutable file and for anything but appending to an append-only one.
    pub fn write(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_write(&inode, offset, data)
    }

    /// Writes pages that a program changed through a mapping: a file that was mapped keeps its
    /// capabilities, as it does on a disk, where no check comes before a page is changed. Killed
    /// between two steps, the file has lost them. Errors: as [`Union::write`].
    pub fn write_mapped(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_write_mapped(&inode, offset, data)
    }

    /// Writes what the kernel's page cache held back. The kernel keeps the file's mtime meanwhile
    /// and says it separately, before or after this: so the write itself must leave it as it is.
    pub fn write_back(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_write_back(&inode, offset, data)
    }

    /// Writes for a program that appends, which `offset` was the end of the file for. In a volume
    /// the end is where the disk has it. Killed, the file has grown by a part at most. Errors: as
    /// [`Union::write`].
    pub fn append(&self, node: NodeId, offset: u64, data: &[u8]) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_append(&inode, offset, data)
    }

    /// Brings a node's bytes (and, unless `data_only`, its attributes) to the disk, unless the
    /// union is volatile. Nothing of a lower layer needs that.
    pub fn fsync(&self, node: NodeId, data_only: bool) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_fsync(&inode, data_only)
    }

    /// fallocate(2) with the kernel's mode bits; modes that the upper's disk lacks answer
    /// EOPNOTSUPP.
    pub fn fallocate(&self, node: NodeId, mode: u32, offset: u64, length: u64) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_fallocate(&inode, mode, offset, length)
    }

    /// The next data (or, with `hole`, the next hole) at or behind `offset`. ENXIO behind the end
    /// of file.
    pub fn seek(&self, node: NodeId, offset: u64, hole: bool) -> Result<u64> {
        let inode = self.nodes.table.get(node)?;
        self.inode_seek(&inode, offset, hole)
    }

    /// The target of a symlink.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.nodes.table.get(node)?;
        self.read_link_of(&inode)
    }

    /// A descriptor of the real file behind a regular file, if that will be the same one for as
    /// long as the node lives: on a read-only union whose layers do not change (open for reading),
    /// or once the file is in the upper (open for reading and writing). Else `None`, as for
    /// everything but regular files and for files that the upper's disk does not let be opened for
    /// writing (running programs of another mount, immutable files).
    ///
    /// The union's cache may close its own descriptor meanwhile; this one lives as long as its
    /// [`Arc`]. What is written through it does not clear setuid and setgid, nor is it brought to
    /// the disk, unless the caller sees to that. Errors: ESTALE, and what openat(2) answers.
    pub fn backing(&self, node: NodeId) -> Result<Option<Arc<OwnedFd>>> {
        let inode = self.nodes.table.get(node)?;
        self.inode_backing(&inode)
    }

    /// Brings a file into the upper, as the first write to it would do. Killed meanwhile, the next
    /// mount sees the lower file as if nothing had happened, or the whole copy. Nothing is done
    /// when it is there. Errors: EROFS, ESTALE, EISDIR for a directory, ENOSPC and what the disks
    /// answer.
    pub fn prepare_write(&self, node: NodeId) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_prepare_write(&inode)
    }
    /// copy_file_range(2) between two nodes; returns the bytes copied. EXDEV and EOPNOTSUPP tell
    /// the kernel to copy through the page cache instead.
    pub fn copy_file_range(
        &self,
        from: NodeId,
        from_offset: u64,
        to: NodeId,
        to_offset: u64,
        length: usize,
    ) -> Result<usize> {
        let source = self.nodes.table.get(from)?;
        let target = self.nodes.table.get(to)?;
        self.inode_copy_file_range(&source, from_offset, &target, to_offset, length)
    }

    /// Whether the next write to a node copies more than `limit` bytes up first, and so takes its
    /// time.
    #[must_use]
    pub fn copies_more_than(&self, node: NodeId, limit: u64) -> bool {
        let inode = self.nodes.table.get(node);
        inode.is_ok_and(|inode| self.inode_copies_more_than(&inode, limit))
    }

    /// Copies to a new, empty regular file of this union the content of a file of another one:
    /// shared with the original where the disk can (FICLONE), holes as holes. Killed meanwhile, the
    /// file has a part of it. Errors: EROFS, ESTALE, EISDIR, EINVAL for special files, ENOSPC and
    /// what the disks answer.
    pub fn copy_content_from(&self, node: NodeId, other: &Self, source: NodeId) -> Result<()> {
        self.writable()?;
        let (to, from) = (self.nodes.table.get(node)?, other.nodes.table.get(source)?);
        let stat = match from.lock_file() {
            Some(state) => real_stat(&state.real)?,
            None => return fail(Errno::ISDIR),
        };
        let source = other.data_fd(&from, false)?;
        let target = self.open_upper_data(&to, OFlags::RDWR)?;
        copy_data(&source, &target, stat.size, &stat).context("copy", b".")
    }

    /// statvfs(3) of the disk that takes what is written at a node: the volume's, the upper's, or
    /// the newest lower's when there is none.
    pub fn statfs(&self, node: NodeId) -> Result<StatVfs> {
        let fd = match (
            self.volume_disk(node),
            &self.layers.upper,
            self.layers.lowers.first(),
        ) {
            (Some(fd), ..) => Ok(fd),
            (None, Some(dir), _) => dir.fd(),
            (None, None, Some(dir)) => dir.fd(),
            (None, None, None) => Err(Errno::NOENT),
        };
        fd.and_then(rustix::fs::fstatvfs).context("statvfs", b"/")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::union::tests::testing::{Stack, content, errno, file, find, mkdir};
    use crate::union::{Caller, NodeId};

    #[test]
    fn a_file_gets_the_content_of_another_unions_file() {
        let (from, to) = (Stack::new(), Stack::new());
        from.file("old/f", "content");
        let (source, target) = (from.open_read_only(), to.open());
        let made = target
            .make(NodeId::ROOT, b"g", &file(0o600), &Caller::default())
            .unwrap();
        let original = find(&source, "f").node;
        target
            .copy_content_from(made.node, &source, original)
            .unwrap();
        assert_eq!(content(&target, made.node), "content");
        let dir = mkdir(&target, "d", 0o755);
        assert!(target.copy_content_from(dir, &source, original).is_err());
        let refused = source.copy_content_from(original, &target, made.node);
        assert_eq!(errno(refused), rustix::io::Errno::ROFS);
    }
}
