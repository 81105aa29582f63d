//! Entries of a layer into a directory.
//!
//! The rules of image-spec `layer.md`: of two entries with one name the last counts; a directory
//! over a directory replaces its metadata, everything else replaces what was there; missing parents
//! are made. Whiteouts and opaque marks are recorded, since they concern other layers: what the
//! archive itself brings under a hidden name stays, in any order.
//!
//! Attributes are set through the descriptor of what was just made: owner first, since that clears
//! setuid and capabilities, then xattrs and mode, times last. Those of directories are set when
//! nothing is made in them any more.

use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::aside::{AufsLeftovers, is_leftover};
use super::beneath::{Tree, is_mark};
use super::implied::Implied;
use super::inside::LayerPath;
use super::links::Links;
use super::policy::Policy;
use crate::archive::disk::DIRECTORY;
use crate::archive::error::{AtEntry as _, Context as _, Error, ErrorKind, Result};
use crate::archive::options::{Ownership, Whiteouts};
use crate::archive::tar::{EntryKind, TarEntry, TarReader};
use crate::layer::marks::{NameMeaning, WH_PREFIX, meaning};
use crate::layer::object::WritableObject;
use crate::layer::stat::{Kind, Stat};
use crate::layer::xattr_name::is_internal;

const OPEN_PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CREATE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Puts entries into a directory.
pub(super) struct Applier {
    tree: Tree,
    policy: Policy,
    aside: AufsLeftovers,
    /// Entries so far.
    pub(super) entries: u64,
    /// Bytes of the files among them.
    pub(super) content: u64,
    /// The root was described.
    pub(super) has_root: bool,
    /// Names may begin with a slash.
    absolute: bool,
    below: Vec<PathBuf>,
}

impl Applier {
    /// Into a directory that exists.
    ///
    /// # Errors
    /// A directory that cannot be opened, or a disk that cannot record owners although it is to.
    pub(super) fn new(into: &Path, ownership: Ownership, whiteouts: Whiteouts) -> Result<Self> {
        let mut tree = Tree::open(into)?;
        let root = Arc::clone(tree.root());
        let policy = Policy::new(root, ownership, whiteouts)?;
        if ownership == Ownership::Recorded {
            tree.set_parent_mode(policy.disk_mode());
        }
        Ok(Self {
            tree,
            policy,
            aside: AufsLeftovers::default(),
            entries: 0,
            content: 0,
            has_root: false,
            absolute: false,
            below: Vec::new(),
        })
    }

    /// Names that begin with a slash are taken from the root (those of directories always are).
    #[must_use]
    pub(super) fn with_absolute_names(mut self, absolute: bool) -> Self {
        self.absolute = absolute;
        self
    }

    /// The layers that lie below, newest first.
    #[must_use]
    pub(super) fn above(mut self, below: &[PathBuf]) -> Self {
        self.below = below.to_vec();
        self
    }

    /// Makes one entry, with its data from the reader that gave it.
    ///
    /// # Errors
    /// A name that leads outside or cannot be represented, and what the disk answers; always with
    /// the entry's name.
    pub(super) fn apply<R: BufRead>(
        &mut self,
        entry: &TarEntry,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        self.entries += 1;
        self.place(entry, reader).at_entry(&entry.path)
    }

    /// The directories that were made because something is in them, and that no entry describes.
    /// They belong to root and have mode 0755; in a merged tree they are shown with the metadata of
    /// the layers below.
    #[must_use]
    pub(super) fn implied(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.policy.implied)
            .into_iter()
            .collect()
    }

    /// Sets what could not be set before.
    ///
    /// # Errors
    /// What the disk answers.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.aside.dir().is_some() {
            let root = self.tree.existing(&LayerPath::root())?;
            self.aside.remove(&root)?;
        }
        Implied {
            tree: &mut self.tree,
            policy: &mut self.policy,
        }
        .mark(&self.below)?;
        self.tree.finish()?;
        if self.policy.ownership == Ownership::Real && self.policy.records.is_some() {
            // What the root is may have been said after it began to keep records.
            self.policy.record_root()?;
        }
        Ok(())
    }

    fn place<R: BufRead>(&mut self, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<()> {
        let inside = LayerPath::new(&entry.path, self.absolute || entry.what == EntryKind::Dir)?;
        let Some((parent, name)) = inside.split() else {
            return self.apply_root_metadata(entry, &inside);
        };
        if is_leftover(&inside) {
            return self.set_aside(entry, &inside, reader);
        }
        if parent.components().any(|name| name.starts_with(WH_PREFIX)) {
            return Err(no_mark());
        }
        let meant = meaning(name);
        if meant == NameMeaning::Leftover {
            return Err(no_mark());
        }
        if meant != NameMeaning::Plain
            && !matches!(entry.what, EntryKind::File(_) | EntryKind::HardLink(_))
        {
            return Err(Error::refused(
                "it is named as a whiteout, but is no file; a layer cannot have such an entry",
            ));
        }
        let dir = self.tree.directory(&parent, &mut self.policy)?;
        match meant {
            NameMeaning::Whiteout(hidden) => self.policy.marks.whiteout(&dir, hidden),
            NameMeaning::Opaque => self.policy.marks.opaque(&dir),
            NameMeaning::Plain | NameMeaning::Leftover => {
                let place = NewName {
                    dir: &dir,
                    parent: &parent,
                    name,
                };
                self.make(entry, &inside, &place, reader)
            }
        }
    }

    /// The root has attributes, but is there already.
    fn apply_root_metadata(&mut self, entry: &TarEntry, inside: &LayerPath) -> Result<()> {
        if entry.what != EntryKind::Dir {
            return Err(Error::refused(
                "the root of a layer is a directory, and cannot be replaced by anything else",
            ));
        }
        let root = self.tree.existing(inside)?;
        self.has_root = true;
        self.apply_dir_metadata(entry, inside, root)
    }

    /// What is no part of the layer may still be what another entry is a hard link to.
    fn set_aside<R: BufRead>(
        &mut self,
        entry: &TarEntry,
        inside: &LayerPath,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        log::debug!("{}: not shown", entry.path.escape_ascii());
        if entry.what == EntryKind::Dir {
            return Ok(());
        }
        let root = self.tree.existing(&LayerPath::root())?;
        let place = NewName {
            dir: &self.aside.make(&root)?,
            parent: &AufsLeftovers::place(),
            name: &AufsLeftovers::name(inside),
        };
        match self.make(entry, inside, &place, reader) {
            Err(err) if err.kind() == ErrorKind::Refused && entry.what.kind().is_none() => {
                log::debug!("{}: {err}", entry.path.escape_ascii());
                Ok(())
            }
            other => other,
        }
    }

    fn make<R: BufRead>(
        &mut self,
        entry: &TarEntry,
        inside: &LayerPath,
        place: &NewName<'_>,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        match &entry.what {
            EntryKind::Dir => self.make_dir(entry, inside, place),
            EntryKind::File(size) => {
                let file = self.create(place, |dir, name| {
                    openat(dir, name, CREATE, Mode::from_raw_mode(0o600))
                })?;
                let file = Arc::new(file);
                let written = write_data(&file, *size, reader)?;
                self.content += written;
                self.policy.apply_metadata(file, entry, Kind::File, 0)
            }
            EntryKind::HardLink(target) => {
                let links = Links {
                    absolute: self.absolute,
                    aside: self.aside.dir(),
                };
                match links.find(&mut self.tree, inside, target)? {
                    None => Ok(()),
                    Some((from, name)) => self.create(place, |dir, new| {
                        linkat(&from, &name[..], dir, new, AtFlags::empty())
                    }),
                }
            }
            EntryKind::Symlink(target) => {
                self.create(place, |dir, name| symlinkat(&target[..], dir, name))?;
                let link = place.open(OPEN_PATH)?;
                self.policy.apply_metadata(link, entry, Kind::Symlink, 0)
            }
            EntryKind::Fifo => self.node(entry, place, Kind::Fifo, 0),
            EntryKind::Socket => self.node(entry, place, Kind::Socket, 0),
            EntryKind::Char(rdev) => self.node(entry, place, Kind::Char, *rdev),
            EntryKind::Block(rdev) => self.node(entry, place, Kind::Block, *rdev),
        }
    }

    /// Makes something that is no directory, in place of what is there.
    fn create<T>(
        &mut self,
        place: &NewName<'_>,
        make: impl Fn(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make(place.dir, place.name) {
            Err(Errno::EXIST) => {
                self.tree.remove(place.dir, place.parent, place.name)?;
                make(place.dir, place.name).context("create", place.name)
            }
            other => other.context("create", place.name),
        }
    }

    fn make_dir(
        &mut self,
        entry: &TarEntry,
        inside: &LayerPath,
        place: &NewName<'_>,
    ) -> Result<()> {
        let NewName { dir, parent, name } = *place;
        let mode = Mode::from_raw_mode(0o700);
        match mkdirat(dir, name, mode) {
            Err(Errno::EXIST) => {
                let is_dir = Stat::of_entry(dir, name).context("stat", name)?.kind() == Kind::Dir;
                if !is_dir {
                    let hides = is_mark(dir, name)?;
                    self.tree.remove(dir, parent, name)?;
                    mkdirat(dir, name, mode).context("mkdir", name)?;
                    if hides {
                        self.policy.marks.opaque(&place.open(DIRECTORY)?)?;
                    }
                }
            }
            other => other.context("mkdir", name)?,
        }
        let fd = self.tree.existing_in(dir, inside, name)?;
        self.apply_dir_metadata(entry, inside, fd)
    }

    /// Attributes of a directory that may have had others.
    fn apply_dir_metadata(
        &mut self,
        entry: &TarEntry,
        inside: &LayerPath,
        dir: Arc<OwnedFd>,
    ) -> Result<()> {
        let object = WritableObject::new(Arc::clone(&dir), None);
        let old = object.xattrs().list().context("listxattr", b".")?;
        for name in old.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if !is_internal(name) && name != b"security.selinux" {
                match object.remove_xattr(name) {
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(errno) => return Err(errno).context("removexattr", name),
                }
            }
        }
        self.policy.implied.remove(inside.bytes());
        self.policy.apply_metadata(dir, entry, Kind::Dir, 0)?;
        self.tree.set_mtime(inside, entry.mtime);
        Ok(())
    }

    /// A special file; one that cannot be made on this disk, or would be a mark there, is recorded.
    fn node(&mut self, entry: &TarEntry, place: &NewName<'_>, kind: Kind, rdev: u64) -> Result<()> {
        let is_whiteout = kind == Kind::Char && rdev == 0;
        if self.policy.ownership == Ownership::Real && !is_whiteout {
            let made = self.create(place, |dir, name| {
                match mknodat(
                    dir,
                    name,
                    kind.file_type(),
                    Mode::from_raw_mode(0o600),
                    rdev,
                ) {
                    Err(Errno::PERM) => Ok(false),
                    other => other.map(|()| true),
                }
            })?;
            if made {
                return self
                    .policy
                    .apply_metadata(place.open(OPEN_PATH)?, entry, kind, rdev);
            }
        }
        self.policy.begin_records()?;
        let file = self.create(place, |dir, name| {
            openat(dir, name, CREATE, Mode::from_raw_mode(0o600))
        })?;
        self.policy
            .apply_metadata(Arc::new(file), entry, kind, rdev)
    }
}

/// Where an entry is made.
#[derive(Clone, Copy)]
struct NewName<'a> {
    dir: &'a Arc<OwnedFd>,
    parent: &'a LayerPath,
    name: &'a [u8],
}

impl NewName<'_> {
    fn open(&self, flags: OFlags) -> Result<Arc<OwnedFd>> {
        let fd = openat(self.dir, self.name, flags, Mode::empty());
        fd.map(Arc::new).context("open", self.name)
    }
}

fn no_mark() -> Error {
    Error::refused(
        "names that begin with '.wh.' are whiteouts in a layer, and this one hides nothing; a layer cannot have such an entry",
    )
}

/// Writes the data of a file, leaving its holes.
fn write_data<R: BufRead>(file: &OwnedFd, size: u64, reader: &mut TarReader<R>) -> Result<u64> {
    let (mut end, mut written) = (0, 0);
    reader.data(|mut offset, mut bytes| {
        written += bytes.len() as u64;
        while !bytes.is_empty() {
            match rustix::io::pwrite(file, bytes, offset) {
                Ok(0) => return Err(Error::io("pwrite", Errno::IO)),
                Ok(len) => {
                    bytes = &bytes[len..];
                    offset += len as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("pwrite", errno)),
            }
        }
        end = offset;
        Ok(())
    })?;
    if end < size {
        rustix::fs::ftruncate(file, size).context("ftruncate", b".")?;
    }
    Ok(written)
}
