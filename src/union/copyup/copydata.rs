//! Copying the bytes of a file from one disk to another, or within one, as cheaply as the disks
//! can.

use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::layer::stat::Stat;

/// Bytes per step where neither reflink nor copy_file_range works.
const COPY_BUFFER: usize = 256 * 1024;

/// Copies the first `size` bytes of a file: shared with the original where the disk can (FICLONE),
/// else copied by the kernel, else read and written. Holes stay holes. A small file without any is
/// copied in two calls, which is less than it takes to ask the disk for something better.
pub(in crate::union) fn copy_data(
    from: &OwnedFd,
    to: &OwnedFd,
    size: u64,
    stat: &Stat,
) -> rustix::io::Result<()> {
    if size <= COPY_BUFFER as u64 && stat.blocks * 512 >= stat.size {
        return copy_by_hand(from, to, 0, size);
    }
    if size == stat.size && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            // No SEEK_DATA here: everything is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno),
        };
        if data == size {
            break;
        }
        let hole = match rustix::fs::seek(from, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(size),
            Err(_) => size,
        };
        copy_range(from, to, data, hole)?;
        at = hole;
    }
    rustix::fs::ftruncate(to, size)
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> rustix::io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let step = usize::try_from(end - read_at)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), step) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(from, to, read_at, end);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> rustix::io::Result<()> {
    let length = usize::try_from(end - start).unwrap_or(usize::MAX);
    let mut buffer = vec![0; length.min(COPY_BUFFER)];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let got = match rustix::io::pread(from, &mut buffer[..want], at) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        write_all(to, &buffer[..got], at)?;
        at += got as u64;
    }
    Ok(())
}

/// Writes everything at `offset`, however many calls that takes.
pub(in crate::union) fn write_all(
    fd: &OwnedFd,
    mut data: &[u8],
    mut offset: u64,
) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                data = &data[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
