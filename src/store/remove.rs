//! Taking a tree away: whatever its modes, however deep it is, and never through a mount or a symlink.
//!
//! A crash leaves the rest of the tree; the store only removes trees that were moved into `tmp/` before.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmodat, openat, openat2, renameat,
    unlinkat,
};
use rustix::io::Errno;

use super::error::{Doing, Result};

/// Directories held open at a time: deeper ones are moved up first.
const DEPTH: usize = 64;

/// Removes a file or a directory with everything in it. Something that is not there is removed already.
///
/// # Errors
/// What unlink(2) and its like answer; EXDEV when something is mounted inside.
pub fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL).doing("remove", path);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.doing("open", parent)?,
    };
    let name = CString::new(name.as_encoded_bytes())
        .map_err(std::io::Error::from)
        .doing("remove", path)?;
    let mut way = Way {
        top: parent.as_fd(),
        moved: 0,
    };
    way.remove(parent.as_fd(), &name, DEPTH)
        .doing("remove", path)
}

struct Way<'a> {
    /// Where directories that lie too deep are moved to.
    top: BorrowedFd<'a>,
    moved: u32,
}

impl Way<'_> {
    fn remove(&mut self, dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> rustix::io::Result<()> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // EPERM is the answer of POSIX, EISDIR that of Linux.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        if depth == 0 {
            self.moved += 1;
            let shallow = format!(
                ".deep.{}.{}",
                rustix::process::getpid().as_raw_nonzero(),
                self.moved
            );
            renameat(dir, name, self.top, &shallow)?;
            let shallow = CString::new(shallow).map_err(|_| Errno::INVAL)?;
            return self.remove(self.top, &shallow, DEPTH);
        }
        let this = open_dir(dir, name)?;
        self.empty(&this, depth - 1)?;
        unlinkat(dir, name, AtFlags::REMOVEDIR)
    }

    fn empty(&mut self, this: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        let mut made_writable = false;
        // Names first: what readdir gives while entries go is not said.
        for (name, _) in entries(this)? {
            match self.remove(this.as_fd(), &name, depth) {
                Err(Errno::ACCESS) if !made_writable => {
                    made_writable = true;
                    rustix::fs::fchmod(this, Mode::RWXU)?;
                    self.remove(this.as_fd(), &name, depth)?;
                }
                other => other?,
            }
        }
        Ok(())
    }
}

/// Opens a directory for reading, which its owner may have to permit first; not across a mount.
fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let open = || {
        openat2(
            dir,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH,
        )
    };
    match open() {
        Err(Errno::ACCESS) => {
            chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            open()
        }
        other => other,
    }
}

/// The entries of a directory, without `.` and `..`.
///
/// # Errors
/// Those of getdents(2).
pub(super) fn entries(dir: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn everything_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("closed/in")).unwrap();
        fs::write(tree.join("closed/in/f"), "x").unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        for path in ["closed/in", "closed"] {
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        remove_tree(&tree).unwrap();
        remove_tree(&outside.join("kept")).unwrap();
        assert!(!outside.join("kept").exists());
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let mut deep = tree.clone();
        for _ in 0..300 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
