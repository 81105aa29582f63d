//! A directory of a layer, found by its place (parent directory and name), never by a path.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Mode, OFlags, fcntl_getfl, openat, readlinkat};
use rustix::io::{Errno, Result};

use super::fd_cache::{FdCache, FdSlot};
use super::marks::own::{HAS_IMPLIED, IMPLIED, looks, own_xattrs};
use super::stat::{ObjectId, Stat};
use super::stat_override::StatOverrides;
use super::xattr::XattrPath;
use crate::sync::read;

/// What a directory is part of. Of the layers that are merged, the newer one is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The upper layer.
    Upper,
    /// A lower layer, by its number from 0, newest first.
    Lower(u16),
    /// A layer that is there for the bytes of files only (`overlayfs.rst`, "Data-only lower
    /// layers").
    DataOnly,
    /// A volume, by its number from 0: a directory of the host that is shown inside the tree.
    Volume(u16),
}

/// A name of a directory entry, as bytes without NUL or slash.
pub type Name = Arc<[u8]>;

/// Where a directory is. The lock is held while it is opened from there, and while it is moved, so
/// that an opened descriptor is always the right one.
///
/// Lock order: the place of a directory before that of its parent; then the lock of a descriptor's
/// slot, then that of the cache's ring.
#[derive(Debug)]
pub(super) enum DirLocation {
    Root(Arc<OwnedFd>),
    Child { parent: Arc<Dir>, name: Name },
    Gone,
}

/// A directory of some layer: what can be read there. It keeps no descriptor of its own; the cache
/// decides how long the one it was last used with stays open.
#[derive(Debug)]
pub(crate) struct Dir {
    source: Source,
    /// Lock order: before the place of the parent, then a descriptor slot (see [`DirLocation`]).
    pub(super) place: RwLock<DirLocation>,
    pub(super) slot: Arc<FdSlot>,
    cache: Arc<FdCache>,
    records: Option<Arc<StatOverrides>>,
    /// Its layer has directories that no entry describes.
    has_implied: bool,
    /// The inode that it must be, where others may put another directory in its place.
    pub(super) being: Option<ObjectId>,
    /// The device that it was on when it was last asked; [`UNKNOWN_DEVICE`] before.
    pub(super) device: AtomicU64,
}

/// No device has this number.
pub(super) const UNKNOWN_DEVICE: u64 = u64::MAX;

/// Turns a name into what system calls take.
pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// What the root of a layer says for all directories in it.
struct Kept {
    records: Option<Arc<StatOverrides>>,
    has_implied: bool,
}

impl Dir {
    pub(super) fn root(
        source: Source,
        fd: Arc<OwnedFd>,
        cache: &Arc<FdCache>,
        records: Option<Arc<StatOverrides>>,
    ) -> Arc<Self> {
        let names = XattrPath::of_fd(Arc::clone(&fd)).list().unwrap_or_default();
        let flags = own_xattrs(HAS_IMPLIED);
        let has_implied = names
            .split(|byte| *byte == 0)
            .any(|name| flags.iter().any(|flag| flag.as_bytes() == name));
        let kept = Kept {
            records,
            has_implied,
        };
        Self::at(source, DirLocation::Root(fd), cache, kept, None)
    }

    pub(super) fn child(parent: &Arc<Self>, name: &Name, being: Option<ObjectId>) -> Arc<Self> {
        let place = DirLocation::Child {
            parent: Arc::clone(parent),
            name: Arc::clone(name),
        };
        let records = parent.records.clone();
        let kept = Kept {
            records,
            has_implied: parent.has_implied,
        };
        Self::at(parent.source, place, &parent.cache, kept, being)
    }

    fn at(
        source: Source,
        place: DirLocation,
        cache: &Arc<FdCache>,
        kept: Kept,
        being: Option<ObjectId>,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            place: RwLock::new(place),
            slot: FdSlot::new(cache),
            cache: Arc::clone(cache),
            records: kept.records,
            has_implied: kept.has_implied,
            being,
            device: AtomicU64::new(UNKNOWN_DEVICE),
        })
    }

    /// The stat overrides of the layer, where it has owners, modes and types in xattrs.
    #[must_use]
    pub(crate) fn records(&self) -> Option<&Arc<StatOverrides>> {
        self.records.as_ref()
    }

    /// Whether no entry of the layer's archive describes it, so that it has the metadata of the
    /// layers below. Costs no system call in a layer that describes all its directories.
    pub(crate) fn is_implied(&self) -> Result<bool> {
        if !self.has_implied {
            return Ok(false);
        }
        let xattrs = self.xattrs()?;
        for name in own_xattrs(IMPLIED) {
            if let Ok(Some(value)) = xattrs.get_opt(name.as_bytes()) {
                let stat = self.stat()?;
                return Ok(value == looks(stat.uid, stat.gid, stat.perm()));
            }
        }
        Ok(false)
    }

    /// Which layer it belongs to.
    #[must_use]
    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// The device of the disk that the directory is on. A directory that was entered was asked for
    /// its metadata before, which has it as well: then this costs no system call.
    pub(crate) fn device(&self) -> Result<u64> {
        match self.device.load(Ordering::Relaxed) {
            UNKNOWN_DEVICE => Ok(self.stat_and_note_device()?.dev),
            known => Ok(known),
        }
    }

    pub(super) fn stat_and_note_device(&self) -> Result<Stat> {
        let stat = Stat::of_fd(self.fd()?)?;
        self.device.store(stat.dev, Ordering::Relaxed);
        Ok(stat)
    }

    /// Whether the directory is one of kernel overlayfs, whose entries may be on several disks.
    pub(crate) fn is_overlay(&self) -> Result<bool> {
        const OVERLAYFS_SUPER_MAGIC: u32 = 0x794c_7630;
        // A word of a size and sign that depend on the machine.
        let found = i128::from(rustix::fs::fstatfs(self.fd()?)?.f_type) & 0xffff_ffff;
        Ok(found == i128::from(OVERLAYFS_SUPER_MAGIC))
    }

    /// The metadata of the directory itself, by its stat override where the layer has those.
    pub(crate) fn stat(&self) -> Result<Stat> {
        let stat = self.stat_and_note_device()?;
        match &self.records {
            Some(records) => records.apply(stat, &self.xattrs()?),
            None => Ok(stat),
        }
    }

    /// The metadata of an entry, by its stat override where the layer has those; symlinks are not
    /// followed.
    pub(crate) fn stat_entry(&self, name: &[u8]) -> Result<Stat> {
        let stat = self.stat_on_disk(name)?;
        match &self.records {
            Some(records) => records.apply(stat, &self.xattrs_of(name)?),
            None => Ok(stat),
        }
    }

    /// The metadata of an entry on the disk, regardless of its stat override.
    pub(crate) fn stat_on_disk(&self, name: &[u8]) -> Result<Stat> {
        Stat::of_entry(self.fd()?, os(name))
    }

    /// The target of a symlink.
    pub(crate) fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        Ok(readlinkat(self.fd()?, os(name), Vec::with_capacity(256))?.into_bytes())
    }

    /// Opens an entry for reading. Only for regular files: devices, sockets and pipes are never
    /// opened.
    pub(crate) fn open_entry(&self, name: &[u8]) -> Result<OwnedFd> {
        let dir = self.fd()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // Reading through the mount must not touch the layer's access times; only an owner may ask
        // for that.
        match openat(&dir, os(name), flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => openat(&dir, os(name), flags, Mode::empty()),
            other => other,
        }
    }

    /// A descriptor that names an entry without opening it (`O_PATH`).
    pub(crate) fn pin_entry(&self, name: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.fd()?, os(name), flags, Mode::empty())
    }

    /// Whether its entries may be listed; else they are found by name only.
    pub(crate) fn may_be_read(&self) -> Result<bool> {
        Ok(!fcntl_getfl(self.fd()?)?.contains(OFlags::PATH))
    }

    /// The way to the directory's xattrs.
    pub(crate) fn xattrs(&self) -> Result<XattrPath> {
        Ok(XattrPath::of_fd(self.fd()?))
    }

    /// The way to an entry's xattrs.
    pub(crate) fn xattrs_of(&self, name: &[u8]) -> Result<XattrPath> {
        Ok(XattrPath::of_entry(self.fd()?, name))
    }

    /// The names that lead from the layer's root to the directory; `None` once it was removed.
    #[must_use]
    pub(crate) fn path(&self) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut above: Option<Arc<Self>> = None;
        loop {
            let next = match &*read(&above.as_deref().unwrap_or(self).place) {
                DirLocation::Root(_) => break,
                DirLocation::Gone => return None,
                DirLocation::Child { parent, name } => {
                    names.push(Arc::clone(name));
                    Arc::clone(parent)
                }
            };
            above = Some(next);
        }
        names.reverse();
        Some(names)
    }

    /// Takes the parent out.
    fn take_parent(&mut self) -> Option<Arc<Self>> {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(place, DirLocation::Gone) {
            DirLocation::Child { parent, .. } => Some(parent),
            DirLocation::Root(_) | DirLocation::Gone => None,
        }
    }
}

/// A parent with no other reference is dropped as well, and its parents: one after the other,
/// without recursion.
impl Drop for Dir {
    fn drop(&mut self) {
        let mut next = self.take_parent();
        while let Some(mut parent) = next.and_then(Arc::into_inner) {
            next = parent.take_parent();
        }
    }
}
