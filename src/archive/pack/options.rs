//! How an archive is written, and what was written.

use crate::archive::codec::{Compression, Digest};
use crate::archive::error::{Error, Result};
use crate::archive::options::Progress;
use crate::layer::marks::WH_PREFIX;
use crate::layer::stat::Time;

/// Which times the entries of an archive get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Those that they have.
    #[default]
    Unchanged,
    /// Those that they have, but none later than this (`SOURCE_DATE_EPOCH`).
    NoLaterThan(Time),
    /// All the same.
    All(Time),
}

impl Times {
    pub(super) fn of(self, mtime: Time) -> Time {
        match self {
            Self::Unchanged => mtime,
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
    /// Is notified of the progress, in bytes of the tar.
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

/// Refuses a name that would be taken for a mark.
pub(super) fn check_name(path: &[u8], name: &[u8]) -> Result<()> {
    if name.starts_with(WH_PREFIX) {
        return Err(
            Error::refused("names that begin with '.wh.' are whiteouts in a layer")
                .with_hint("rename it, no layer can hold it")
                .at(path),
        );
    }
    Ok(())
}
