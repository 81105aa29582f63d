//! Removes trees: regardless of their modes, however deep they are, and never through a symlink or
//! into another mount.
//!
//! One level at a time, on a stack of its own and with few descriptors ([`Descent`]). A crash
//! leaves the rest of the tree; those who call remove only what nothing refers to any more.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, StatxFlags, chmodat, fchmod, openat, openat2, statx,
    unlinkat,
};
use rustix::io::{Errno, Result};

use super::descent::Descent;

/// How a directory is opened whose name may have become that of a symlink.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What could not be removed, and why. Everything that was removed before stays so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotRemoved {
    /// The system call that failed.
    pub(crate) call: &'static str,
    /// What it was about, as a path from the directory that was given.
    pub(crate) path: Vec<u8>,
    /// Its answer: EXDEV for a mount point, EPERM for what is immutable or append-only (chattr(1)),
    /// ESTALE when the tree was moved meanwhile.
    pub(crate) errno: Errno,
}

impl fmt::Display for NotRemoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, path, errno } = self;
        write!(f, "{call} \"{}\": {errno}", path.escape_ascii())
    }
}

/// Removes what has a name in a directory, with everything in it. Returns false when there was
/// nothing.
pub(crate) fn remove(dir: impl AsFd, name: &[u8]) -> std::result::Result<bool, NotRemoved> {
    let not_removed = |call, errno| NotRemoved {
        call,
        path: name.to_vec(),
        errno,
    };
    let c_name = CString::new(name).map_err(|_| not_removed("unlink", Errno::INVAL))?;
    match unlinkat(&dir, c_name.as_c_str(), AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) if !may_be_directory(errno) => return Err(not_removed("unlink", errno)),
        Err(errno) => {
            let top = open_to_empty(dir.as_fd(), &c_name, errno);
            let top = top.map_err(|errno| not_removed("open", errno))?;
            let emptied = Removal::begin(top, c_name.clone()).and_then(Removal::run);
            emptied.map_err(|failure| failure.beneath(name))?;
        }
    }
    match unlinkat(&dir, c_name.as_c_str(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(errno) => Err(not_removed("rmdir", errno)),
    }
}

/// Removes everything in a directory, which itself stays.
pub(crate) fn clear(dir: impl AsFd) -> std::result::Result<(), NotRemoved> {
    let top = openat(dir, c".", DIRECTORY, Mode::empty()).map_err(|errno| NotRemoved {
        call: "open",
        path: b".".to_vec(),
        errno,
    })?;
    Removal::begin(top, c".".to_owned()).and_then(Removal::run)
}

/// Opens a directory in another one, on the same mount, for reading. Errors: EXDEV for a mount
/// point, those of openat2(2).
pub(crate) fn open_on_same_mount(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&dir, name, DIRECTORY, Mode::empty(), resolve) {
        // Older kernels, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_and_compare(dir, name),
        other => other,
    }
}

/// The same without openat2(2): a bind mount of the same disk is recognized by its mount id, where
/// the kernel has those (5.8).
fn open_and_compare(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let inner = openat(&dir, name, DIRECTORY, Mode::empty())?;
    match mount_of(&dir)? == mount_of(&inner)? {
        true => Ok(inner),
        false => Err(Errno::XDEV),
    }
}

/// Device, and mount where that is known.
fn mount_of(fd: impl AsFd) -> Result<((u32, u32), Option<u64>)> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    match statx(&fd, c"", AtFlags::EMPTY_PATH, mask) {
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

/// Whether unlink(2) answers so for a directory: EISDIR on Linux, EPERM by POSIX.
fn may_be_directory(errno: Errno) -> bool {
    matches!(errno, Errno::ISDIR | Errno::PERM)
}

/// Opens what unlink(2) did not remove, with `refused`, if it is a directory; one that its owner
/// may not read is made readable. Errors: `refused` for anything else.
fn open_to_empty(dir: BorrowedFd<'_>, name: &CStr, refused: Errno) -> Result<OwnedFd> {
    match open_on_same_mount(dir, name) {
        Err(Errno::ACCESS) => {
            chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            open_on_same_mount(dir, name)
        }
        Err(Errno::NOTDIR | Errno::LOOP) => Err(refused),
        other => other,
    }
}

/// A directory that is being emptied.
struct Level {
    /// Its name in the one above.
    name: CString,
    /// What is still in it. All names are read first: what getdents(2) returns while entries are
    /// removed is not defined.
    rest: Vec<CString>,
    made_writable: bool,
}

impl Level {
    fn read(name: CString, dir: &OwnedFd) -> Result<Self> {
        let mut rest = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                rest.push(name.to_owned());
            }
        }
        Ok(Self {
            name,
            rest,
            made_writable: false,
        })
    }

    /// Does something in the directory, which may have to be made writable first.
    fn permitted<T>(&mut self, dir: &OwnedFd, step: impl Fn() -> Result<T>) -> Result<T> {
        match step() {
            Err(Errno::ACCESS) if !self.made_writable => {
                self.made_writable = true;
                fchmod(dir, Mode::RWXU)?;
                step()
            }
            other => other,
        }
    }
}

/// The directories from the one that is emptied down to the one that is worked on.
struct Removal {
    levels: Descent<Level>,
    /// Their names below the first one, each ended by a slash.
    path: Vec<u8>,
}

impl Removal {
    fn begin(top: OwnedFd, name: CString) -> std::result::Result<Self, NotRemoved> {
        let level = Level::read(name, &top).map_err(|errno| NotRemoved {
            call: "getdents",
            path: b".".to_vec(),
            errno,
        })?;
        Ok(Self {
            levels: Descent::begin(top, level),
            path: Vec::new(),
        })
    }

    fn run(mut self) -> std::result::Result<(), NotRemoved> {
        while let Some((dir, level)) = self.levels.last() {
            match level.rest.pop() {
                Some(name) => {
                    let entered = enter_or_unlink(&dir, level, &name);
                    let entered = entered.map_err(|(call, errno)| self.at(call, &name, errno))?;
                    if let Some(inner) = entered {
                        self.enter(inner, name)?;
                    }
                }
                None => self.leave()?,
            }
        }
        Ok(())
    }

    fn enter(&mut self, dir: OwnedFd, name: CString) -> std::result::Result<(), NotRemoved> {
        let level = Level::read(name.clone(), &dir);
        let level = level.map_err(|errno| self.at("getdents", &name, errno))?;
        let pushed = self.levels.push(dir, level);
        pushed.map_err(|errno| self.at("stat", &name, errno))?;
        self.path.extend_from_slice(name.to_bytes());
        self.path.push(b'/');
        Ok(())
    }

    /// Removes the directory that was emptied, unless it is the first one.
    fn leave(&mut self) -> std::result::Result<(), NotRemoved> {
        let popped = self.levels.pop();
        let popped = popped.map_err(|errno| self.at("open", c"..", errno))?;
        let Some((_, done)) = popped else {
            return Ok(());
        };
        let length = done.name.to_bytes().len() + 1;
        self.path.truncate(self.path.len().saturating_sub(length));
        if let Some((above, level)) = self.levels.last() {
            let step = || unlinkat(&above, done.name.as_c_str(), AtFlags::REMOVEDIR);
            let removed = level.permitted(&above, step);
            removed.map_err(|errno| self.at("rmdir", &done.name, errno))?;
        }
        Ok(())
    }

    fn at(&self, call: &'static str, name: &CStr, errno: Errno) -> NotRemoved {
        NotRemoved {
            call,
            path: [&self.path[..], name.to_bytes()].concat(),
            errno,
        }
    }
}

/// Removes an entry that is no directory; opens one that is.
fn enter_or_unlink(
    dir: &OwnedFd,
    level: &mut Level,
    name: &CStr,
) -> std::result::Result<Option<OwnedFd>, (&'static str, Errno)> {
    let unlink = || unlinkat(dir, name, AtFlags::empty());
    match level.permitted(dir, unlink) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(errno) if may_be_directory(errno) => open_to_empty(dir.as_fd(), name, errno)
            .map(Some)
            .map_err(|errno| ("open", errno)),
        Err(errno) => Err(("unlink", errno)),
    }
}

impl NotRemoved {
    /// The same, said from the directory above the one called `name`.
    fn beneath(mut self, name: &[u8]) -> Self {
        self.path = if self.path == b"." {
            name.to_vec()
        } else {
            [name, b"/", &self.path].concat()
        };
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::mkdirat;
    use rustix::mount::{UnmountFlags, mount_bind, unmount};

    use super::*;

    fn opened(path: &std::path::Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    #[test]
    fn everything_is_removed_and_nothing_else() {
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
        let top = opened(dir.path());
        assert_eq!(remove(&top, b"tree"), Ok(true));
        assert!(!tree.exists() && outside.join("kept").exists());
        assert_eq!(remove(&top, b"tree"), Ok(false));
        clear(opened(&outside)).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let top = opened(dir.path());
        mkdirat(&top, "tree", Mode::RWXU).unwrap();
        let mut at = opened(&dir.path().join("tree"));
        for _ in 0..3000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            mkdirat(&at, "e", Mode::empty()).unwrap();
            at = openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(at);
        assert_eq!(remove(&top, b"tree"), Ok(true));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    struct Bound(std::path::PathBuf);

    impl Drop for Bound {
        fn drop(&mut self) {
            let _gone = unmount(&self.0, UnmountFlags::DETACH);
        }
    }

    /// With openat2(2) and without, and for a bind mount of the same disk.
    #[test]
    fn a_mount_point_is_named_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("tree/inside");
        fs::create_dir_all(inside.join("plain")).unwrap();
        fs::create_dir_all(inside.join("bound")).unwrap();
        fs::create_dir_all(dir.path().join("home/x")).unwrap();
        if mount_bind(dir.path().join("home"), inside.join("bound")).is_err() {
            eprintln!("skipped: nothing can be mounted here");
            return;
        }
        let _bound = Bound(inside.join("bound"));
        let fd = opened(&inside);
        open_on_same_mount(&fd, c"plain").unwrap();
        open_and_compare(&fd, c"plain").unwrap();
        assert_eq!(open_on_same_mount(&fd, c"bound").unwrap_err(), Errno::XDEV);
        assert_eq!(open_and_compare(&fd, c"bound").unwrap_err(), Errno::XDEV);
        let failure = remove(opened(dir.path()), b"tree").unwrap_err();
        assert_eq!(failure.errno, Errno::XDEV);
        assert_eq!(failure.path, b"tree/inside/bound");
        assert_eq!(clear(&fd).unwrap_err().path, b"bound");
        assert!(dir.path().join("home/x").exists());
    }
}
