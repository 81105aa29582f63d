//! A layer into any directory outside a store: a new one, or onto a tree that is there.
//!
//! The layer is unpacked and verified beside the directory first, so that the directory stays as it
//! was when anything is wrong with it, or when it would change something that is mounted in the
//! directory. Then it takes the directory's place by one rename, or is moved onto the tree.
//!
//! # Crash
//! A layer is on the disk before it takes the directory's place, and so is its name when [`apply`]
//! returns; a layer is on the disk before it is moved onto a tree, and so is the tree at the end.
//!
//! Killed before that, a directory `.NAME.unionmount-PID` stays beside it (or in it, where it is a
//! mount point), which the next one removes that applies a layer there; killed while the layer is
//! moved onto a tree, a part of it is there. A power failure leaves the same: the directory as it
//! was or the whole layer, and of a tree, every file as it was or whole.
//!
//! Cancelled (see [`cancel`]), nothing stays; moving onto a tree is not cancelled.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::beneath::Tree;
use super::root::{RootMetadata, is_empty};
use super::unpack::{Unpack, Unpacked, unpack};
use super::{merge, mounts};
use crate::archive::disk::{Staged, clear, sweep, sync_disk_of, sync_names_in};
use crate::archive::error::{Error, Result};
use crate::archive::options::Whiteouts;
use crate::cancel::{self, Cleanup, Removing};
use crate::layer::{FdCache, ReadOnlyDir};

/// Descriptors that stay open while a layer is moved.
const DESCRIPTORS: usize = 64;

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// They are recorded, and the directory is a layer: it must be new or empty.
    Layer,
    /// They are carried out on what the directory holds.
    Tree,
    /// A directory that is new or empty becomes a layer, any other is a tree.
    Auto,
}

/// Applies a layer to a directory.
///
/// # Errors
/// As [`unpack`]; the directory is as it was then, unless the disk failed while a verified layer
/// was moved onto a tree.
pub fn apply(
    blob: impl Read + Send,
    dir: &Path,
    onto: ApplyMode,
    options: &Unpack<'_>,
) -> Result<Unpacked> {
    let failed = |what: &str, err| Error::io(format!("{what} '{}'", dir.display()), err);
    let exists = match fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_symlink() => Some(fs::metadata(dir).map_err(|e| failed("stat", e))?),
        Ok(meta) => Some(meta),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
        Err(err) => return Err(failed("stat", err)),
    };
    let real = match &exists {
        Some(_) => dir.canonicalize().map_err(|e| failed("resolve", e))?,
        None => dir.to_owned(),
    };
    sweep(&real);
    let filled = exists.is_some() && !is_empty(Tree::open(&real)?.root())?;
    match onto {
        ApplyMode::Layer if filled => Err(Error::refused(format!(
            "'{}' is not empty, so it cannot become a layer",
            dir.display()
        ))
        .with_hint("name a new directory, or carry the layer out on it with --whiteout apply")),
        ApplyMode::Tree => onto_tree(blob, &real, exists.is_some(), options),
        ApplyMode::Auto if filled => onto_tree(blob, &real, true, options),
        ApplyMode::Layer | ApplyMode::Auto => as_layer(blob, &real, exists.as_ref(), options),
    }
}

/// The directory is the layer.
fn as_layer(
    blob: impl Read + Send,
    dir: &Path,
    exists: Option<&fs::Metadata>,
    options: &Unpack<'_>,
) -> Result<Unpacked> {
    let staged = match Staged::beside(dir) {
        Ok(staged) => staged,
        // A mount point cannot be replaced: in place then. What was unpacked goes again when it
        // fails.
        Err(_) if exists.is_some() => return in_place(blob, dir, options),
        Err(err) => return Err(err),
    };
    let mode = exists.map_or(0o755, |meta| meta.mode() & 0o7777);
    let shape = || {
        if let Some(meta) = exists {
            std::os::unix::fs::lchown(staged.path(), Some(meta.uid()), Some(meta.gid()))?;
        }
        fs::set_permissions(staged.path(), fs::Permissions::from_mode(mode))
    };
    shape().map_err(|err| Error::io(format!("chmod '{}'", staged.path().display()), err))?;
    let unpacked = unpack(blob, staged.path(), options)?;
    sync_disk(staged.path())?;
    cancel::commit()?;
    fs::rename(staged.path(), dir)
        .map_err(|err| Error::io(format!("rename to '{}'", dir.display()), err))?;
    staged.became_something_else();
    let above = dir.parent().unwrap_or(Path::new(""));
    sync_names_in(above)
        .map_err(|err| Error::io(format!("it is there, but fsync '{}'", above.display()), err))?;
    Ok(unpacked)
}

/// The directory is the layer, and stays where it is.
fn in_place(blob: impl Read + Send, dir: &Path, options: &Unpack<'_>) -> Result<Unpacked> {
    let cleanup = Cleanup::begin()?;
    let root = Tree::open(dir)?.root().clone();
    let before = RootMetadata::of(&root)?;
    let unpacked = unpack(blob, dir, options)?;
    if let Err(cancelled) = cancel::commit() {
        let removing = Removing::begin();
        if let Err(err) = clear(&root).and_then(|()| before.restore(&root)) {
            cancel::removed_dir(format!("'{}': {err}", dir.display()));
        }
        drop((removing, cleanup));
        return Err(cancelled.into());
    }
    sync_disk(dir)?;
    Ok(unpacked)
}

fn sync_disk(dir: &Path) -> Result<()> {
    sync_disk_of(dir).map_err(|err| Error::io(format!("syncfs '{}'", dir.display()), err))
}

/// The layer is carried out on a tree.
fn onto_tree(
    blob: impl Read + Send,
    dir: &Path,
    exists: bool,
    options: &Unpack<'_>,
) -> Result<Unpacked> {
    let cleanup = Cleanup::begin()?;
    if !exists {
        fs::create_dir(dir).map_err(|err| Error::io(format!("mkdir '{}'", dir.display()), err))?;
    }
    let done = staged_onto_tree(blob, dir, options);
    if done.is_err()
        && !exists
        && let Err(err) = fs::remove_dir(dir)
    {
        cancel::removed_dir(format!("'{}': {err}", dir.display()));
    }
    drop(cleanup);
    done
}

fn staged_onto_tree(blob: impl Read + Send, dir: &Path, options: &Unpack<'_>) -> Result<Unpacked> {
    let (staged, spared) = match Staged::beside(dir) {
        Ok(staged) => (staged, None),
        Err(_) => {
            let staged = Staged::within(dir)?;
            let name = staged.path().file_name().map(std::ffi::OsStr::to_owned);
            (staged, name)
        }
    };
    // Where owners and modes are recorded, everything has the mode of the root on the disk.
    let mode = fs::metadata(dir).map(|meta| meta.mode() & 0o777 | 0o700);
    mode.and_then(|mode| fs::set_permissions(staged.path(), fs::Permissions::from_mode(mode)))
        .map_err(|err| Error::io(format!("chmod '{}'", staged.path().display()), err))?;
    let options = Unpack {
        whiteouts: Whiteouts::Wh,
        ..*options
    };
    let unpacked = unpack(blob, staged.path(), &options)?;
    // A file must have its data before it takes the place of another.
    sync_disk(staged.path())?;
    let layer = Tree::open(staged.path())?;
    let root = layer.root().try_clone();
    let root = root.map_err(|err| Error::io("dup", err))?;
    let layer = ReadOnlyDir::alone(root, &FdCache::new(DESCRIPTORS));
    let implied: HashSet<Vec<u8>> = unpacked.implied.iter().cloned().collect();
    let merger = merge::Merger {
        implied: &implied,
        spared: spared.as_ref().map(|name| name.as_encoded_bytes()),
    };
    mounts::refuse_changes(&layer, &mounts::below(dir))?;
    let tree = Tree::open(dir)?;
    cancel::commit()?;
    merger.merge(&layer, tree.root(), unpacked.has_root)?;
    sync_disk(dir)?;
    Ok(unpacked)
}
