//! A layer into any directory outside a store: a new one, or onto a tree that is there.
//!
//! The layer is unpacked and verified beside the directory first, so that whatever is wrong with it, the directory stays
//! as it was. Then it takes the directory's place by one rename, or is moved onto the tree.
//!
//! # Crash
//! Killed before that, a directory `.NAME.unionmount-PID` stays beside it (or in it, where it is a mount point) and can be
//! removed; killed while the layer is moved onto a tree, a part of it is there.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::layer::{Unpack, Unpacked, unpack};
use super::{beneath, empty, merge};
use crate::layer::{FdCache, LowerDir};

/// Descriptors that stay open while a layer is moved.
const DESCRIPTORS: usize = 64;

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// They are recorded, and the directory is a layer: it must be new or empty.
    Layer,
    /// They are carried out on what the directory holds.
    Tree,
    /// A directory that is new or empty becomes a layer, any other is a tree.
    Whichever,
}

/// Applies a layer to a directory.
///
/// # Errors
/// As [`unpack`]; the directory is as it was then, unless the disk failed while a verified layer was moved onto a tree.
pub fn apply(
    blob: impl Read + Send,
    dir: &Path,
    onto: Onto,
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
    let filled = exists.is_some() && !empty::is_empty(beneath::Tree::open(&real)?.root())?;
    match onto {
        Onto::Layer if filled => Err(Error::refused(format!(
            "'{}' is not empty, so it cannot become a layer; name a new directory, or carry the layer out on it with --whiteout apply",
            dir.display()
        ))),
        Onto::Tree => onto_tree(blob, &real, exists.is_some(), options),
        Onto::Whichever if filled => onto_tree(blob, &real, true, options),
        Onto::Layer | Onto::Whichever => as_layer(blob, &real, exists.as_ref(), options),
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
        // A mount point cannot be replaced: in place then. What was unpacked goes again when it fails.
        Err(_) if exists.is_some() => return unpack(blob, dir, options),
        Err(err) => return Err(err),
    };
    let mode = exists.map_or(0o755, |meta| meta.mode() & 0o7777);
    let shape = || {
        if let Some(meta) = exists {
            std::os::unix::fs::lchown(&staged.path, Some(meta.uid()), Some(meta.gid()))?;
        }
        fs::set_permissions(&staged.path, fs::Permissions::from_mode(mode))
    };
    shape().map_err(|err| Error::io(format!("chmod '{}'", staged.path.display()), err))?;
    let unpacked = unpack(blob, &staged.path, options)?;
    fs::rename(&staged.path, dir)
        .map_err(|err| Error::io(format!("rename to '{}'", dir.display()), err))?;
    staged.became_something_else();
    Ok(unpacked)
}

/// The layer is carried out on a tree.
fn onto_tree(
    blob: impl Read + Send,
    dir: &Path,
    exists: bool,
    options: &Unpack<'_>,
) -> Result<Unpacked> {
    if !exists {
        fs::create_dir(dir).map_err(|err| Error::io(format!("mkdir '{}'", dir.display()), err))?;
    }
    let done = staged_onto_tree(blob, dir, options);
    if done.is_err()
        && !exists
        && let Err(err) = fs::remove_dir(dir)
    {
        log::warn!("'{}' stays: {err}", dir.display());
    }
    done
}

fn staged_onto_tree(blob: impl Read + Send, dir: &Path, options: &Unpack<'_>) -> Result<Unpacked> {
    let (staged, spared) = match Staged::beside(dir) {
        Ok(staged) => (staged, None),
        Err(_) => {
            let staged = Staged::within(dir)?;
            let name = staged.path.file_name().map(std::ffi::OsStr::to_owned);
            (staged, name)
        }
    };
    let options = Unpack {
        whiteouts: super::Whiteouts::Wh,
        ..*options
    };
    let unpacked = unpack(blob, &staged.path, &options)?;
    let layer = beneath::Tree::open(&staged.path)?;
    let root = layer.root().try_clone();
    let root = root.map_err(|err| Error::io("dup", err))?;
    let layer = LowerDir::root(1, root, &FdCache::new(DESCRIPTORS));
    let implied: HashSet<Vec<u8>> = unpacked.implied.iter().cloned().collect();
    let merger = merge::Merger {
        implied: &implied,
        spared: spared.as_ref().map(|name| name.as_encoded_bytes()),
    };
    let tree = beneath::Tree::open(dir)?;
    merger.merge(&layer, tree.root(), unpacked.has_root)?;
    Ok(unpacked)
}

/// A directory of our own that goes away again.
struct Staged {
    path: PathBuf,
}

impl Staged {
    /// Beside another one, on the same disk.
    fn beside(dir: &Path) -> Result<Self> {
        let above = match dir.parent() {
            Some(above) if above.as_os_str().is_empty() => Path::new("."),
            Some(above) => above,
            None => return Err(Error::refused("there is nothing beside the root")),
        };
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        if device(dir).is_some_and(|disk| Some(disk) != device(above)) {
            return Err(Error::refused("it is a mount point"));
        }
        Self::make(above, dir)
    }

    /// In another one.
    fn within(dir: &Path) -> Result<Self> {
        Self::make(dir, dir)
    }

    fn make(above: &Path, dir: &Path) -> Result<Self> {
        let mut name = OsString::from(".");
        name.push(dir.file_name().unwrap_or_default());
        // A name of 255 bytes has no room for more.
        if name.len() > 200 {
            name = OsString::from(".layer");
        }
        name.push(format!(".unionmount-{}", std::process::id()));
        let path = above.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self { path }),
            Err(err) => Err(Error::io(format!("mkdir '{}'", path.display()), err)),
        }
    }

    /// It was renamed.
    fn became_something_else(self) {
        std::mem::forget(self);
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let removed = beneath::Tree::open(&self.path)
            .and_then(|tree| empty::clear(tree.root()))
            .map_err(|err| err.to_string())
            .and_then(|()| fs::remove_dir(&self.path).map_err(|err| err.to_string()));
        if let Err(err) = removed {
            log::warn!("'{}' stays: {err}", self.path.display());
        }
    }
}
