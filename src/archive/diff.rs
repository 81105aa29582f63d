//! The changes in an upper directory as a layer, and a merged tree as one flat archive.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Compression, Digest, Error, Progress, Result};
use crate::layer::stat::Time;
use crate::union::Config;

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

/// Writes the changes in `upper` as a layer. `lowers`, newest first, are only needed (and only read) where a renamed
/// directory refers to them.
///
/// # Errors
/// A name that a layer cannot hold, and failures of the disk; each names the entry.
pub fn diff(
    _upper: &Path,
    _lowers: &[PathBuf],
    _out: impl Write,
    _options: &Pack<'_>,
) -> Result<Packed> {
    Err(Error::refused("diff comes with the next commit"))
}

/// Writes everything that a union shows as one flat archive. Nothing is mounted; an upper is only read.
///
/// # Errors
/// As [`diff`].
pub fn export(_union: &Config, _out: impl Write, _options: &Pack<'_>) -> Result<Packed> {
    Err(Error::refused("export comes with the next commit"))
}
