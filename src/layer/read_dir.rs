//! Listing a directory of a layer, by getdents(2).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{RawDir, SeekFrom, seek};
use rustix::io::{Errno, Result};

use super::dir::{Dir, os};
use super::open::open_dir;
use super::stat::{Kind, Stat};

impl Dir {
    /// Calls `each` with name, type (unless the file system does not have it) and inode number of
    /// every entry but `.` and `..`. An inode number that the listing does not have is asked for
    /// with statx(2). At most one reader at a time: the descriptor's position is shared. Errors:
    /// EACCES for a directory that may not be read, and those of getdents(2).
    pub(crate) fn for_each(&self, mut each: impl FnMut(&[u8], Option<Kind>, u64)) -> Result<()> {
        let fd = self.fd()?;
        seek(&fd, SeekFrom::Start(0)).map_err(unreadable)?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        buffer.resize_with(32 * 1024, MaybeUninit::uninit);
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = Kind::from_file_type(entry.file_type());
            match known_number(entry.ino()) {
                Some(ino) => each(name, kind, ino),
                None => match Stat::of_entry(&fd, os(name)) {
                    Ok(stat) => each(name, kind, stat.ino),
                    // Removed meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                },
            }
        }
        Ok(())
    }

    /// Opens the directory for a reader of its own, from a position that its disk returned before;
    /// 0 is the start.
    pub(crate) fn stream(&self, position: u64) -> Result<DirStream> {
        let fd = open_dir(&*self.fd()?, b".")?;
        if position != 0 {
            seek(&fd, SeekFrom::Start(position)).map_err(unreadable)?;
        }
        Ok(DirStream(fd))
    }
}

/// The error of reading a directory: EBADF of an `O_PATH` descriptor stands for the EACCES of
/// openat(2).
fn unreadable(errno: Errno) -> Errno {
    match errno {
        Errno::BADF => Errno::ACCESS,
        other => other,
    }
}

/// A directory that is being read. Disks know since when: some do not list what was made later.
#[derive(Debug)]
pub(crate) struct DirStream(OwnedFd);

/// The inode number of a listing; `None` for the two that stand for none: libfuse's
/// `FUSE_UNKNOWN_INO`, and 0.
fn known_number(ino: u64) -> Option<u64> {
    const UNKNOWN: u64 = 0xffff_ffff;
    (ino != 0 && ino != UNKNOWN).then_some(ino)
}

impl DirStream {
    /// The device of the disk that is read.
    pub(crate) fn device(&self) -> Result<u64> {
        Ok(Stat::of_fd(&self.0)?.dev)
    }

    /// As [`Dir::for_each`], for about a hundred entries more, `.` and `..` included. `each` is
    /// passed the position behind the entry as well, from which the disk can go on, and no number
    /// that the disk does not have. Returns whether there was any.
    pub(crate) fn next(
        &self,
        mut each: impl FnMut(&[u8], Option<Kind>, Option<u64>, u64),
    ) -> Result<bool> {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(unreadable)?;
            let kind = Kind::from_file_type(entry.file_type());
            let name = entry.file_name().to_bytes();
            each(
                name,
                kind,
                known_number(entry.ino()),
                entry.next_entry_cookie(),
            );
            any = true;
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(any)
    }
}
