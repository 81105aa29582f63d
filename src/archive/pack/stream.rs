//! What both kinds of written archives share: how they are made, where the bytes go, which times
//! and xattrs they have.
//!
//! Two threads make an archive: one reads the disk and writes the tar into buffers, a few of which
//! go round, the other hashes, compresses and writes what is in them.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::options::{Pack, Packed};
use crate::archive::codec::{Compression, Encoder, HashingWriter};
use crate::archive::error::{Error, Result};
use crate::archive::options::Progress;
use crate::archive::tar::TarWriter;
use crate::cancel;

/// Bytes that are collected before they are hashed and compressed, and how many such buffers there
/// may be.
const BUFFER: usize = 256 * 1024;
const BUFFERS: usize = 4;

/// An archive that is being written.
pub(super) struct Archive {
    pub(super) tar: TarWriter<ReadAhead>,
    pub(super) entries: u64,
}

/// Has an archive made by `make`, in a thread of its own, and puts it where it belongs.
///
/// # Errors
/// Those of `make`, of compressing and of writing.
pub(super) fn packed(
    out: impl Write,
    options: &Pack<'_>,
    make: impl FnOnce(&mut Archive) -> Result<()> + Send,
) -> Result<Packed> {
    let mut stream = Stream::new(out, options).map_err(|err| Error::io("cannot compress", err))?;
    let unwritten = |err| Error::io("cannot write the archive", err);
    let (full, filled) = sync_channel(BUFFERS);
    let (used, empty) = channel();
    std::thread::scope(|scope| {
        let maker = scope.spawn(move || {
            let mut archive = Archive {
                tar: TarWriter::new(ReadAhead {
                    buffer: Vec::with_capacity(BUFFER),
                    full,
                    empty,
                }),
                entries: 0,
            };
            make(&mut archive)?;
            let entries = archive.entries;
            let mut last = archive.tar.finish()?;
            last.flush().map_err(unwritten)?;
            Ok::<u64, Error>(entries)
        });
        let written = write_all(filled, &used, &mut stream);
        // The receiver is dropped by now: a maker that has more fails.
        let made = match maker.join() {
            Ok(made) => made,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        written.map_err(unwritten)?;
        stream.finish(made?).map_err(unwritten)
    })
}

/// Writes all buffers, and sends them back empty.
fn write_all(
    filled: Receiver<Vec<u8>>,
    used: &Sender<Vec<u8>>,
    out: &mut impl Write,
) -> io::Result<()> {
    for mut buffer in filled {
        out.write_all(&buffer)?;
        buffer.clear();
        if used.send(buffer).is_err() {
            log::trace!("the archive has been made");
        }
    }
    Ok(())
}

/// Where the tar is written: into buffers, ahead of what is done with them.
pub(super) struct ReadAhead {
    buffer: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Write for ReadAhead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        let len = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        let next = self.empty.try_recv();
        let next = next.unwrap_or_else(|_| Vec::with_capacity(BUFFER));
        let full = std::mem::replace(&mut self.buffer, next);
        let sent = full.is_empty() || self.full.send(full).is_ok();
        match sent {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Where the bytes of a tar go: hashed, compressed, hashed again.
pub(super) struct Stream<'a, W: Write> {
    inner: Inner<W>,
    progress: &'a dyn Progress,
}

enum Inner<W: Write> {
    /// Of a plain tar both digests are the same.
    Plain(HashingWriter<W>),
    Packed(Box<HashingWriter<Encoder<HashingWriter<W>>>>),
}

impl<'a, W: Write> Stream<'a, W> {
    fn new(out: W, options: &Pack<'a>) -> std::io::Result<Self> {
        let out = HashingWriter::new(out);
        Ok(Self {
            inner: match options.compression {
                Compression::None => Inner::Plain(out),
                compression => Inner::Packed(Box::new(HashingWriter::new(Encoder::new(
                    out,
                    compression,
                )?))),
            },
            progress: options.progress,
        })
    }

    fn finish(self, entries: u64) -> std::io::Result<Packed> {
        let (mut out, digest, compressed_size, diff_id, size) = match self.inner {
            Inner::Plain(out) => {
                let (out, digest, size) = out.finish();
                (out, digest, size, digest, size)
            }
            Inner::Packed(tar) => {
                let (encoder, diff_id, size) = tar.finish();
                let (out, digest, compressed_size) = encoder.finish()?.finish();
                (out, digest, compressed_size, diff_id, size)
            }
        };
        out.flush()?;
        Ok(Packed {
            digest,
            diff_id,
            compressed_size,
            size,
            entries,
        })
    }
}

impl<W: Write> Write for Stream<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        cancel::check()?;
        let len = match &mut self.inner {
            Inner::Plain(out) => out.write(bytes)?,
            Inner::Packed(out) => out.write(bytes)?,
        };
        self.progress.bytes(len as u64);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.inner {
            Inner::Plain(out) => out.flush(),
            Inner::Packed(out) => out.flush(),
        }
    }
}
