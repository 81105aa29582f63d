//! Opening a directory in another one without going from one mount into another.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::archive::error::{Context as _, Error, Result};
use crate::layer::remove::open_on_same_mount;

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
    let c_name = CString::new(name).map_err(std::io::Error::from);
    match open_on_same_mount(dir, &c_name.context("open", name)?) {
        Err(Errno::XDEV) => Err(is_mount_point(name)),
        other => other.context("open", name),
    }
}

/// The error for a directory on which something is mounted.
pub(super) fn is_mount_point(name: &[u8]) -> Error {
    Error::refused(format!(
        "'{}' is a mount point",
        String::from_utf8_lossy(name)
    ))
    .with_hint("unmount it first")
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

    /// Also for a bind mount of the same disk.
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
        let err = open_inner(&top, b"bound").unwrap_err();
        assert!(
            err.to_string().contains("'bound' is a mount point"),
            "{err}"
        );
        assert!(super::super::clear(&top).is_err());
        assert!(dir.path().join("home/x").exists());
    }
}
