//! A blob as it is stored: hashed, counted and copied while it is read.

use std::fs::File;
use std::io::{self, Read, Write as _};

use super::compression::{Compression, PEEK};
use super::digest::Digest;
use super::encode::Encoder;
use super::hashing::Hasher;
use crate::archive::error::{Error, Result};
use crate::archive::options::Progress;
use crate::cancel;

/// What happens to a blob while it is read.
#[derive(Clone, Copy)]
pub(in crate::archive) struct BlobOptions<'a> {
    /// Its size, where that is known: more is not read.
    pub(in crate::archive) size: Option<u64>,
    /// Where a copy goes: a compressed blob as it is, a plain tar compressed with zstd.
    pub(in crate::archive) keep: Option<&'a File>,
    /// Is notified of the bytes that were read.
    pub(in crate::archive) progress: &'a dyn Progress,
}

/// The blob as it is stored: hashed, kept and counted while it is read.
pub(super) struct BlobReader<'a, R> {
    blob: R,
    hasher: Hasher,
    kept: Option<Kept<'a>>,
    options: BlobOptions<'a>,
}

impl<'a, R: Read> BlobReader<'a, R> {
    /// Nothing is read yet.
    pub(super) fn new(blob: R, options: BlobOptions<'a>) -> Self {
        Self {
            blob,
            hasher: Hasher::default(),
            kept: options.keep.map(|file| Kept::Undecided(file, Vec::new())),
            options,
        }
    }

    /// Completes the copy. Returns the digest and the size of the blob.
    pub(super) fn finish(self) -> Result<(Digest, u64)> {
        if let Some(kept) = self.kept {
            kept.finish()
                .map_err(|err| Error::io("cannot keep the blob", err))?;
        }
        Ok(self.hasher.finish())
    }
}

/// The copy of a blob.
enum Kept<'a> {
    /// As long as its first bytes do not say what it is.
    Undecided(&'a File, Vec<u8>),
    /// As it is.
    AsItIs(&'a File),
    /// Compressed.
    Packed(Box<Encoder<&'a File>>),
}

impl Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Packed(encoder) => encoder.write_all(bytes),
            Self::AsItIs(file) => file.write_all(bytes),
            Self::Undecided(_, start) => {
                start.extend_from_slice(bytes);
                match start.len() {
                    0..PEEK => Ok(()),
                    _ => self.decide(),
                }
            }
        }
    }

    fn decide(&mut self) -> io::Result<()> {
        if let Self::Undecided(file, start) = self {
            let file: &File = file;
            let start = std::mem::take(start);
            *self = match Compression::of(&start) {
                Compression::None => Self::Packed(Box::new(Encoder::new(file, Compression::Zstd)?)),
                Compression::Gzip | Compression::Zstd => Self::AsItIs(file),
            };
            self.write(&start)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.decide()?;
        match self {
            Self::Packed(encoder) => encoder.finish().map(drop),
            Self::AsItIs(_) | Self::Undecided(..) => Ok(()),
        }
    }
}

impl<R: Read> Read for BlobReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        cancel::check()?;
        let len = self.blob.read(buffer)?;
        self.hasher.update(&buffer[..len]);
        if self
            .options
            .size
            .is_some_and(|most| self.hasher.len() > most)
        {
            return Err(io::Error::other("it is longer than expected"));
        }
        if let Some(kept) = &mut self.kept {
            kept.write(&buffer[..len])?;
        }
        self.options.progress.bytes(len as u64);
        Ok(len)
    }
}
