//! Where an image comes from: a directory, or a tar archive in a file or on standard input. Members
//! are read by name, several at a time.

mod layout;
mod tarball;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::archive::codec::Decoder;
use crate::archive::{Compression, Limits};
use crate::cancel::Cancellable;
use crate::store::base::{Area, Context, Result, StoreError};
use crate::store::image::documents;
use layout::Layout;
use tarball::Tarball;

/// What stands for standard input.
pub(crate) const STDIN: &str = "-";

/// What a source can be.
const WHAT_TO_NAME: &str = "name an OCI layout (a directory or a tar archive), an archive of docker save, or - for standard input";

/// An opened source.
#[derive(Debug)]
pub(super) struct ImageSource {
    kind: SourceKind,
    given: PathBuf,
}

#[derive(Debug)]
enum SourceKind {
    Layout(Layout),
    Tarball(Tarball),
}

/// Something in a source.
pub(super) struct Member {
    /// Its content.
    pub(crate) reader: Box<dyn Read + Send>,
    /// Its bytes.
    pub(crate) size: u64,
}

impl ImageSource {
    /// Opens what the user named. What cannot be read at any place, standard input and compressed
    /// archives, is written into the area first: memory stays bounded.
    ///
    /// # Errors
    /// There is no such file, it is no archive, or the disk is full.
    pub(super) fn open(given: &Path, area: &Area, limits: &Limits) -> Result<Self> {
        let kind = if given.as_os_str() == STDIN {
            SourceKind::Tarball(Tarball::new(
                spool(std::io::stdin().lock(), area, limits, given)?,
                limits,
                given,
            )?)
        } else {
            let meta = std::fs::metadata(given).map_err(|error| {
                let what = format!("cannot open '{}'", given.display());
                StoreError::failed(what, error, WHAT_TO_NAME)
            })?;
            if meta.is_dir() {
                SourceKind::Layout(Layout::open(given)?)
            } else {
                let file = File::open(given).context("open", given)?;
                let mut start = [0; 4];
                let file = if meta.is_file()
                    && Compression::of(read_start(&file, given, &mut start)?) == Compression::None
                {
                    file
                } else {
                    spool(file, area, limits, given)?
                };
                SourceKind::Tarball(Tarball::new(file, limits, given)?)
            }
        };
        Ok(Self {
            kind,
            given: given.to_owned(),
        })
    }

    /// What the user named.
    #[must_use]
    pub(super) fn given(&self) -> &Path {
        &self.given
    }

    /// The last part of its path, from which an image may get its name; standard input has none.
    #[must_use]
    pub(super) fn file_name(&self) -> Option<String> {
        if self.given.as_os_str() == STDIN {
            return None;
        }
        let absolute = self.given.canonicalize().ok()?;
        Some(absolute.file_name()?.to_string_lossy().into_owned())
    }

    /// Opens a member; `None` when there is none of this name.
    ///
    /// # Errors
    /// It is no file, or cannot be read.
    pub(super) fn member(&self, name: &str) -> Result<Option<Member>> {
        match &self.kind {
            SourceKind::Layout(layout) => layout.member(name),
            SourceKind::Tarball(tarball) => tarball.member(name),
        }
    }

    /// Opens a member that has to be there.
    ///
    /// # Errors
    /// As [`ImageSource::member`]; there is none.
    pub(super) fn require(&self, name: &str) -> Result<Member> {
        self.member(name)?.ok_or_else(|| {
            StoreError::malformed(
                format!(
                    "'{}' has no '{}'",
                    self.given.display(),
                    name.escape_debug()
                ),
                "it is incomplete: download or build it again",
            )
        })
    }

    /// Reads a document; `None` when there is none of this name.
    ///
    /// # Errors
    /// It is too long, or cannot be read.
    pub(super) fn document(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>> {
        match self.member(name)? {
            Some(member) => documents::read(member.reader, limits.json, name).map(Some),
            None => Ok(None),
        }
    }
}

fn read_start<'a>(file: &File, given: &Path, start: &'a mut [u8]) -> Result<&'a [u8]> {
    use std::os::unix::fs::FileExt as _;
    let len = file.read_at(start, 0).context("read", given)?;
    Ok(start.get(..len).unwrap_or_default())
}

/// Writes a stream into the area, decompressed.
fn spool(from: impl Read, area: &Area, limits: &Limits, given: &Path) -> Result<File> {
    let unreadable = |error: std::io::Error| {
        StoreError::failed(
            format!("cannot read the archive '{}'", given.display()),
            error,
            "the file is damaged: download or build it again",
        )
    };
    let (decoder, _) = Decoder::new(Cancellable(from)).map_err(unreadable)?;
    let path = area.join("spool");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .context("create", &path)?;
    let mut limited = decoder.take(limits.bytes.saturating_add(1));
    let mut buffer = vec![0; 256 * 1024];
    let mut total: u64 = 0;
    loop {
        let len = limited.read(&mut buffer).map_err(unreadable)?;
        if len == 0 {
            break;
        }
        total = total.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        std::io::Write::write_all(&mut file, buffer.get(..len).unwrap_or_default())
            .context("write", &path)?;
    }
    if total > limits.bytes {
        return Err(StoreError::limit(
            format!("the archive holds more than {} bytes", limits.bytes),
            "raise the limit with --max-size if you trust it",
        ));
    }
    Ok(file)
}
