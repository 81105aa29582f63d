//! Mount points below a directory: what is mounted there is not part of it, and is never changed
//! through it.
//!
//! They are looked for before anything is changed. What is mounted later, or cannot be seen (no
//! `/proc`), is met when a directory is opened, which never leads from one mount into another.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::archive::error::{AtEntry as _, Context as _, Error, Result};
use crate::archive::listing::LayerListing;
use crate::layer::ReadOnlyDir;
use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::sys::mountinfo;

/// The mount points below a directory that is named by its real path, as paths from it.
pub(super) fn below(dir: &Path) -> Vec<Vec<u8>> {
    let mounts = mountinfo::read().unwrap_or_else(|err| {
        log::debug!("mounts below '{}' are not known: {err}", dir.display());
        Vec::new()
    });
    let inside = mounts
        .iter()
        .filter_map(|mount| mount.mountpoint.strip_prefix(dir).ok());
    inside
        .map(|path| path.as_os_str().as_bytes().to_vec())
        .filter(|path| !path.is_empty())
        .collect()
}

/// Refuses a layer that would change, remove or replace one of the mount points of a tree, or what
/// one is in.
///
/// # Errors
/// The mount point, or the entry that would remove it, is named.
pub(super) fn refuse_changes(layer: &ReadOnlyDir, mounts: &[Vec<u8>]) -> Result<()> {
    for mount in mounts {
        if let Some(entry) = touched(layer, mount)? {
            let shown = String::from_utf8_lossy(mount);
            return Err(
                Error::refused(format!("it would change the mount point '{shown}'"))
                    .with_hint("unmount that first")
                    .at(&entry),
            );
        }
    }
    Ok(())
}

/// The path by which a layer changes a mount point of a tree.
fn touched(layer: &ReadOnlyDir, mount: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut dir = layer.clone();
    let mut path = Vec::new();
    for name in mount.split(|byte| *byte == b'/').map(Name::from) {
        let listing = LayerListing::read(&dir, false).at_entry(&path)?;
        if listing.opaque {
            return Ok(Some(path));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        if listing.whiteouts.contains(&name) {
            return Ok(Some(path));
        }
        if !listing.entries.contains(&name) {
            return Ok(None);
        }
        if dir.stat_on_disk(&name).context("stat", &path)?.kind() != Kind::Dir {
            return Ok(Some(path));
        }
        dir = dir.child(&name);
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::mount::{UnmountFlags, mount_bind, unmount};

    #[test]
    fn mount_points_below_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(inside.join("bound")).unwrap();
        std::fs::create_dir_all(dir.path().join("home")).unwrap();
        if mount_bind(dir.path().join("home"), inside.join("bound")).is_err() {
            eprintln!("skipped: nothing can be mounted here");
            return;
        }
        let found = below(&inside.canonicalize().unwrap());
        unmount(inside.join("bound"), UnmountFlags::DETACH).unwrap();
        assert_eq!(found, [b"bound".to_vec()]);
    }
}
