//! Mount points below a directory: what is mounted there is not part of it, and is never changed through it.
//!
//! They are looked for before anything is changed. What is mounted later, or cannot be seen (no `/proc`), is met when a
//! directory is opened, which never leads from one mount into another.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

use super::beneath::DIRECTORY;
use super::error::{AtEntry as _, During as _, Error, Result};
use super::listing::Listing;
use crate::layer::LowerDir;
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

/// Refuses a layer that would change, remove or replace one of the mount points of a tree, or what one is in.
///
/// # Errors
/// The mount point, or the entry that would remove it, is named.
pub(super) fn refuse_changes(layer: &LowerDir, mounts: &[Vec<u8>]) -> Result<()> {
    for mount in mounts {
        if let Some(entry) = touched(layer, mount)? {
            let shown = String::from_utf8_lossy(mount);
            return Err(Error::refused(format!(
                "it would change the mount point '{shown}'; unmount that first"
            ))
            .at(&entry));
        }
    }
    Ok(())
}

/// The path by which a layer changes a mount point of a tree.
fn touched(layer: &LowerDir, mount: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut dir = layer.clone();
    let mut path = Vec::new();
    for name in mount.split(|byte| *byte == b'/').map(Name::from) {
        let listing = Listing::read(&dir, false).at_entry(&path)?;
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
        if dir.stat_on_disk(&name).during("stat", &path)?.kind() != Kind::Dir {
            return Ok(Some(path));
        }
        dir = dir.child(&name);
    }
    Ok(Some(path))
}

/// Opens a directory in another one, on the same mount.
///
/// # Errors
/// A mount point is refused; what the disk answers.
pub(super) fn open_inner(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(dir, name, DIRECTORY, Mode::empty(), resolve) {
        // Older kernels, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_and_compare(dir, name),
        other => other,
    };
    match opened {
        Err(Errno::XDEV) => Err(Error::refused(format!(
            "'{}' is a mount point; unmount it first",
            String::from_utf8_lossy(name)
        ))),
        other => other.during("open", name),
    }
}

/// The same without openat2(2): a bind mount of the same disk is told by its mount id, where the kernel tells those (5.8).
fn open_and_compare(dir: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let inner = openat(dir, name, DIRECTORY, Mode::empty())?;
    match mount_of(dir)? == mount_of(&inner)? {
        true => Ok(inner),
        false => Err(Errno::XDEV),
    }
}

/// Device, and mount where that is known.
fn mount_of(fd: &OwnedFd) -> rustix::io::Result<((u32, u32), Option<u64>)> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    match statx(fd, "", AtFlags::EMPTY_PATH, mask) {
        Ok(stat) => {
            let mount = (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id);
            Ok(((stat.stx_dev_major, stat.stx_dev_minor), mount))
        }
        Err(Errno::NOSYS | Errno::PERM) => {
            let dev = rustix::fs::fstat(fd)?.st_dev;
            Ok(((rustix::fs::major(dev), rustix::fs::minor(dev)), None))
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::mount::{UnmountFlags, mount_bind, unmount};

    struct Bound(std::path::PathBuf);

    impl Drop for Bound {
        fn drop(&mut self) {
            let _gone = unmount(&self.0, UnmountFlags::DETACH);
        }
    }

    /// Both ways, and for a bind mount of the same disk.
    #[test]
    fn no_way_leads_into_another_mount() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(inside.join("plain")).unwrap();
        std::fs::create_dir_all(inside.join("bound")).unwrap();
        std::fs::create_dir_all(dir.path().join("home/x")).unwrap();
        if mount_bind(dir.path().join("home"), inside.join("bound")).is_err() {
            eprintln!("skipped: nothing can be mounted here");
            return;
        }
        let _bound = Bound(inside.join("bound"));
        let top: OwnedFd = std::fs::File::open(&inside).unwrap().into();
        open_inner(&top, b"plain").unwrap();
        open_and_compare(&top, b"plain").unwrap();
        let err = open_inner(&top, b"bound").unwrap_err();
        assert!(
            err.to_string().contains("'bound' is a mount point"),
            "{err}"
        );
        assert_eq!(open_and_compare(&top, b"bound").unwrap_err(), Errno::XDEV);
        assert!(super::super::empty::clear(&top).is_err());
        assert!(dir.path().join("home/x").exists());
        assert_eq!(below(&inside.canonicalize().unwrap()), [b"bound".to_vec()]);
    }
}
