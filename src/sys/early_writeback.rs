//! sync_file_range(2), to have a disk begin with what it will be asked to have at the end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;

/// The disk gets so many bytes at a time.
const PIECE: u64 = 1024 * 1024;

/// Writes to the end of a new file, and has the disk take what is there while the rest is made:
/// fsync(2) then waits for the last piece only. Promises nothing; that is left to fsync(2).
#[derive(Debug)]
pub(crate) struct EarlyWriteback<'a> {
    file: &'a File,
    written: u64,
    started: u64,
}

impl<'a> EarlyWriteback<'a> {
    /// For a file that is empty, and whose offset is 0.
    #[must_use]
    pub(crate) fn new(file: &'a File) -> Self {
        Self {
            file,
            written: 0,
            started: 0,
        }
    }

    /// Has the disk begin with what is there.
    fn start(&mut self) {
        let range = i64::try_from(self.started).and_then(|from| {
            let len = i64::try_from(self.written - self.started)?;
            Ok((from, len))
        });
        self.started = self.written;
        let Ok((from, len)) = range else { return };
        // SAFETY: the call takes numbers only, and the descriptor is open as long as the borrow
        // lasts.
        let result = unsafe {
            libc::sync_file_range(
                self.file.as_raw_fd(),
                from,
                len,
                libc::SYNC_FILE_RANGE_WRITE,
            )
        };
        if result != 0 {
            // A disk that cannot is asked by fsync(2) for all of it, and reports its errors there.
            log::trace!("sync_file_range: {}", io::Error::last_os_error());
        }
    }
}

impl Write for EarlyWriteback<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.file.write(bytes)?;
        self.written += len as u64;
        if self.written - self.started >= PIECE {
            self.start();
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read as _, Seek as _};

    #[test]
    fn what_is_written_is_there_and_was_begun_with() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|at| (at % 251) as u8).collect();
        let mut out = EarlyWriteback::new(&file);
        for piece in bytes.chunks(100_000) {
            out.write_all(piece).unwrap();
        }
        out.flush().unwrap();
        assert!(out.started > 2 * PIECE && out.started <= out.written);
        assert_eq!(out.written, bytes.len() as u64);
        file.rewind().unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }
}
