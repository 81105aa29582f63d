//! Appending: to files of volumes, and to files that their disk only lets grow.
//!
//! A program that opened a file for appending means its end, and the offset that the transport's
//! kernel sends is where that kernel has cached the end. In a volume others may have appended
//! meanwhile: there the disk says where it is.
//!
//! Of a file that may only grow (`chattr +a`, ioctl_iflags(2)) the disk refuses to open such a file
//! for writing but for appending, where it ignores the offset. Which of the two a program opened it
//! for is not known here (there is no state per open file): so what is written must be what is
//! there, as far as something is there, and go on from its end.

use std::sync::Arc;

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};

use crate::layer::stat::Stat;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Error, Result, fail};
use crate::union::node::inode::Inode;

/// Writes everything at the end of a file, wherever that is by then.
fn append_all(fd: &OwnedFd, mut data: &[u8]) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwritev2(fd, &[IoSlice::new(data)], 0, ReadWriteFlags::APPEND) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => data = &data[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Union {
    /// As [`Union::append`].
    pub(in crate::union) fn inode_append(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        if !inode.is_shared() {
            return self.inode_write(inode, offset, data);
        }
        let own = |inode| {
            self.open_upper_data(inode, OFlags::WRONLY | OFlags::APPEND)
                .and_then(|fd| {
                    crate::union::copyup::copydata::write_all(&fd, data, offset)
                        .context("write", b".")
                })
        };
        match self.writable_fd(inode) {
            Ok(fd) => match append_all(&fd, data) {
                // Linux before 4.16, and disks that cannot be asked so: before anything was
                // written.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => own(inode),
                other => other.context("pwritev2", b"."),
            },
            // One that may only grow is opened for appending only.
            Err(error) if error.errno() == Errno::PERM => own(inode),
            Err(error) => Err(error),
        }
    }

    /// Writes to an upper file that could not be opened for writing, which `refused` says, if that
    /// may be appended to. A page of the kernel's cache may begin before the end of the file: what
    /// is there already is left alone. Killed between two steps, the file has grown by a part, as
    /// after any write. Errors: `refused` for other files, EPERM for anything but appending, ENOSPC
    /// and what the disk answers.
    pub(super) fn write_append_only(
        &self,
        inode: &Inode,
        offset: u64,
        data: &[u8],
        refused: Error,
    ) -> Result<()> {
        let Some(file) = inode.file() else {
            return Err(refused);
        };
        // From looking at the end to writing there.
        let _growing = lock(&file.copy_up);
        let Ok(fd) = self.open_upper_data(inode, OFlags::RDWR | OFlags::APPEND) else {
            return Err(refused);
        };
        let size = Stat::of_fd(&fd).context("fstat", b".")?.size;
        let Some(known) = size.checked_sub(offset) else {
            return fail(Errno::PERM);
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        let (old, new) = data.split_at(known);
        if !holds(&fd, old, offset).context("pread", b".")? {
            return fail(Errno::PERM);
        }
        crate::union::copyup::copydata::write_all(&fd, new, size).context("write", b".")
    }
}

/// Whether a file holds these bytes at `offset`.
fn holds(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> rustix::io::Result<bool> {
    let mut buffer = [0; 4096];
    while !bytes.is_empty() {
        let want = bytes.len().min(buffer.len());
        match rustix::io::pread(fd, &mut buffer[..want], offset) {
            Ok(0) => return Ok(false),
            Ok(got) if buffer[..got] == bytes[..got] => {
                bytes = &bytes[got..];
                offset += got as u64;
            }
            Ok(_) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}
