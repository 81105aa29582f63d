//! Everything an archive names is found beneath one directory, never by a path from anywhere else.
//!
//! A parent directory is opened by openat2(2) with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS`, or, where the kernel lacks that, component by component with
//! `O_NOFOLLOW`; the last component of a name is only ever used with calls that do not follow
//! symlinks. So no link that the archive plants can lead outside, or anywhere.
//!
//! The directories used last stay open. While one is, its modification time is kept here, since
//! entries that are made in it change it; it is set when the directory is closed.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, ResolveFlags, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

use super::inside::LayerPath;
use crate::archive::disk::{DIRECTORY, remove};
use crate::archive::error::{Context as _, Error, Result};
use crate::layer::marks::NAME_MAX;
use crate::layer::marks::read::may_be_whiteout_at;
use crate::layer::object::{SetTime, timestamps};
use crate::layer::stat::{Kind, Stat, Time};

/// Directories that stay open: an archive lists a directory after another, so a few are enough.
const OPEN: usize = 24;
/// How missing parents are made, for the caller, root where it is an engine's layer: image-spec
/// does not say, containerd and docker make them 0755.
const PARENT_MODE: u32 = 0o755;

/// The kernel takes no path of so many bytes at once (limits.h).
const PATH_MAX: usize = 4096;
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// An open directory of the tree.
struct Open {
    path: LayerPath,
    fd: Arc<OwnedFd>,
    /// What its modification time is to be once it is closed.
    mtime: Time,
}

/// Finishes directories that no entry describes.
pub(super) trait ImpliedDirs {
    /// `dir` was just made, at a path. `hides` says that a whiteout was at its name: it hides what
    /// lies below it.
    fn made(&mut self, dir: &Arc<OwnedFd>, path: &[u8], hides: bool) -> Result<()>;
}

/// The directory that an archive goes into.
pub(super) struct Tree {
    root: Arc<OwnedFd>,
    /// The most recently used one last.
    open: Vec<Open>,
    has_openat2: bool,
    /// The mode that directories get which no entry describes.
    parent_mode: u32,
}

impl Tree {
    /// Opens the directory.
    ///
    /// # Errors
    /// Those of open(2); a path whose last component is a symlink is refused.
    pub(super) fn open(path: &Path) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .context("open", path.as_os_str().as_bytes())?;
        Ok(Self {
            root: Arc::new(root),
            open: Vec::with_capacity(OPEN),
            has_openat2: true,
            parent_mode: PARENT_MODE,
        })
    }

    /// Directories that no entry describes get this mode on the disk.
    pub(super) fn set_parent_mode(&mut self, mode: u32) {
        self.parent_mode = mode;
    }

    /// As if the kernel had no openat2(2).
    #[cfg(test)]
    fn without_openat2(mut self) -> Self {
        self.has_openat2 = false;
        self
    }

    /// The root's descriptor.
    pub(super) fn root(&self) -> &Arc<OwnedFd> {
        &self.root
    }

    /// A directory that something is about to be made or removed in. Missing ones are made, and
    /// passed to `parents` before anything is put into them.
    ///
    /// # Errors
    /// A symlink or something else that is no directory on the way.
    pub(super) fn directory(
        &mut self,
        path: &LayerPath,
        parents: &mut dyn ImpliedDirs,
    ) -> Result<Arc<OwnedFd>> {
        let mut missing = Vec::new();
        let mut at = path.clone();
        let mut fd = loop {
            if let Some(fd) = self.find(&at) {
                break fd;
            }
            match (self.resolve(&at), at.split()) {
                (Ok(fd), _) => break self.remember(&at, Arc::new(fd))?,
                (Err(Errno::NOENT | Errno::NOTDIR), Some((parent, _))) => {
                    missing.push(std::mem::replace(&mut at, parent));
                }
                (Err(errno), _) => return Err(on_the_way(&at, errno)),
            }
        };
        while let Some(next) = missing.pop() {
            if let Some((_, name)) = next.split() {
                let made = self.make_parent(&fd, &next, name, parents)?;
                fd = self.remember(&next, made)?;
            }
        }
        Ok(fd)
    }

    /// A directory that exists; nothing is made.
    ///
    /// # Errors
    /// As [`Tree::directory`], and ENOENT.
    pub(super) fn existing(&mut self, path: &LayerPath) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.find(path) {
            return Ok(fd);
        }
        let fd = self
            .resolve(path)
            .map_err(|errno| on_the_way(path, errno))?;
        self.remember(path, Arc::new(fd))
    }

    /// The same where the directory that it is in is open: no path is gone down for it.
    ///
    /// # Errors
    /// As [`Tree::existing`].
    pub(super) fn existing_in(
        &mut self,
        parent: &OwnedFd,
        path: &LayerPath,
        name: &[u8],
    ) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.find(path) {
            return Ok(fd);
        }
        let fd = openat(parent, name, DIRECTORY, Mode::empty())
            .map_err(|errno| on_the_way(path, errno))?;
        self.remember(path, Arc::new(fd))
    }

    fn make_parent(
        &self,
        above: &OwnedFd,
        path: &LayerPath,
        name: &[u8],
        parents: &mut dyn ImpliedDirs,
    ) -> Result<Arc<OwnedFd>> {
        let mode = Mode::from_raw_mode(self.parent_mode);
        let mut hides = false;
        match mkdirat(above, name, mode) {
            Err(Errno::EXIST) if is_mark(above, name)? => {
                hides = true;
                unlinkat(above, name, AtFlags::empty()).context("unlink", name)?;
                mkdirat(above, name, mode).context("mkdir", name)?;
            }
            Err(Errno::EXIST) => return Err(on_the_way(path, Errno::NOTDIR)),
            other => other.context("mkdir", name)?,
        }
        let fd = Arc::new(openat(above, name, DIRECTORY, Mode::empty()).context("open", name)?);
        // The umask had its say.
        rustix::fs::fchmod(&fd, mode).context("chmod", name)?;
        parents.made(&fd, path.bytes(), hides)?;
        Ok(fd)
    }

    fn find(&mut self, path: &LayerPath) -> Option<Arc<OwnedFd>> {
        let at = self.open.iter().rposition(|open| open.path == *path)?;
        let open = self.open.remove(at);
        let fd = Arc::clone(&open.fd);
        self.open.push(open);
        Some(fd)
    }

    fn resolve(&mut self, path: &LayerPath) -> rustix::io::Result<OwnedFd> {
        if path.is_root() {
            return self.root.try_clone().map_err(|_| Errno::MFILE);
        }
        if self.has_openat2 && path.bytes().len() < PATH_MAX {
            match openat2(&self.root, path.bytes(), DIRECTORY, Mode::empty(), RESOLVE) {
                // Older kernels, and sandboxes that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2 = false,
                // Renames are under way elsewhere on this disk: the kernel cannot tell, and asks to
                // try again.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        self.walk(path)
    }

    fn walk(&self, path: &LayerPath) -> rustix::io::Result<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        for name in path.components() {
            let dir = at.as_ref().unwrap_or(&self.root);
            at = Some(match openat(dir, name, DIRECTORY, Mode::empty()) {
                // O_DIRECTORY and O_NOFOLLOW together say this of symlinks too.
                Err(Errno::NOTDIR) if is_symlink(dir, name) => return Err(Errno::LOOP),
                other => other?,
            });
        }
        at.ok_or(Errno::NOENT)
    }

    /// Keeps a directory open that was just made or opened.
    pub(super) fn remember(&mut self, path: &LayerPath, fd: Arc<OwnedFd>) -> Result<Arc<OwnedFd>> {
        if self.open.len() >= OPEN {
            close(&self.open.remove(0))?;
        }
        let mtime = Stat::of_fd(&fd).context("stat", path.bytes())?.mtime;
        self.open.push(Open {
            path: path.clone(),
            fd: Arc::clone(&fd),
            mtime,
        });
        Ok(fd)
    }

    /// What the modification time of a directory is to be, which [`Tree::existing`] or
    /// [`Tree::directory`] gave.
    pub(super) fn set_mtime(&mut self, path: &LayerPath, mtime: Time) {
        if let Some(open) = self.open.iter_mut().find(|open| open.path == *path) {
            open.mtime = mtime;
        }
    }

    /// Removes an entry, and all that is below it; `false` when there was none.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn remove(
        &mut self,
        dir: &Arc<OwnedFd>,
        parent: &LayerPath,
        name: &[u8],
    ) -> Result<bool> {
        let gone = parent.child(name);
        self.open.retain(|open| !open.path.is_at_or_below(&gone));
        remove(dir, name)
    }

    /// Sets the times of all directories that are open.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn finish(&mut self) -> Result<()> {
        for open in self.open.drain(..) {
            close(&open)?;
        }
        Ok(())
    }
}

fn close(open: &Open) -> Result<()> {
    let times = timestamps(SetTime::Keep, SetTime::At(open.mtime));
    rustix::fs::futimens(&open.fd, &times).context("utimensat", open.path.bytes())
}

fn is_symlink(dir: &OwnedFd, name: &[u8]) -> bool {
    Stat::of_entry(dir, name).is_ok_and(|stat| stat.kind() == Kind::Symlink)
}

fn on_the_way(path: &LayerPath, errno: Errno) -> Error {
    let shown = String::from_utf8_lossy(path.bytes());
    match errno {
        Errno::LOOP => Error::refused(format!("it goes through a symbolic link in '{shown}'")),
        Errno::XDEV => Error::refused(format!("'{shown}' leads outside")),
        Errno::NOTDIR => Error::refused(format!("'{shown}' is no directory")),
        Errno::NAMETOOLONG => Error::refused(format!(
            "its name has a component of more than {NAME_MAX} bytes"
        )),
        errno => Error::io(format!("open({shown})"), errno),
    }
}

/// Whether what is there only says that layers below have nothing of this name.
pub(in crate::archive) fn is_mark(dir: &OwnedFd, name: &[u8]) -> Result<bool> {
    may_be_whiteout_at(dir, name).context("stat", name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    struct Counting(usize);

    impl ImpliedDirs for Counting {
        fn made(&mut self, _dir: &Arc<OwnedFd>, _path: &[u8], _hides: bool) -> Result<()> {
            self.0 += 1;
            Ok(())
        }
    }

    fn inside(name: &str) -> LayerPath {
        LayerPath::new(name.as_bytes(), false).unwrap()
    }

    /// Both ways to open a directory lead to the same, and neither goes through a link.
    #[test]
    fn no_way_leads_through_a_link() {
        for has_openat2 in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            std::fs::create_dir_all(root.join("d/e")).unwrap();
            symlink("/", root.join("abs")).unwrap();
            symlink("d", root.join("rel")).unwrap();
            symlink("..", root.join("d/up")).unwrap();
            std::fs::write(root.join("file"), "").unwrap();
            let mut tree = Tree::open(&root).unwrap();
            if !has_openat2 {
                tree = tree.without_openat2();
            }
            let mut made = Counting(0);
            for name in ["d", "d/e", "d/new/newer", "other", ""] {
                let path = LayerPath::known(name.as_bytes());
                tree.directory(&path, &mut made).unwrap();
                assert!(root.join(name).is_dir());
            }
            assert_eq!(made.0, 3);
            for name in [
                "abs", "abs/tmp", "rel", "rel/e", "d/up", "d/up/x", "rel/new", "file", "file/x",
            ] {
                let err = tree.directory(&inside(name), &mut made).unwrap_err();
                assert_eq!(
                    err.kind(),
                    crate::archive::ErrorKind::Refused,
                    "{name}: {err}"
                );
                assert!(tree.existing(&inside(name)).is_err());
            }
            assert_eq!(made.0, 3);
            symlink("root", dir.path().join("link")).unwrap();
            assert!(Tree::open(&dir.path().join("link")).is_err());
        }
    }

    #[test]
    fn times_of_directories_come_last() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(dir.path()).unwrap();
        let mut made = Counting(0);
        for number in 0..3 * OPEN {
            let path = inside(&format!("d{number}"));
            tree.directory(&path, &mut made).unwrap();
            tree.set_mtime(&path, Time { secs: -5, nanos: 7 });
        }
        for number in 0..3 * OPEN {
            tree.directory(&inside(&format!("d{number}")), &mut made)
                .unwrap();
            std::fs::write(dir.path().join(format!("d{number}/f")), "").unwrap();
        }
        tree.finish().unwrap();
        for number in 0..3 * OPEN {
            let meta = dir.path().join(format!("d{number}")).metadata().unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 7));
        }
    }
}
