//! A blob is read by one thread and handed to the tar reader in another one.
//!
//! The first reads, hashes, keeps a copy and decompresses. The second hashes the tar that comes out
//! of it, and makes the files; it reads from the buffers of the first without copying. A few
//! buffers go round between them, so that memory is bounded and neither waits for the other for
//! long.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::blob::{BlobOptions, BlobReader};
use super::compression::Compression;
use super::decode::Decoder;
use super::digest::Digest;
use super::hashing::Hasher;
use crate::archive::error::{DOWNLOAD, Error, Result};

/// Bytes of a buffer, and how many go round.
const BUFFER: usize = 256 * 1024;
const BUFFERS: usize = 6;

/// What is handed over: a piece of the tar, or its end.
enum Piece {
    /// A buffer, and how many bytes of it count.
    Bytes(Box<[u8]>, usize),
    /// The blob is read to its end; whether the tar is to be hashed was said before.
    End,
    Failed,
}

/// The end of the first thread.
pub(in crate::archive) struct PipeWriter {
    full: SyncSender<(Piece, bool)>,
    empty: Receiver<Box<[u8]>>,
}

/// The end of the second thread.
pub(in crate::archive) struct PipeReader {
    full: Receiver<(Piece, bool)>,
    empty: Sender<Box<[u8]>>,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    done: bool,
    /// Hashes a tar that is not the blob itself.
    hasher: Option<Hasher>,
}

/// Both ends.
pub(in crate::archive) fn pipe() -> (PipeWriter, PipeReader) {
    let (full, filled) = sync_channel(BUFFERS);
    let (empty, emptied) = channel();
    for _ in 0..BUFFERS {
        // The other end is here: this cannot fail.
        if empty.send(vec![0; BUFFER].into_boxed_slice()).is_err() {
            break;
        }
    }
    let reader = PipeReader {
        full: filled,
        empty,
        buffer: Box::default(),
        at: 0,
        end: 0,
        done: false,
        hasher: None,
    };
    let writer = PipeWriter {
        full,
        empty: emptied,
    };
    (writer, reader)
}

impl PipeReader {
    /// Reads to the end. Returns digest and size of all that was read, unless it is the blob
    /// itself.
    pub(in crate::archive) fn drain(mut self, most: u64) -> Result<Option<(Digest, u64)>> {
        let mut left = 0u64;
        loop {
            let len = match self.fill_buf() {
                Ok(bytes) => bytes.len(),
                Err(err) => return Err(Error::io("cannot read the archive", err)),
            };
            if len == 0 {
                return Ok(self.hasher.map(Hasher::finish));
            }
            self.consume(len);
            left += len as u64;
            if left > most {
                let what = format!("more than {most} bytes follow the end of the archive");
                return Err(Error::limit(what, "--max-size"));
            }
        }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end && !self.done {
            let used = std::mem::take(&mut self.buffer);
            if !used.is_empty() && self.empty.send(used).is_err() {
                log::debug!("the blob has been read");
            }
            (self.at, self.end) = (0, 0);
            match self.full.recv() {
                Ok((Piece::Bytes(buffer, len), hash)) => {
                    if hash {
                        self.hasher
                            .get_or_insert_with(Hasher::default)
                            .update(&buffer[..len]);
                    }
                    (self.buffer, self.end) = (buffer, len);
                }
                Ok((Piece::End, hash)) => {
                    if hash {
                        self.hasher.get_or_insert_with(Hasher::default);
                    }
                    self.done = true;
                }
                Ok((Piece::Failed, _)) | Err(_) => {
                    self.done = true;
                    return Err(io::Error::other("the blob cannot be read"));
                }
            }
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.end);
    }
}

/// What the first thread found out of the blob.
pub(in crate::archive) struct Sourced {
    pub(in crate::archive) digest: Digest,
    pub(in crate::archive) size: u64,
    pub(in crate::archive) compression: Compression,
}

/// Why the first thread stopped early.
pub(in crate::archive) enum SourceError {
    /// The blob cannot be read, decompressed or kept.
    Failed(Error),
    /// The second thread has failed; it has the reason.
    ReaderGone,
}

impl From<Error> for SourceError {
    fn from(err: Error) -> Self {
        Self::Failed(err)
    }
}

/// Reads a blob to its end.
pub(in crate::archive) fn source(
    blob: impl Read,
    out: PipeWriter,
    options: BlobOptions<'_>,
) -> std::result::Result<Sourced, SourceError> {
    let sourced = read_blob(blob, &out, options);
    let end = match &sourced {
        Ok(_) => Piece::End,
        Err(_) => Piece::Failed,
    };
    let hash = matches!(&sourced, Ok(sourced) if sourced.compression != Compression::None);
    if out.full.send((end, hash)).is_err() && sourced.is_ok() {
        return Err(SourceError::ReaderGone);
    }
    sourced
}

fn read_blob(
    blob: impl Read,
    out: &PipeWriter,
    options: BlobOptions<'_>,
) -> std::result::Result<Sourced, SourceError> {
    let (mut decoder, compression) =
        Decoder::new(BlobReader::new(blob, options)).map_err(unreadable)?;
    let hash = compression != Compression::None;
    loop {
        let Ok(mut buffer) = out.empty.recv() else {
            return Err(SourceError::ReaderGone);
        };
        let mut len = 0;
        while len < buffer.len() {
            match decoder.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(step) => len += step,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(unreadable(err).into()),
            }
        }
        if len == 0 {
            break;
        }
        if out.full.send((Piece::Bytes(buffer, len), hash)).is_err() {
            return Err(SourceError::ReaderGone);
        }
    }
    let (digest, size) = decoder.finish().map_err(unreadable)?.finish()?;
    Ok(Sourced {
        digest,
        size,
        compression,
    })
}

fn unreadable(err: io::Error) -> Error {
    match err.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::malformed("the compressed blob is cut off").with_hint(DOWNLOAD)
        }
        io::ErrorKind::Unsupported => Error::malformed(err.to_string()),
        _ => Error::io("cannot read the blob", err),
    }
}
