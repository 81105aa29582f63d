//! A layer blob into a directory: decompressed, extracted, hashed and verified in one pass.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::apply::Applier;
use super::beneath::Tree;
use super::root::{RootMetadata, is_empty};
use crate::archive::codec::{
    BlobOptions, Compression, Digest, PipeReader, SourceError, Sourced, pipe, source,
};
use crate::archive::disk::clear;
use crate::archive::error::{Error, Result};
use crate::archive::limits::Limits;
use crate::archive::options::{Ownership, Progress, Whiteouts};
use crate::archive::tar::{End, TarReader};
use crate::cancel::{self, Removing};

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
    /// The layers below, newest first: directories that no entry describes get the metadata that
    /// they have there.
    pub below: &'a [PathBuf],
    /// A digest that either the blob or the tar in it must have.
    pub either: Option<Digest>,
    /// Where a copy of the blob goes: a compressed one as it is, a plain tar compressed with zstd.
    pub keep: Option<&'a File>,
    /// Is notified of the progress.
    pub progress: &'a dyn Progress,
}

impl Default for Unpack<'_> {
    fn default() -> Self {
        Self {
            expect: Expect::default(),
            limits: Limits::default(),
            ownership: Ownership::possible(),
            whiteouts: Whiteouts::default(),
            below: &[],
            either: None,
            keep: None,
            progress: &(),
        }
    }
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The archive describes the root directory; otherwise its owner, mode and times are the
    /// caller's.
    pub has_root: bool,
    /// Directories that no entry describes, made because something is in them, as paths from the
    /// root. They belong to root and have mode 0755; in a merged tree they are shown with the
    /// metadata of the layers below.
    pub implied: Vec<Vec<u8>>,
}

/// Unpacks a layer into an empty directory that exists. When it fails, the directory is empty
/// again, with the metadata that it had.
///
/// # Errors
/// Anything wrong with the archive, the digests and sizes that are not as expected, and failures of
/// the disk; each names the entry.
///
/// # Crash
/// Killed meanwhile, the directory holds a part of the layer: it becomes a layer when the caller
/// gives it its name. Nothing is synced: that is for the caller, once for all layers.
pub fn unpack(blob: impl Read + Send, into: &Path, options: &Unpack<'_>) -> Result<Unpacked> {
    let dir = Tree::open(into)?;
    if !is_empty(dir.root())? {
        return Err(Error::refused(format!("'{}' is not empty", into.display()))
            .with_hint("a layer is unpacked into a directory of its own"));
    }
    let before = RootMetadata::of(dir.root())?;
    let unpacked = verified(blob, options, |tar, limits| {
        extract(tar, into, options, limits)
    });
    if unpacked.is_err() {
        let _removing = Removing::begin();
        let cleared = clear(dir.root()).and_then(|()| before.restore(dir.root()));
        if let Err(err) = cleared {
            cancel::removed_dir(format!("'{}': {err}", into.display()));
        }
    }
    unpacked
}

/// Reads a blob of a layer that is there already, verifies it, and keeps it where `options` say.
/// Nothing is extracted, and no limit holds for its content: what it holds is what a layer with the
/// expected digests holds.
///
/// # Errors
/// The blob cannot be read, its digests and sizes are not as expected, and failures of the disk.
///
/// # Crash
/// Killed meanwhile, the file has a part of the blob. Nothing is synced.
pub(crate) fn keep(blob: impl Read + Send, options: &Unpack<'_>) -> Result<Unpacked> {
    verified(blob, options, |tar, _| {
        let hashed = tar.drain(u64::MAX)?;
        Ok(Extracted {
            diff_id: hashed.map(|(digest, _)| digest),
            size: hashed.map(|(_, size)| size),
            entries: 0,
            content: 0,
            has_root: false,
            implied: Vec::new(),
            end: End::Unmarked,
        })
    })
}

/// One thread reads, hashes and decompresses; this one hashes the tar and passes it to `consume`.
fn verified(
    blob: impl Read + Send,
    options: &Unpack<'_>,
    consume: impl FnOnce(PipeReader, Limits) -> Result<Extracted>,
) -> Result<Unpacked> {
    let mut limits = options.limits;
    if let Some(size) = options.expect.size {
        limits.bytes = limits.bytes.min(size);
    }
    let (decoded, tar) = pipe();
    std::thread::scope(|scope| {
        let blob_options = BlobOptions {
            size: options.expect.compressed_size,
            keep: options.keep,
            progress: options.progress,
        };
        let source = scope.spawn(move || source(blob, decoded, blob_options));
        let extracted = consume(tar, limits);
        // The pipe is closed by now: a source that has more fails.
        let sourced = match source.join() {
            Ok(sourced) => sourced,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // A blob that cannot be read is the reason for an archive that ends early.
        let sourced = match sourced {
            Err(SourceError::Failed(err)) => return Err(err),
            Err(SourceError::ReaderGone) => None,
            Ok(sourced) => Some(sourced),
        };
        let extracted = extracted?;
        let Some(sourced) = sourced else {
            return Err(Error::malformed("the archive was not read to its end"));
        };
        finish(&sourced, extracted, options)
    })
}

/// Puts together what both threads found, and compares it with what was expected.
fn finish(sourced: &Sourced, extracted: Extracted, options: &Unpack<'_>) -> Result<Unpacked> {
    let expect = &options.expect;
    let unpacked = Unpacked {
        digest: sourced.digest,
        diff_id: match extracted.diff_id {
            Some(diff_id) => diff_id,
            // Of a plain tar both are the same.
            None => sourced.digest,
        },
        compression: sourced.compression,
        compressed_size: sourced.size,
        size: extracted.size.unwrap_or(sourced.size),
        entries: extracted.entries,
        content: extracted.content,
        has_root: extracted.has_root,
        implied: extracted.implied,
    };
    let sizes = [
        (
            "size of the blob",
            expect.compressed_size,
            unpacked.compressed_size,
        ),
        ("size of the layer", expect.size, unpacked.size),
    ];
    for (what, expected, found) in sizes {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::mismatch(what, expected, found));
        }
    }
    let digests = [
        ("digest of the blob", expect.digest, unpacked.digest),
        ("diffID of the layer", expect.diff_id, unpacked.diff_id),
    ];
    for (what, expected, found) in digests {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::mismatch(what, expected, found));
        }
    }
    if let Some(either) = options.either
        && either != unpacked.digest
        && either != unpacked.diff_id
    {
        return Err(Error::mismatch("digest", either, unpacked.digest));
    }
    let is_verified = [expect.digest, expect.diff_id, options.either]
        .iter()
        .any(Option::is_some);
    if extracted.end == End::Unmarked && !is_verified {
        return Err(
            Error::malformed("the archive has no end mark: it may have been cut off")
                .with_hint("give its digest if it is meant to be so"),
        );
    }
    Ok(unpacked)
}

/// What the thread found that makes the files.
struct Extracted {
    /// Digest and size of the tar; `None` where the other thread knows them.
    diff_id: Option<Digest>,
    size: Option<u64>,
    entries: u64,
    content: u64,
    has_root: bool,
    implied: Vec<Vec<u8>>,
    end: End,
}

fn extract(
    tar: PipeReader,
    into: &Path,
    options: &Unpack<'_>,
    limits: Limits,
) -> Result<Extracted> {
    let mut applier = Applier::new(into, options.ownership, options.whiteouts)?
        .with_absolute_names(limits.absolute)
        .above(options.below);
    let mut reader = TarReader::new(tar, limits);
    while let Some(entry) = reader.next_entry()? {
        cancel::check()?;
        applier.apply(&entry, &mut reader)?;
    }
    applier.finish()?;
    let end = reader.end().unwrap_or(End::Unmarked);
    let hashed = reader.into_inner().drain(limits.bytes)?;
    Ok(Extracted {
        diff_id: hashed.map(|(digest, _)| digest),
        size: hashed.map(|(_, size)| size),
        entries: applier.entries,
        content: applier.content,
        has_root: applier.has_root,
        implied: applier.implied(),
        end,
    })
}
