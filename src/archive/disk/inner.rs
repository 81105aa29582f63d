//! Opening a directory in another one without going from one mount into another.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;

use crate::archive::error::{Context as _, Error, Result};

/// How a directory is opened whose name may have become that of a symlink.
pub(in crate::archive) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory in another one, on the same mount.
///
/// # Errors
/// A mount point is refused; what the disk answers.
pub(in crate::archive) fn open_inner(dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(dir, name, DIRECTORY, Mode::empty(), resolve) {
        // Older kernels, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_and_compare(dir, name),
        other => other,
    };
    match opened {
        Err(Errno::XDEV) => Err(Error::refused(format!(
            "'{}' is a mount point",
            String::from_utf8_lossy(name)
        ))
        .with_hint("unmount it first")),
        other => other.context("open", name),
    }
}

/// The same without openat2(2): a bind mount of the same disk is recognized by its mount id, where the kernel has those (5.8).
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
        assert!(super::super::clear(&top).is_err());
        assert!(dir.path().join("home/x").exists());
    }
}
