//! Removing trees beneath a directory, without leaving its mount.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, RawDir, openat, unlinkat};
use rustix::io::Errno;

use super::inner::{DIRECTORY, open_inner};
use crate::archive::error::{Context as _, Error, Result};

/// A directory that is being emptied.
struct Emptying {
    /// `None` while it is far above the one that is being read.
    dir: Option<OwnedFd>,
    /// Its name in the one above.
    name: Vec<u8>,
    /// Directories in it that are still there.
    left: Vec<Vec<u8>>,
}

impl Emptying {
    /// Removes what is no directory.
    fn begin(dir: OwnedFd, name: Vec<u8>) -> Result<Self> {
        let mut left = Vec::new();
        let mut files = Vec::new();
        let mut buffer = Vec::with_capacity(16 * 1024);
        buffer.resize_with(16 * 1024, std::mem::MaybeUninit::uninit);
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.context("getdents", &name)?;
            match (entry.file_name().to_bytes(), entry.file_type()) {
                (b"." | b"..", _) => {}
                (found, FileType::Directory) => left.push(found.to_vec()),
                (found, _) => files.push(found.to_vec()),
            }
        }
        for file in files {
            match unlinkat(&dir, &file[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // The disk did not say that it is a directory.
                Err(Errno::ISDIR) => left.push(file),
                Err(errno) => return Err(errno).context("unlink", &file),
            }
        }
        Ok(Self {
            dir: Some(dir),
            name,
            left,
        })
    }
}

/// Removes everything in a directory, without ever following a symlink, and with few descriptors however deep it is.
/// What is mounted there stays.
///
/// # Errors
/// A mount point is refused; what the disk answers.
pub(in crate::archive) fn clear(dir: &OwnedFd) -> Result<()> {
    /// So many levels stay open.
    const LEVELS: usize = 64;
    let top = openat(dir, ".", DIRECTORY, Mode::empty()).context("open", b".")?;
    let mut stack = vec![Emptying::begin(top, b".".to_vec())?];
    while let Some(mut level) = stack.pop() {
        let Some(at) = &level.dir else {
            return Err(Error::io("open", Errno::BADF));
        };
        if let Some(name) = level.left.pop() {
            let inner = open_inner(at, &name)?;
            stack.push(level);
            stack.push(Emptying::begin(inner, name)?);
            if let Some(far) = stack.len().checked_sub(LEVELS) {
                stack[far].dir = None;
            }
        } else if let Some(above) = stack.last_mut() {
            let dir = match above.dir.take() {
                Some(dir) => dir,
                None => openat(at, "..", DIRECTORY, Mode::empty()).context("open", b"..")?,
            };
            unlinkat(&dir, &level.name[..], AtFlags::REMOVEDIR).context("rmdir", &level.name)?;
            above.dir = Some(dir);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::fs::mkdirat;
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
