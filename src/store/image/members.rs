//! The members of an archive of images: always the same bytes for the same content.

use std::io::{self, Read, Write};

use crate::archive::codec::HashingReader;
use crate::archive::tar::{EntryKind, TarEntry, TarWriter};
use crate::archive::{Digest, Error, Progress};
use crate::cancel;
use crate::layer::stat::Time;
use crate::store::base::{Result, StoreError};

/// An archive that is being written.
pub(super) struct Members<'a, W> {
    tar: TarWriter<W>,
    progress: &'a dyn Progress,
}

impl<'a, W: Write> Members<'a, W> {
    /// Nothing is written yet. `progress` is notified of the bytes of layers.
    pub(super) fn new(out: W, progress: &'a dyn Progress) -> Self {
        Self {
            tar: TarWriter::new(out),
            progress,
        }
    }

    /// Writes the end of the archive.
    pub(super) fn finish(self) -> Result<()> {
        self.tar.finish().map(drop).map_err(cannot_save)
    }

    pub(super) fn dir(&mut self, name: &str) -> Result<()> {
        let entry = entry(&format!("{name}/"), EntryKind::Dir, 0o755);
        self.tar.entry(&entry).map_err(cannot_save)
    }

    pub(super) fn file(&mut self, name: &str, mut bytes: &[u8]) -> Result<()> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let entry = entry(name, EntryKind::File(size), 0o644);
        self.tar
            .stream(&entry, size, &mut bytes)
            .map_err(cannot_save)
    }

    /// A member whose content has to have this size and digest: damage of the store is not passed
    /// on.
    pub(super) fn verified(
        &mut self,
        name: &str,
        size: u64,
        content: Box<dyn Read>,
        expected: Digest,
    ) -> Result<()> {
        let damaged = |why: &str| {
            StoreError::damaged(
                format!("the stored archive {expected} is damaged: {why}"),
                "run 'unionmount system check --deep', remove the image and load it again",
            )
        };
        let mut content = Watched {
            inner: HashingReader::new(content),
            progress: self.progress,
            failed: false,
        };
        let entry = entry(name, EntryKind::File(size), 0o644);
        match self.tar.stream(&entry, size, &mut content) {
            Err(error) if is_cut_off(&error) => return Err(damaged("it is too short")),
            Err(error) if content.failed => return Err(damaged(&error.to_string())),
            written => written.map_err(cannot_save)?,
        }
        match io::copy(&mut content, &mut io::sink()) {
            Ok(0) => {}
            Ok(_) => return Err(damaged("it is too long")),
            Err(error) => return Err(damaged(&error.to_string())),
        }
        match content.inner.finish() {
            (digest, _) if digest == expected => Ok(()),
            _ => Err(damaged("it has another digest")),
        }
    }
}

fn entry(name: &str, what: EntryKind, mode: u32) -> TarEntry {
    TarEntry {
        path: name.as_bytes().to_vec(),
        what,
        mode,
        uid: 0,
        gid: 0,
        mtime: Time { secs: 0, nanos: 0 },
        xattrs: Vec::new(),
    }
}

/// Whether a stream ended before its size.
fn is_cut_off(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let cause: Option<&io::Error> = source.and_then(|source| source.downcast_ref());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

fn cannot_save(error: Error) -> StoreError {
    StoreError::failed(
        "cannot save",
        error,
        "make room where it is written to, or write it elsewhere with -o FILE",
    )
}

/// Notifies of what is read.
struct Watched<'a> {
    inner: HashingReader<Box<dyn Read>>,
    progress: &'a dyn Progress,
    /// It could not be read to its end.
    failed: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        cancel::check()?;
        let read = self.inner.read(buffer);
        self.failed |= read.is_err();
        let len = read?;
        self.progress.bytes(u64::try_from(len).unwrap_or(0));
        Ok(len)
    }
}
