//! A directory that may be changed: everything that changes entries on a disk goes through here.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags, linkat, mkdirat, mknodat, openat,
    renameat_with, symlinkat, unlinkat,
};
use rustix::io::{Errno, Result};

use super::dir::{Dir, DirLocation, Name, Source, os};
use super::fd_cache::FdCache;
use super::object::{WritableObject, chmod_fd};
use super::open::OPEN_DIR;
use super::read_only::ReadOnlyDir;
use super::stat::{Kind, ObjectId, Stat};
use super::stat_override::StatOverrides;
use super::xattr::proc_path;
use crate::sync::write;

/// A directory of the upper layer, of the work directory beside it, of a volume, or of a layer that
/// is not mounted. It may be read like any other.
#[derive(Clone, Debug)]
pub(crate) struct WritableDir(Arc<Dir>);

impl std::ops::Deref for WritableDir {
    type Target = Dir;
    fn deref(&self) -> &Dir {
        &self.0
    }
}

impl WritableDir {
    /// The root of the upper layer. Its xattrs say whether the layer has stat overrides.
    #[must_use]
    pub(crate) fn root(fd: OwnedFd, cache: &Arc<FdCache>) -> Self {
        let fd = Arc::new(fd);
        let records = StatOverrides::of_root(&fd);
        Self::root_with(fd, cache, records)
    }

    /// The root of the upper layer, or of the work directory beside it, with the stat overrides
    /// that are given.
    #[must_use]
    pub(crate) fn root_with(
        fd: Arc<OwnedFd>,
        cache: &Arc<FdCache>,
        records: Option<Arc<StatOverrides>>,
    ) -> Self {
        Self(Dir::root(Source::Upper, fd, cache, records))
    }

    /// The mode that a new object gets on the disk: the one that is wanted, unless stat overrides
    /// have that.
    #[must_use]
    pub(crate) fn disk_mode(&self, wanted: u32) -> u32 {
        self.records().map_or(wanted, |records| records.disk_mode())
    }

    /// A directory in this one. Nothing is opened or checked yet.
    #[must_use]
    pub(crate) fn child(&self, name: &Name) -> Self {
        Self(Dir::child(&self.0, name, None))
    }

    /// The same, where others may put another directory in its place: it must be this one.
    #[must_use]
    pub(crate) fn child_with_id(&self, name: &Name, being: ObjectId) -> Self {
        Self(Dir::child(&self.0, name, Some(being)))
    }

    /// The root of a volume, by its number. It has no stat overrides, regardless
    /// of its xattrs: others than the daemon may have set them.
    #[must_use]
    pub(crate) fn volume(number: u16, fd: Arc<OwnedFd>, cache: &Arc<FdCache>) -> Self {
        Self(Dir::root(Source::Volume(number), fd, cache, None))
    }

    /// The same directory, to be read alone.
    #[must_use]
    pub(crate) fn read_only(&self) -> ReadOnlyDir {
        ReadOnlyDir::of(Arc::clone(&self.0))
    }

    /// Whether both are one directory object.
    #[must_use]
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Creates an empty file and opens it for reading and writing. EEXIST when the name is taken.
    pub(crate) fn create_file(&self, name: &[u8], mode: u32) -> Result<OwnedFd> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.fd()?, os(name), flags, Mode::from_raw_mode(mode))
    }

    /// Creates an empty file that has no name, open for reading and writing;
    /// [`WritableDir::link_fd`] gives it one. EOPNOTSUPP where the disk has no `O_TMPFILE`
    /// (open(2); file systems that do not know the flag see an attempt to write a directory).
    pub(crate) fn create_unnamed(&self, mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match openat(self.fd()?, ".", flags, Mode::from_raw_mode(mode)) {
            Err(Errno::ISDIR) => Err(Errno::OPNOTSUPP),
            other => other,
        }
    }

    /// Opens a regular file with `flags` (`O_RDWR`, ..); never follows a symlink.
    pub(crate) fn open_file(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        openat(self.fd()?, os(name), flags, Mode::empty())
    }

    /// Creates a node of any type but directory and symlink.
    pub(crate) fn mknod(&self, name: &[u8], kind: Kind, mode: u32, rdev: u64) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        mknodat(self.fd()?, os(name), kind.file_type(), mode, rdev)
    }

    /// Creates a directory.
    pub(crate) fn mkdir(&self, name: &[u8], mode: u32) -> Result<()> {
        mkdirat(self.fd()?, os(name), Mode::from_raw_mode(mode))
    }

    /// Creates a symlink.
    pub(crate) fn symlink(&self, target: &[u8], name: &[u8]) -> Result<()> {
        symlinkat(os(target), self.fd()?, os(name))
    }

    /// Removes an entry that is not a directory.
    pub(crate) fn unlink(&self, name: &[u8]) -> Result<()> {
        unlinkat(self.fd()?, os(name), AtFlags::empty())
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, name: &[u8]) -> Result<()> {
        unlinkat(self.fd()?, os(name), AtFlags::REMOVEDIR)
    }

    /// Renames an entry into `to` (renameat2(2)).
    pub(crate) fn rename(
        &self,
        name: &[u8],
        to: &Self,
        new: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        renameat_with(self.fd()?, os(name), to.fd()?, os(new), flags)
    }

    /// Renames an entry into `to`, where the name must be free. EEXIST when it is not. Disks that
    /// know no flags of renameat2(2) (NFS, 9p, many a FUSE file system) answer EINVAL: there it is
    /// looked before whether it is free, which is as good while no other process changes the upper.
    pub(crate) fn rename_to_free(&self, name: &[u8], to: &Self, new: &[u8]) -> Result<()> {
        match self.rename(name, to, new, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => match to.stat_on_disk(new) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => self.rename(name, to, new, RenameFlags::empty()),
                Err(errno) => Err(errno),
            },
            other => other,
        }
    }

    /// Renames an entry to a name in `to`.
    pub(crate) fn link(&self, name: &[u8], to: &Self, new: &[u8]) -> Result<()> {
        linkat(self.fd()?, os(name), to.fd()?, os(new), AtFlags::empty())
    }

    /// Links an object that may have no name (see `O_TMPFILE`) as `new` here.
    pub(crate) fn link_fd(&self, fd: &OwnedFd, new: &[u8]) -> Result<()> {
        let path = proc_path(fd);
        linkat(CWD, os(&path), self.fd()?, os(new), AtFlags::SYMLINK_FOLLOW)
    }

    /// Runs an operation that changes the directory's entries although its mode may forbid that: a
    /// copy-up must not depend on it. Only a daemon without root's rights is stopped by the mode;
    /// it lends itself the right and takes it back. Killed between, the directory keeps `u+wx` more
    /// than it had.
    pub(crate) fn despite_mode<T>(&self, operation: impl Fn() -> Result<T>) -> Result<T> {
        match operation() {
            Err(Errno::ACCESS) => {
                let this = self.fd()?;
                let mode = Stat::of_fd(&this)?.perm();
                if chmod_fd(&this, mode | 0o300).is_err() {
                    return Err(Errno::ACCESS);
                }
                let result = operation();
                chmod_fd(&this, mode)?;
                result
            }
            other => other,
        }
    }

    /// Opens the directory for reading although its mode forbids that, and keeps it open as long as
    /// there is room. Only its owner may: it lends itself the right and takes it back. Killed
    /// between, the directory keeps `u+rx` more than it had. Errors: EPERM for another owner's, and
    /// those of openat(2).
    pub(crate) fn read_despite_mode(&self) -> Result<()> {
        let this = self.fd()?;
        let mode = Stat::of_fd(&this)?.perm();
        chmod_fd(&this, mode | 0o500)?;
        let opened = openat(&this, ".", OPEN_DIR, Mode::empty());
        chmod_fd(&this, mode)?;
        self.slot.clear();
        self.slot.put(Arc::new(opened?));
        Ok(())
    }

    /// Where the directory itself is changed rather than an entry of it.
    pub(crate) fn this(&self) -> Result<WritableObject> {
        Ok(self.wrap(self.fd()?))
    }

    /// An entry, to be changed through a descriptor.
    pub(crate) fn object(&self, name: &[u8]) -> Result<WritableObject> {
        Ok(self.wrap(Arc::new(self.pin_entry(name)?)))
    }

    /// The object behind `fd`, which must belong to this directory's layer (or to the work
    /// directory beside it).
    #[must_use]
    pub(crate) fn wrap(&self, fd: Arc<OwnedFd>) -> WritableObject {
        WritableObject::new(fd, self.records().cloned())
    }

    /// Sets an xattr of an entry.
    pub(crate) fn set_xattr(
        &self,
        name: &[u8],
        xattr: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.xattrs_of(name)?.set(xattr, value, flags)
    }

    /// Removes an xattr of an entry. ENODATA when there is none.
    pub(crate) fn remove_xattr(&self, name: &[u8], xattr: &[u8]) -> Result<()> {
        self.xattrs_of(name)?.remove(xattr)
    }

    /// Runs `rename`, which moves this directory on the disk to `name` in `parent`, and notes the
    /// new place when it succeeds. The directory is not opened by its place meanwhile.
    pub(crate) fn relocate(
        &self,
        parent: &Self,
        name: &Name,
        rename: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut place = write(&self.0.place);
        rename()?;
        *place = DirLocation::Child {
            parent: Arc::clone(&parent.0),
            name: Arc::clone(name),
        };
        Ok(())
    }

    /// Notes that the directory is not there any more, after it was removed.
    pub(crate) fn set_gone(&self) {
        *write(&self.0.place) = DirLocation::Gone;
        self.0.slot.clear();
    }
}
