//! A reader whose next bytes can be looked at.

use std::io::{self, BufRead, Read};

use super::compression::PEEK;

/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;

/// A reader that shows at least the bytes by which a compression is known, where it has so many
/// more.
#[derive(Debug)]
pub(super) struct Peeking<R> {
    inner: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> Peeking<R> {
    /// Nothing is read yet.
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            at: 0,
            end: 0,
        }
    }

    /// What it reads from; what was read and not taken is lost.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next bytes, at least [`PEEK`] unless the end is near.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        if self.end - self.at < PEEK {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            while self.end < PEEK && self.read_more()? > 0 {}
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn read_more(&mut self) -> io::Result<usize> {
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(len) => {
                    self.end += len;
                    return Ok(len);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

impl<R: Read> Read for Peeking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && buffer.len() >= BUFFER {
            return self.inner.read(buffer);
        }
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: Read> BufRead for Peeking<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.end);
    }
}
