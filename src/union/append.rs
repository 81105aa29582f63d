//! Writing to files that their disk only lets grow (`chattr +a`, ioctl_iflags(2)).
//!
//! The disk refuses to open such a file for writing but for appending, where it ignores the offset. Which of the two a
//! program opened it for is not known here (there is no state per open file): so what is written must be what is
//! there, as far as something is there, and go on from its end.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Union;
use super::error::{During, Error, Result, refuse};
use super::inode::Inode;
use crate::layer::stat::Stat;
use crate::sync::lock;

impl Union {
    /// Writes to an upper file that could not be opened for writing, which `refused` says, if that may be appended
    /// to. A page of the kernel's cache may begin before the end of the file: what is there already is left alone.
    /// Killed between two steps, the file has grown by a part, as after any write.
    /// Errors: `refused` for other files, EPERM for anything but appending, ENOSPC and what the disk answers.
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
        let size = Stat::of_fd(&fd).during("fstat", b".")?.size;
        let Some(known) = size.checked_sub(offset) else {
            return refuse(Errno::PERM);
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(data.len());
        let (old, new) = data.split_at(known);
        if !holds(&fd, old, offset).during("pread", b".")? {
            return refuse(Errno::PERM);
        }
        super::data::write_all(&fd, new, size).during("write", b".")
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
