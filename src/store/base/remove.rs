//! Removing a tree: whatever its modes, however deep it is, and never through a mount or a
//! symlink.
//!
//! A crash leaves the rest of the tree; the store only removes trees that were moved into `tmp/`
//! before.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, chmodat, openat, openat2, unlinkat,
};
use rustix::io::Errno;

use super::error::{Context, Result};
use crate::layer::descent::Way;

/// Removes a file or a directory with everything in it. Something that is not there is removed
/// already.
///
/// # Errors
/// What unlink(2) and its like answer; EXDEV when something is mounted inside.
pub(in crate::store) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL).context("remove", path);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.context("open", parent)?,
    };
    let name = CString::new(name.as_encoded_bytes())
        .map_err(std::io::Error::from)
        .context("remove", path)?;
    remove(parent.as_fd(), &name).context("remove", path)
}

/// A directory that is being emptied.
struct Emptying {
    /// Its name in the one above.
    name: CString,
    /// What is still in it. Names first: what readdir returns while entries are removed is not
    /// defined.
    left: std::vec::IntoIter<(CString, FileType)>,
    made_writable: bool,
}

impl Emptying {
    fn begin(name: &CStr, dir: &OwnedFd) -> rustix::io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            left: entries(dir)?.into_iter(),
            made_writable: false,
        })
    }
}

fn remove(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let Some(dir) = unlink_or_open(parent, name)? else {
        return Ok(());
    };
    let emptying = Emptying::begin(name, &dir)?;
    let mut way = Way::begin(dir, emptying);
    while let Some((dir, emptying)) = way.last() {
        if let Some((name, _)) = emptying.left.next() {
            let step = || unlink_or_open(dir.as_fd(), &name);
            if let Some(inner) = permitted(&dir, &mut emptying.made_writable, step)? {
                let emptying = Emptying::begin(&name, &inner)?;
                way.push(inner, emptying)?;
            }
            continue;
        }
        let Some((_, done)) = way.pop()? else { break };
        if let Some((above, emptying)) = way.last() {
            let step = || unlinkat(&above, &*done.name, AtFlags::REMOVEDIR);
            permitted(&above, &mut emptying.made_writable, step)?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Does something in a directory, which its owner may have to permit first.
fn permitted<T>(
    dir: &OwnedFd,
    made_writable: &mut bool,
    step: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match step() {
        Err(Errno::ACCESS) if !*made_writable => {
            *made_writable = true;
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            step()
        }
        other => other,
    }
}

/// Removes what is no directory; opens what is one.
fn unlink_or_open(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        // EPERM is the answer of POSIX, EISDIR that of Linux.
        Err(Errno::ISDIR | Errno::PERM) => open_dir(dir, name).map(Some),
        Err(errno) => Err(errno),
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
pub(in crate::store) fn entries(dir: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
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
        fs::create_dir(&tree).unwrap();
        let mut at: OwnedFd = fs::File::open(&tree).unwrap().into();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&at, "e", Mode::empty()).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
