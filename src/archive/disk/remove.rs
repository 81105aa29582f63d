//! Removing trees beneath a directory: [`crate::layer::remove`] with errors of archives.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::inner::is_mount_point;
use crate::archive::error::{Error, Result};
use crate::layer::remove::{self as trees, NotRemoved};

/// Removes everything in a directory, which itself stays. What is mounted there stays.
///
/// # Errors
/// A mount point is refused; what the disk answers.
pub(in crate::archive) fn clear(dir: &OwnedFd) -> Result<()> {
    trees::clear(dir).map_err(failed)
}

/// Removes what has a name, with everything in it. Returns false when there was nothing.
///
/// # Errors
/// A mount point is refused; what the disk answers.
pub(in crate::archive) fn remove(dir: &OwnedFd, name: &[u8]) -> Result<bool> {
    trees::remove(dir, name).map_err(failed)
}

fn failed(failure: NotRemoved) -> Error {
    let NotRemoved { call, path, errno } = failure;
    match errno {
        Errno::XDEV => is_mount_point(&path),
        errno => Error::io(format!("{call}({})", String::from_utf8_lossy(&path)), errno),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::DIRECTORY;
    use super::*;
    use rustix::fs::{Mode, mkdirat, openat};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_deep_tree_is_removed_with_few_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let top: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut at = top.try_clone().unwrap();
        for _ in 0..1500 {
            mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            mkdirat(&at, "e", Mode::from_raw_mode(0o755)).unwrap();
            at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        symlink("/", dir.path().join("link")).unwrap();
        clear(&top).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
