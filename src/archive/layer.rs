//! A layer blob into a directory: decompressed, extracted, hashed and verified in one pass.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Compression, Digest, Error, Limits, Ownership, Progress, Result, Whiteouts};

/// What is known of a blob beforehand. What is known is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Digest of the blob as it is stored.
    pub digest: Option<Digest>,
    /// Digest of the tar in it.
    pub diff_id: Option<Digest>,
    /// Bytes of the blob as it is stored.
    pub compressed_size: Option<u64>,
    /// Bytes of the tar in it.
    pub size: Option<u64>,
}

/// How a layer is unpacked.
#[derive(Clone, Copy)]
pub struct Unpack<'a> {
    /// What is known of the blob.
    pub expect: Expect,
    /// How much it may ask for.
    pub limits: Limits,
    /// Whose the files will be.
    pub ownership: Ownership,
    /// How whiteouts are recorded.
    pub whiteouts: Whiteouts,
    /// Where a copy of the blob goes: a compressed one as it is, a plain tar compressed with zstd.
    pub keep: Option<&'a File>,
    /// Who hears of the progress.
    pub progress: &'a dyn Progress,
}

impl Default for Unpack<'_> {
    fn default() -> Self {
        Self {
            expect: Expect::default(),
            limits: Limits::default(),
            ownership: Ownership::possible(),
            whiteouts: Whiteouts::default(),
            keep: None,
            progress: &(),
        }
    }
}

/// What a layer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the blob as it is stored.
    pub digest: Digest,
    /// Digest of the tar in it.
    pub diff_id: Digest,
    /// How the blob is compressed.
    pub compression: Compression,
    /// Bytes of the blob as it is stored.
    pub compressed_size: u64,
    /// Bytes of the tar.
    pub size: u64,
    /// Entries, whiteouts and opaque marks included.
    pub entries: u64,
    /// Bytes of content of all files.
    pub content: u64,
    /// The archive said what the root directory looks like; otherwise its owner, mode and times are the caller's.
    pub has_root: bool,
}

/// Unpacks a layer into an empty directory that exists. When it fails, the directory is empty again.
///
/// # Errors
/// Whatever is wrong with the archive, the digests and sizes that are not as expected, and failures of the disk; each
/// names the entry.
///
/// # Crash
/// Killed meanwhile, the directory holds a part of the layer: it becomes a layer when the caller gives it its name.
pub fn unpack(_blob: impl Read + Send, _into: &Path, _options: &Unpack<'_>) -> Result<Unpacked> {
    Err(Error::refused("unpacking comes with the next commit"))
}
