//! What both kinds of written archives share: how they are made, where the bytes go, which times and xattrs they have.
//!
//! Two threads make an archive: one reads the disk and writes the tar into buffers, a few of which go round, the other hashes,
//! compresses and writes what is in them.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::Progress;
use super::compression::{Compression, Encoder};
use super::digest::{Digest, HashingWriter};
use super::entry::Xattr;
use super::error::{Error, Result};
use super::write::TarWriter;
use crate::layer::marks::WH_PREFIX;
use crate::layer::stat::Time;

/// Bytes that are collected before they are hashed and compressed, and how many such buffers there may be.
const BUFFER: usize = 256 * 1024;
const BUFFERS: usize = 4;

/// Which times the entries of an archive get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Those that they have.
    #[default]
    AsTheyAre,
    /// Those that they have, but none later than this (`SOURCE_DATE_EPOCH`).
    NoLaterThan(Time),
    /// All the same.
    All(Time),
}

impl Times {
    pub(super) fn of(self, mtime: Time) -> Time {
        match self {
            Self::AsTheyAre => mtime,
            Self::NoLaterThan(latest) => mtime.min(latest),
            Self::All(time) => time,
        }
    }
}

/// How an archive is written.
#[derive(Clone, Copy)]
pub struct Pack<'a> {
    /// How it is compressed.
    pub compression: Compression,
    /// Which times the entries get.
    pub times: Times,
    /// Who hears of the progress, in bytes of the tar.
    pub progress: &'a dyn Progress,
}

impl Default for Pack<'_> {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            times: Times::default(),
            progress: &(),
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of what was written.
    pub digest: Digest,
    /// Digest of the tar before it was compressed.
    pub diff_id: Digest,
    /// Bytes written.
    pub compressed_size: u64,
    /// Bytes of the tar.
    pub size: u64,
    /// Entries, whiteouts and opaque marks included, the root not.
    pub entries: u64,
}

/// An archive that is being written.
pub(super) struct Archive {
    pub(super) tar: TarWriter<Ahead>,
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
                tar: TarWriter::new(Ahead {
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
            Ok(entries)
        });
        let written = write_all(filled, &used, &mut stream);
        // Nobody takes buffers any more: a maker that still has something gives up.
        let made = match maker.join() {
            Ok(made) => made,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        written.map_err(unwritten)?;
        stream.finish(made?).map_err(unwritten)
    })
}

/// Writes what comes, to its end, and gives the buffers back.
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
pub(super) struct Ahead {
    buffer: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Write for Ahead {
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

/// Whether an xattr of the merged view belongs into an archive: not what describes this machine rather than the file.
pub(super) fn is_kept(name: &[u8]) -> bool {
    const OF_THIS_MACHINE: [&[u8]; 2] = [b"security.selinux", b"security.evm"];
    const ACLS: &[u8] = b"system.posix_acl_";
    !OF_THIS_MACHINE.contains(&name) && (!name.starts_with(b"system.") || name.starts_with(ACLS))
}

/// Refuses a name that would be taken for a mark.
pub(super) fn check_name(path: &[u8], name: &[u8]) -> Result<()> {
    if name.starts_with(WH_PREFIX) {
        return Err(Error::refused(
            "names that begin with '.wh.' are whiteouts in a layer; rename it, no layer can hold it",
        )
        .at(path));
    }
    Ok(())
}

/// Xattrs in the one order that they are written in.
pub(super) fn sorted(mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
    xattrs.sort();
    xattrs
}
