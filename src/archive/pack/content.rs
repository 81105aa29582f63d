//! The bytes of files that are written into an archive, and where the disk has holes in them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::archive::tar::Content;
use crate::union::{NodeId, Union};

/// Only the end is no data: for disks that cannot say where holes are.
fn all_data(offset: u64, size: u64) -> Option<(u64, u64)> {
    (offset < size).then_some((offset, size))
}

/// The next data, by two calls that say where data and where a hole begins.
fn next_data(
    offset: u64,
    size: u64,
    seek: impl Fn(u64, bool) -> rustix::io::Result<u64>,
) -> io::Result<Option<(u64, u64)>> {
    match seek(offset, false) {
        Ok(begin) if begin >= size => Ok(None),
        Ok(begin) => match seek(begin, true) {
            Ok(end) => Ok(Some((begin, end.min(size)))),
            Err(Errno::NXIO) => Ok(Some((begin, size))),
            Err(errno) => Err(errno.into()),
        },
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(all_data(offset, size)),
        Err(errno) => Err(errno.into()),
    }
}

/// The bytes of an open file.
pub(super) struct FdContent<'a>(pub(super) &'a OwnedFd);

impl Content for FdContent<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(self.0, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    fn next_data(&mut self, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        next_data(offset, size, |at, hole| {
            let position = match hole {
                true => SeekFrom::Hole(at),
                false => SeekFrom::Data(at),
            };
            rustix::fs::seek(self.0, position)
        })
    }
}

/// The bytes of a file of a union.
pub(super) struct NodeContent<'a> {
    pub(super) union: &'a Union,
    pub(super) node: NodeId,
}

impl Content for NodeContent<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.union.read(self.node, offset, buffer);
        read.map_err(|err| err.errno().into())
    }

    fn next_data(&mut self, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        next_data(offset, size, |at, hole| {
            self.union
                .seek(self.node, at, hole)
                .map_err(|err| err.errno())
        })
    }
}
