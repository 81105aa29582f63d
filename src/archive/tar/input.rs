//! The bytes of a tar stream: blocks of headers, and data with its padding, counted against the
//! limits.

use std::io::BufRead;

use super::entry::Extent;
use super::fields::{BLOCK, padding};
use crate::archive::error::{DOWNLOAD, Error, Result};
use crate::archive::limits::Limits;

/// A stream, and where in it the reader is.
pub(super) struct Input<R> {
    stream: R,
    /// Bytes that the archive may have.
    limit: u64,
    /// Bytes taken from the stream.
    taken: u64,
    /// Bytes of the current entry that are still in the stream, without the padding.
    stored: u64,
    padding: u64,
}

impl<R: BufRead> Input<R> {
    /// Nothing is read yet.
    pub(super) fn new(stream: R, limits: &Limits) -> Self {
        Self {
            stream,
            limit: limits.bytes,
            taken: 0,
            stored: 0,
            padding: 0,
        }
    }

    /// The stream, behind the last block that was taken.
    pub(super) fn into_inner(self) -> R {
        self.stream
    }

    /// Bytes taken from the stream.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of the current entry that are still in the stream, without the padding.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Data of this size follow. Errors: more than the archive may have.
    pub(super) fn expect_data(&mut self, size: u64) -> Result<()> {
        if size > self.limit.saturating_sub(self.taken) {
            return Err(self.too_large());
        }
        self.stored = size;
        self.padding = padding(size);
        Ok(())
    }

    /// The next block of the data. `None` when less is left.
    pub(super) fn data_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.stored < BLOCK as u64 {
            return Ok(None);
        }
        self.stored -= BLOCK as u64;
        self.whole_block().map(Some)
    }

    /// Reads the data: calls `sink` with where in the file a piece belongs, and the piece. All of
    /// them are one extent unless `extents` says where they belong.
    pub(super) fn data(
        &mut self,
        extents: Option<Vec<Extent>>,
        mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let extents = extents.unwrap_or_else(|| {
            vec![Extent {
                offset: 0,
                len: self.stored,
            }]
        });
        for Extent {
            mut offset,
            mut len,
        } in extents
        {
            while len > 0 {
                let bytes = fill(&mut self.stream)?;
                let step = bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX));
                if step == 0 {
                    return Err(ends_early());
                }
                sink(offset, &bytes[..step])?;
                self.stream.consume(step);
                self.stored -= step as u64;
                self.count(step)?;
                offset += step as u64;
                len -= step as u64;
            }
        }
        Ok(())
    }

    /// Skips the rest of the data, and the padding.
    pub(super) fn skip_data(&mut self) -> Result<()> {
        let mut left = std::mem::take(&mut self.stored) + std::mem::take(&mut self.padding);
        while left > 0 {
            let len = fill(&mut self.stream)?.len();
            let step = len.min(usize::try_from(left).unwrap_or(usize::MAX));
            if step == 0 {
                return Err(ends_early());
            }
            self.stream.consume(step);
            self.count(step)?;
            left -= step as u64;
        }
        Ok(())
    }

    fn count(&mut self, step: usize) -> Result<()> {
        self.taken += step as u64;
        if self.taken > self.limit {
            return Err(self.too_large());
        }
        Ok(())
    }

    fn too_large(&self) -> Error {
        let what = format!("the archive has more than {} bytes", self.limit);
        Error::limit(what, "--max-size")
    }

    /// The next block. Errors: the stream ends before it.
    pub(super) fn whole_block(&mut self) -> Result<[u8; BLOCK]> {
        self.block()?.ok_or_else(ends_early)
    }

    /// The next block; `None` when the stream ends before it.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut done = 0;
        while done < BLOCK {
            let bytes = fill(&mut self.stream)?;
            let step = bytes.len().min(BLOCK - done);
            if step == 0 {
                return if done == 0 {
                    Ok(None)
                } else {
                    Err(ends_early())
                };
            }
            block[done..done + step].copy_from_slice(&bytes[..step]);
            self.stream.consume(step);
            done += step;
        }
        self.count(BLOCK)?;
        Ok(Some(block))
    }
}

fn ends_early() -> Error {
    Error::malformed("the archive is cut off here").with_hint(DOWNLOAD)
}

fn fill<R: BufRead>(input: &mut R) -> Result<&[u8]> {
    // Twice because the borrow of a loop's last round would last for ever.
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(reading(err)),
        }
    }
    input.fill_buf().map_err(reading)
}

fn reading(err: std::io::Error) -> Error {
    Error::io("cannot read the archive", err)
}
