//! A directory of a layer, found by its place (parent directory and name), never by a path.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, fcntl_getfl, openat, readlinkat, seek};
use rustix::io::{Errno, Result};

use super::fd_cache::{FdCache, FdSlot};
use super::marks::{HAS_IMPLIED, IMPLIED, looks, own_xattrs};
use super::stat::{Birth, Kind, Stat};
use super::stat_override::Records;
use super::xattr::XattrPath;
use crate::sync::{read, write};

/// The number of a layer in the stack: 0 is the upper, lowers count from 1, newest first.
pub type LayerNo = u16;
/// The number of the upper layer.
pub const UPPER: LayerNo = 0;

/// A name of a directory entry, as bytes without NUL or slash.
pub type Name = Arc<[u8]>;

/// Where a directory is. The lock is held while it is opened from there, and while it is moved, so that an
/// opened descriptor is always the right one.
#[derive(Debug)]
pub(super) enum Place {
    Root(Arc<OwnedFd>),
    Child { parent: Arc<Dir>, name: Name },
    Gone,
}

/// A directory of some layer: what can be read there. It keeps no descriptor of its own; the cache decides
/// how long the one it was last used with stays open.
#[derive(Debug)]
pub struct Dir {
    layer: LayerNo,
    pub(super) place: RwLock<Place>,
    pub(super) slot: Arc<FdSlot>,
    cache: Arc<FdCache>,
    records: Option<Arc<Records>>,
    /// Its layer has directories that no entry describes.
    has_implied: bool,
    /// The inode that it must be, where others may put another directory in its place.
    being: Option<Being>,
    /// The device that it was on when it was last asked; [`UNKNOWN_DEVICE`] before.
    device: AtomicU64,
}

/// No device has this number.
const UNKNOWN_DEVICE: u64 = u64::MAX;

/// What tells an object of a disk from every other: its inode number, and when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Being {
    /// The inode number.
    pub ino: u64,
    /// When it was made; unknown where the disk's word on that does not count.
    pub birth: Birth,
}

impl Being {
    fn is(self, stat: &Stat) -> bool {
        self.ino == stat.ino && self.birth.agrees(stat.birth())
    }
}

pub(super) const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Turns a name into what system calls take.
pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// Opens a directory for reading; without touching its access time, where that may be asked for (by its owner),
/// and at least to go through, where it may not be read.
fn open_dir(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let open = |flags| openat(parent, os(name), OPEN_DIR | flags, Mode::empty());
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => match open(OFlags::empty()) {
            Err(Errno::ACCESS) => open(OFlags::PATH),
            other => other,
        },
        Err(Errno::ACCESS) => open(OFlags::PATH),
        other => other,
    }
}

/// What an `O_PATH` descriptor says of being read stands for what openat(2) said.
fn unreadable(errno: Errno) -> Errno {
    match errno {
        Errno::BADF => Errno::ACCESS,
        other => other,
    }
}

impl Dir {
    pub(super) fn root(
        layer: LayerNo,
        fd: Arc<OwnedFd>,
        cache: &Arc<FdCache>,
        records: Option<Arc<Records>>,
    ) -> Arc<Self> {
        let names = XattrPath::of_fd(Arc::clone(&fd)).list().unwrap_or_default();
        let flags = own_xattrs(HAS_IMPLIED);
        let has_implied = names
            .split(|byte| *byte == 0)
            .any(|name| flags.iter().any(|flag| flag.as_bytes() == name));
        Self::at(layer, Place::Root(fd), cache, (records, has_implied), None)
    }

    pub(super) fn child(parent: &Arc<Self>, name: &Name, being: Option<Being>) -> Arc<Self> {
        let place = Place::Child {
            parent: Arc::clone(parent),
            name: Arc::clone(name),
        };
        let records = parent.records.clone();
        let told = (records, parent.has_implied);
        Self::at(parent.layer, place, &parent.cache, told, being)
    }

    fn at(
        layer: LayerNo,
        place: Place,
        cache: &Arc<FdCache>,
        (records, has_implied): (Option<Arc<Records>>, bool),
        being: Option<Being>,
    ) -> Arc<Self> {
        Arc::new(Self {
            layer,
            place: RwLock::new(place),
            slot: FdSlot::new(cache),
            cache: Arc::clone(cache),
            records,
            has_implied,
            being,
            device: AtomicU64::new(UNKNOWN_DEVICE),
        })
    }

    /// How the layer keeps owners, modes and types, if not on its disk.
    #[must_use]
    pub fn records(&self) -> Option<&Arc<Records>> {
        self.records.as_ref()
    }

    /// Whether no entry of the layer's archive says what it looks like. Costs no system call in a layer that describes
    /// all its directories.
    pub fn is_implied(&self) -> Result<bool> {
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
    pub fn layer(&self) -> LayerNo {
        self.layer
    }

    /// A descriptor of the directory, opened for reading (`O_PATH` where reading is not permitted).
    /// Errors: ENOENT when it was removed; ESTALE when another one took its place, where that is possible; those of
    /// openat(2).
    pub fn fd(&self) -> Result<Arc<OwnedFd>> {
        // Those to be opened before it, the one nearest to the root last; and the one that was just opened, which the
        // cache may close again.
        let mut closed: Vec<Arc<Self>> = Vec::new();
        let mut opened: Option<(Arc<Self>, Arc<OwnedFd>)> = None;
        loop {
            let next = closed.last().map_or(self, |dir| &**dir);
            match next.open_beneath(opened.as_ref())? {
                Way::Open(fd) => match closed.pop() {
                    Some(dir) => opened = Some((dir, fd)),
                    None => return Ok(fd),
                },
                Way::First(parent) => closed.push(parent),
            }
        }
    }

    /// One step of [`Dir::fd`]: opens the directory if its parent is open. `opened` is a directory that is open.
    fn open_beneath(&self, opened: Option<&(Arc<Self>, Arc<OwnedFd>)>) -> Result<Way> {
        if let Some(fd) = self.slot.get() {
            return Ok(Way::Open(fd));
        }
        match &*read(&self.place) {
            Place::Root(fd) => Ok(Way::Open(Arc::clone(fd))),
            Place::Gone => Err(Errno::NOENT),
            Place::Child { parent, name } => {
                let at_hand = match opened {
                    Some((dir, fd)) if Arc::ptr_eq(dir, parent) => Some(Arc::clone(fd)),
                    _ => parent.at_hand(),
                };
                let Some(parent) = at_hand else {
                    return Ok(Way::First(Arc::clone(parent)));
                };
                let open = || {
                    let fd = open_dir(&parent, name)?;
                    match self.being {
                        Some(being) if !being.is(&Stat::of_fd(&fd)?) => Err(Errno::STALE),
                        _ => Ok(fd),
                    }
                };
                self.slot.get_or_open(open).map(Way::Open)
            }
        }
    }

    /// The descriptor, if nothing need be opened for it.
    fn at_hand(&self) -> Option<Arc<OwnedFd>> {
        self.slot.get().or_else(|| match &*read(&self.place) {
            Place::Root(fd) => Some(Arc::clone(fd)),
            _ => None,
        })
    }

    /// The device of the disk that the directory is on. Whoever enters a directory has asked what it is before: that tells it
    /// as well.
    pub fn device(&self) -> Result<u64> {
        match self.device.load(Ordering::Relaxed) {
            UNKNOWN_DEVICE => Ok(self.ask()?.dev),
            known => Ok(known),
        }
    }

    fn ask(&self) -> Result<Stat> {
        let stat = Stat::of_fd(self.fd()?)?;
        self.device.store(stat.dev, Ordering::Relaxed);
        Ok(stat)
    }

    /// Whether the directory is one of kernel overlayfs, whose entries may be on several disks.
    pub fn is_overlay(&self) -> Result<bool> {
        const OVERLAYFS_SUPER_MAGIC: u32 = 0x794c_7630;
        // A word of a size and sign that depend on the machine.
        let found = i128::from(rustix::fs::fstatfs(self.fd()?)?.f_type) & 0xffff_ffff;
        Ok(found == i128::from(OVERLAYFS_SUPER_MAGIC))
    }

    /// What the directory itself is, by its record where the layer keeps those.
    pub fn stat(&self) -> Result<Stat> {
        let stat = self.ask()?;
        match &self.records {
            Some(records) => records.apply(stat, &self.xattrs()?),
            None => Ok(stat),
        }
    }

    /// What an entry is, by its record where the layer keeps those; symlinks are not followed.
    pub fn stat_entry(&self, name: &[u8]) -> Result<Stat> {
        let stat = self.stat_on_disk(name)?;
        match &self.records {
            Some(records) => records.apply(stat, &self.xattrs_of(name)?),
            None => Ok(stat),
        }
    }

    /// What stat(2) says about an entry, whatever its record says.
    pub fn stat_on_disk(&self, name: &[u8]) -> Result<Stat> {
        Stat::of_entry(self.fd()?, os(name))
    }

    /// The target of a symlink.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>> {
        Ok(readlinkat(self.fd()?, os(name), Vec::with_capacity(256))?.into_bytes())
    }

    /// Opens an entry for reading. Only for regular files: devices, sockets and pipes are never opened.
    pub fn open_entry(&self, name: &[u8]) -> Result<OwnedFd> {
        let dir = self.fd()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // Reading through the mount must not touch the layer's access times; only an owner may ask for that.
        match openat(&dir, os(name), flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => openat(&dir, os(name), flags, Mode::empty()),
            other => other,
        }
    }

    /// A descriptor that names an entry without opening it (`O_PATH`).
    pub fn pin_entry(&self, name: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.fd()?, os(name), flags, Mode::empty())
    }

    /// Whether its entries may be listed; else they can be used by who knows their names.
    pub fn may_be_read(&self) -> Result<bool> {
        Ok(!fcntl_getfl(self.fd()?)?.contains(OFlags::PATH))
    }

    /// Calls `each` with name, type (unless the file system does not tell) and inode number of every entry but
    /// `.` and `..`. What a listing does not tell of inode numbers is asked for. At most one reader at a time: the
    /// descriptor's position is shared. Errors: EACCES for a directory that may not be read, and those of getdents(2).
    pub fn for_each(&self, mut each: impl FnMut(&[u8], Option<Kind>, u64)) -> Result<()> {
        let fd = self.fd()?;
        seek(&fd, SeekFrom::Start(0)).map_err(unreadable)?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        buffer.resize_with(32 * 1024, MaybeUninit::uninit);
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = Kind::from_file_type(entry.file_type());
            match told(entry.ino()) {
                Some(ino) => each(name, kind, ino),
                None => match Stat::of_entry(&fd, os(name)) {
                    Ok(stat) => each(name, kind, stat.ino),
                    // Removed meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                },
            }
        }
        Ok(())
    }

    /// Opens the directory for a reader of its own, from a position on that its disk gave before. 0 is the start.
    pub fn stream(&self, position: u64) -> Result<DirStream> {
        let fd = open_dir(&*self.fd()?, b".")?;
        if position != 0 {
            seek(&fd, SeekFrom::Start(position)).map_err(unreadable)?;
        }
        Ok(DirStream(fd))
    }

    /// The way to the directory's xattrs.
    pub fn xattrs(&self) -> Result<XattrPath> {
        Ok(XattrPath::of_fd(self.fd()?))
    }

    /// The way to an entry's xattrs.
    pub fn xattrs_of(&self, name: &[u8]) -> Result<XattrPath> {
        Ok(XattrPath::of_entry(self.fd()?, name))
    }

    /// Closes its descriptor if another directory has taken the place of the one that it is of, or none. Gives whether it
    /// did.
    pub fn let_go_if_replaced(&self) -> bool {
        let (Place::Child { parent, name }, Some(fd)) = (&*read(&self.place), self.slot.get())
        else {
            return false;
        };
        let same = Stat::of_fd(&fd).is_ok_and(|held| {
            let here = parent.stat_on_disk(name);
            here.is_ok_and(|here| (here.dev, here.ino) == (held.dev, held.ino))
        });
        if !same {
            self.slot.clear();
            self.device.store(UNKNOWN_DEVICE, Ordering::Relaxed);
        }
        !same
    }

    /// The names that lead from the layer's root to the directory; `None` once it was removed.
    #[must_use]
    pub fn path(&self) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut above: Option<Arc<Self>> = None;
        loop {
            let next = match &*read(&above.as_deref().unwrap_or(self).place) {
                Place::Root(_) => break,
                Place::Gone => return None,
                Place::Child { parent, name } => {
                    names.push(Arc::clone(name));
                    Arc::clone(parent)
                }
            };
            above = Some(next);
        }
        names.reverse();
        Some(names)
    }

    /// Lets go of the parent.
    fn take_parent(&mut self) -> Option<Arc<Self>> {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(place, Place::Gone) {
            Place::Child { parent, .. } => Some(parent),
            Place::Root(_) | Place::Gone => None,
        }
    }
}

/// A parent that nobody else holds goes as well, and its parents: one after the other, however deep the tree is.
impl Drop for Dir {
    fn drop(&mut self) {
        let mut next = self.take_parent();
        while let Some(mut parent) = next.and_then(Arc::into_inner) {
            next = parent.take_parent();
        }
    }
}

/// A step on the way to a descriptor.
enum Way {
    /// It is open.
    Open(Arc<OwnedFd>),
    /// This one must be opened first.
    First(Arc<Dir>),
}

/// A directory that is being read. Its disk knows since when, and some end the reading by that: what was made later is not
/// for this reader.
#[derive(Debug)]
pub struct DirStream(OwnedFd);

/// The inode number that a listing tells; `None` for the two that stand for none: libfuse's `FUSE_UNKNOWN_INO`, and 0.
fn told(ino: u64) -> Option<u64> {
    const UNKNOWN: u64 = 0xffff_ffff;
    (ino != 0 && ino != UNKNOWN).then_some(ino)
}

impl DirStream {
    /// The device of the disk that is read.
    pub fn device(&self) -> Result<u64> {
        Ok(Stat::of_fd(&self.0)?.dev)
    }

    /// As [`Dir::for_each`], for about a hundred entries more, `.` and `..` included. `each` is given the position behind
    /// the entry as well, from which the disk can go on, and no number that the disk does not tell. Gives whether there
    /// was any.
    pub fn next(
        &self,
        mut each: impl FnMut(&[u8], Option<Kind>, Option<u64>, u64),
    ) -> Result<bool> {
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(unreadable)?;
            let kind = Kind::from_file_type(entry.file_type());
            let name = entry.file_name().to_bytes();
            each(name, kind, told(entry.ino()), entry.next_entry_cookie());
            any = true;
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(any)
    }
}

/// A directory of a read-only layer. It can only be read.
#[derive(Clone, Debug)]
pub struct LowerDir(Arc<Dir>);

impl LowerDir {
    /// The root of a lower layer. Its xattrs say whether the layer keeps records.
    #[must_use]
    pub fn root(layer: LayerNo, fd: OwnedFd, cache: &Arc<FdCache>) -> Self {
        let fd = Arc::new(fd);
        let records = Records::of_root(&fd);
        Self(Dir::root(layer, fd, cache, records))
    }

    /// A directory in this one. Nothing is opened or checked yet.
    #[must_use]
    pub fn child(&self, name: &Name) -> Self {
        Self(Dir::child(&self.0, name, None))
    }

    /// Closes it for good: as a directory that was removed it cannot be opened again, nor can what is only found through it.
    pub fn let_go(&self) {
        *write(&self.0.place) = Place::Gone;
        self.0.slot.clear();
    }
}

impl std::ops::Deref for LowerDir {
    type Target = Dir;
    fn deref(&self) -> &Dir {
        &self.0
    }
}
