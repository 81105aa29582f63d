//! Entries of a layer into a directory.
//!
//! The rules of image-spec `layer.md`: of two entries with one name the last counts; a directory over a directory gives it
//! its attributes, everything else replaces what was there; missing parents are made. Whiteouts and opaque marks are
//! recorded, since they concern other layers: what the archive itself brings under a hidden name stays, whatever the order.
//!
//! Attributes are set through the descriptor of what was just made: owner first, since that clears setuid and
//! capabilities, then xattrs and mode, times last. Those of directories are set when nothing is made in them any more.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::aside::{Aside, is_leftover};
use super::beneath::{Inside, Parents, Tree, is_mark};
use super::entry::{Entry, What};
use super::error::{AtEntry as _, During as _, Error, ErrorKind, Result};
use super::marks::Marks;
use super::read::TarReader;
use super::{Ownership, Whiteouts};
use crate::layer::mark::{NameMeaning, WH_PREFIX, meaning};
use crate::layer::record::{Record, RecordForm, Records};
use crate::layer::stat::{Kind, Stat, Time};
use crate::layer::upper::{SetTime, UpperObject};
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::{Keeping, is_internal};

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const OPEN_PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const CREATE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// So many different xattrs that cannot be set are told.
const MOST_TOLD: usize = 32;
/// Directories without an entry of their own that are remembered.
const MOST_IMPLIED: usize = 65536;

/// Puts entries into a directory.
pub struct Applier {
    tree: Tree,
    policy: Policy,
    aside: Aside,
    /// Entries so far.
    pub entries: u64,
    /// Bytes of the files among them.
    pub content: u64,
    /// The root was described.
    pub has_root: bool,
    /// Names may begin with a slash.
    absolute: bool,
}

/// How things are made.
struct Policy {
    root: Arc<OwnedFd>,
    ownership: Ownership,
    marks: Marks,
    /// How owners and types are recorded, once something is.
    records: Option<Arc<Records>>,
    keeping: Keeping,
    /// Whose whatever is made is at first.
    own: (u32, u32),
    /// Directories that were made because something is in them.
    implied: BTreeSet<Vec<u8>>,
    /// There are directories whose ACL is passed on to what is made in them.
    passes_acls: bool,
    /// Xattrs that could not be set, of which was told.
    left_out: BTreeSet<Vec<u8>>,
}

impl Applier {
    /// Into a directory that exists.
    ///
    /// # Errors
    /// A directory that cannot be opened, or a disk that cannot record owners although it is to.
    pub fn new(into: &Path, ownership: Ownership, whiteouts: Whiteouts) -> Result<Self> {
        let mut tree = Tree::open(into)?;
        let root = Arc::clone(tree.root());
        let mut policy = Policy {
            root,
            ownership,
            marks: Marks::new(whiteouts),
            records: None,
            keeping: Keeping::Disk,
            own: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            implied: BTreeSet::new(),
            passes_acls: false,
            left_out: BTreeSet::new(),
        };
        policy.passes_acls = policy.root_passes_acls()?;
        if ownership == Ownership::Recorded {
            policy.begin_records()?;
            policy.keeping = Keeping::of(Some(RecordForm::User), policy.own.0 == 0);
            tree.set_parent_mode(policy.disk_mode());
        }
        Ok(Self {
            tree,
            policy,
            aside: Aside::default(),
            entries: 0,
            content: 0,
            has_root: false,
            absolute: false,
        })
    }

    /// Names that begin with a slash are taken from the root (those of directories always are).
    #[must_use]
    pub fn with_absolute_names(mut self, absolute: bool) -> Self {
        self.absolute = absolute;
        self
    }

    /// Makes one entry, with its data from the reader that gave it.
    ///
    /// # Errors
    /// A name that leads outside or cannot be represented, and what the disk answers; always with the entry's name.
    pub fn apply<R: BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<()> {
        self.entries += 1;
        self.place(entry, reader).at_entry(&entry.path)
    }

    /// The directories that were made because something is in them, and that no entry describes. They belong to root
    /// and have mode 0755; in a merged tree they should look as they do in the layers below.
    #[must_use]
    pub fn implied(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.policy.implied)
            .into_iter()
            .collect()
    }

    /// Sets what could not be set before.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn finish(&mut self) -> Result<()> {
        if self.aside.dir().is_some() {
            let root = self.tree.existing(&Inside::root())?;
            self.aside.remove(&root)?;
        }
        self.tree.finish()?;
        if self.policy.ownership == Ownership::Real && self.policy.records.is_some() {
            // What the root is may have been said after it began to keep records.
            self.policy.record_root()?;
        }
        Ok(())
    }

    fn place<R: BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<()> {
        let inside = Inside::new(&entry.path, self.absolute || entry.what == What::Dir)?;
        let Some((parent, name)) = inside.split() else {
            return self.describe_root(entry, &inside);
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
        if meant != NameMeaning::Plain && !matches!(entry.what, What::File(_) | What::HardLink(_)) {
            return Err(Error::refused(
                "it is named as a whiteout, but is no file; a layer cannot have such an entry",
            ));
        }
        let dir = self.tree.directory(&parent, &mut self.policy)?;
        match meant {
            NameMeaning::Whiteout(hidden) => self.policy.marks.whiteout(&dir, hidden),
            NameMeaning::Opaque => self.policy.marks.opaque(&dir),
            NameMeaning::Plain | NameMeaning::Leftover => {
                let place = Place {
                    dir: &dir,
                    parent: &parent,
                    name,
                };
                self.make(entry, &inside, &place, reader)
            }
        }
    }

    /// The root has attributes, but is there already.
    fn describe_root(&mut self, entry: &Entry, inside: &Inside) -> Result<()> {
        if entry.what != What::Dir {
            return Err(Error::refused(
                "the root of a layer is a directory, and cannot be replaced by anything else",
            ));
        }
        let root = self.tree.existing(inside)?;
        self.has_root = true;
        self.describe_dir(entry, inside, root)
    }

    /// What is no part of the layer may still be what another entry is a hard link to.
    fn set_aside<R: BufRead>(
        &mut self,
        entry: &Entry,
        inside: &Inside,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        log::debug!("{}: not shown", entry.path.escape_ascii());
        if entry.what == What::Dir {
            return Ok(());
        }
        let root = self.tree.existing(&Inside::root())?;
        let place = Place {
            dir: &self.aside.make(&root)?,
            parent: &Aside::place(),
            name: &Aside::name(inside),
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
        entry: &Entry,
        inside: &Inside,
        place: &Place<'_>,
        reader: &mut TarReader<R>,
    ) -> Result<()> {
        match &entry.what {
            What::Dir => self.make_dir(entry, inside, place),
            What::File(size) => {
                let file = self.create(place, |dir, name| {
                    openat(dir, name, CREATE, Mode::from_raw_mode(0o600))
                })?;
                let file = Arc::new(file);
                let written = write_data(&file, *size, reader)?;
                self.content += written;
                self.policy.describe(file, entry, Kind::File, 0)
            }
            What::HardLink(target) => self.link(inside, place, target),
            What::Symlink(target) => {
                self.create(place, |dir, name| symlinkat(&target[..], dir, name))?;
                let link = place.open(OPEN_PATH)?;
                self.policy.describe(link, entry, Kind::Symlink, 0)
            }
            What::Fifo => self.node(entry, place, Kind::Fifo, 0),
            What::Socket => self.node(entry, place, Kind::Socket, 0),
            What::Char(rdev) => self.node(entry, place, Kind::Char, *rdev),
            What::Block(rdev) => self.node(entry, place, Kind::Block, *rdev),
        }
    }

    /// Makes something that is no directory, in place of whatever is there.
    fn create<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make(place.dir, place.name) {
            Err(Errno::EXIST) => {
                self.tree.remove(place.dir, place.parent, place.name)?;
                make(place.dir, place.name).during("create", place.name)
            }
            other => other.during("create", place.name),
        }
    }

    fn make_dir(&mut self, entry: &Entry, inside: &Inside, place: &Place<'_>) -> Result<()> {
        let Place { dir, parent, name } = *place;
        let mode = Mode::from_raw_mode(0o700);
        match mkdirat(dir, name, mode) {
            Err(Errno::EXIST) => {
                let is_dir = Stat::of_entry(dir, name).during("stat", name)?.kind() == Kind::Dir;
                if !is_dir {
                    let hides = is_mark(dir, name)?;
                    self.tree.remove(dir, parent, name)?;
                    mkdirat(dir, name, mode).during("mkdir", name)?;
                    if hides {
                        self.policy.marks.opaque(&place.open(OPEN_DIR)?)?;
                    }
                }
            }
            other => other.during("mkdir", name)?,
        }
        let fd = self.tree.existing(inside)?;
        self.describe_dir(entry, inside, fd)
    }

    /// Attributes of a directory that may have had others.
    fn describe_dir(&mut self, entry: &Entry, inside: &Inside, dir: Arc<OwnedFd>) -> Result<()> {
        let object = UpperObject::new(Arc::clone(&dir), None);
        let old = object.xattrs().list().during("listxattr", b".")?;
        for name in old.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if !is_internal(name) && name != b"security.selinux" {
                match object.remove_xattr(name) {
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(errno) => return Err(errno).during("removexattr", name),
                }
            }
        }
        self.policy.implied.remove(inside.bytes());
        self.policy.describe(dir, entry, Kind::Dir, 0)?;
        self.tree.set_mtime(inside, entry.mtime);
        Ok(())
    }

    fn link(&mut self, inside: &Inside, place: &Place<'_>, target: &[u8]) -> Result<()> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let bad =
            |why: &str| Error::refused(format!("it is a hard link to '{shown}', which {why}"));
        let to = Inside::new(target, self.absolute)
            .map_err(|_| bad("leads out of the layer; targets are names from the layer's root"))?;
        let Some((parent, name)) = to.split() else {
            return Err(bad("is the root of the layer"));
        };
        if to == *inside {
            return Ok(());
        }
        if is_leftover(&to) {
            let from = self.aside.dir().cloned();
            let from = from.ok_or_else(|| bad("is not in the layer before it"))?;
            return self.link_to(place, &from, &Aside::name(&to), bad);
        }
        if to.components().any(|name| name.starts_with(WH_PREFIX)) {
            return Err(bad("is a mark for other layers"));
        }
        let missing = || bad("is not in the layer before it");
        let from = self
            .tree
            .existing(&parent)
            .map_err(|err| match err.kind() {
                ErrorKind::Refused => bad("is reached through a symbolic link or a file"),
                _ => missing(),
            })?;
        self.link_to(place, &from, name, bad)
    }

    /// Makes a hard link to what has a name in an open directory.
    fn link_to(
        &mut self,
        place: &Place<'_>,
        from: &Arc<OwnedFd>,
        name: &[u8],
        bad: impl Fn(&str) -> Error,
    ) -> Result<()> {
        match Stat::of_entry(from, name) {
            Ok(stat) if stat.kind() == Kind::Dir => return Err(bad("is a directory")),
            Ok(_) => {}
            Err(_) => return Err(bad("is not in the layer before it")),
        }
        if is_mark(from, name)? {
            return Err(bad("is not in the layer before it"));
        }
        self.create(place, |dir, new| {
            linkat(from, name, dir, new, AtFlags::empty())
        })
    }

    /// A special file; one that cannot be made on this disk, or would be a mark there, is recorded.
    fn node(&mut self, entry: &Entry, place: &Place<'_>, kind: Kind, rdev: u64) -> Result<()> {
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
                    .describe(place.open(OPEN_PATH)?, entry, kind, rdev);
            }
        }
        self.policy.begin_records()?;
        let file = self.create(place, |dir, name| {
            openat(dir, name, CREATE, Mode::from_raw_mode(0o600))
        })?;
        self.policy.describe(Arc::new(file), entry, kind, rdev)
    }
}

/// Where an entry is made.
#[derive(Clone, Copy)]
struct Place<'a> {
    dir: &'a Arc<OwnedFd>,
    parent: &'a Inside,
    name: &'a [u8],
}

impl Place<'_> {
    fn open(&self, flags: OFlags) -> Result<Arc<OwnedFd>> {
        let fd = openat(self.dir, self.name, flags, Mode::empty());
        fd.map(Arc::new).during("open", self.name)
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
        rustix::fs::ftruncate(file, size).during("ftruncate", b".")?;
    }
    Ok(written)
}

impl Policy {
    fn disk_mode(&self) -> u32 {
        self.records
            .as_ref()
            .map_or(0o755, |records| records.disk_mode())
    }

    /// From here on owners and types may be kept in xattrs: the root says so.
    fn begin_records(&mut self) -> Result<()> {
        if self.records.is_none() {
            let perm = Stat::of_fd(&self.root).during("stat", b".")?.perm();
            self.records = Some(Records::new(RecordForm::User, perm));
            self.record_root()?;
        }
        Ok(())
    }

    fn root_passes_acls(&self) -> Result<bool> {
        let xattrs = XattrPath::of_fd(Arc::clone(&self.root));
        let found = xattrs
            .get_opt(DEFAULT_ACL)
            .during("getxattr", DEFAULT_ACL)?;
        Ok(found.is_some())
    }

    fn record_root(&self) -> Result<()> {
        let stat = Stat::of_fd(&self.root).during("stat", b".")?;
        let object = UpperObject::new(Arc::clone(&self.root), self.records.clone());
        let mut record = Record::of(&stat);
        if self.ownership == Ownership::Recorded {
            // Of an archive that says nothing of its root, root would have unpacked it so.
            (record.uid, record.gid) = (0, 0);
        }
        match object.record(&record) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::io(
                "cannot record owners in xattrs (use a file system with user xattrs, or root): setxattr",
                errno,
            )),
        }
    }

    /// Gives what was just made its attributes.
    fn describe(&mut self, fd: Arc<OwnedFd>, entry: &Entry, kind: Kind, rdev: u64) -> Result<()> {
        let on_disk = Stat::of_fd(&fd).during("stat", b".")?;
        let recorded = self.ownership == Ownership::Recorded || on_disk.kind() != kind;
        let records = recorded.then(|| self.records.clone()).flatten();
        let object = UpperObject::new(fd, records);
        let record = Record {
            uid: entry.uid,
            gid: entry.gid,
            perm: entry.mode,
            kind: Some(kind),
            rdev,
        };
        if !recorded && (on_disk.uid, on_disk.gid) != (entry.uid, entry.gid) {
            self.chown(&object, entry)?;
        }
        if recorded {
            object
                .record(&record)
                .during("setxattr", b"override_stat")?;
        }
        if self.passes_acls && kind != Kind::Symlink {
            disinherit(&object)?;
        }
        for (name, value) in &entry.xattrs {
            self.passes_acls |= name == DEFAULT_ACL;
            self.set_xattr(&object, name, value)?;
        }
        if kind != Kind::Symlink {
            let mode = if recorded {
                self.disk_mode()
            } else {
                entry.mode
            };
            object.chmod_on_disk(mode).during("chmod", b".")?;
        }
        if kind != Kind::Dir {
            object
                .utimens(SetTime::Keep, SetTime::At(entry.mtime))
                .during("utimensat", b".")?;
        }
        Ok(())
    }

    fn chown(&self, object: &UpperObject, entry: &Entry) -> Result<()> {
        object
            .chown(Some(entry.uid), Some(entry.gid))
            .map_err(|errno| match errno {
                Errno::INVAL => Error::refused(format!(
                    "owner {}:{} is not mapped in this user namespace; map more ids (/etc/subuid, /etc/subgid)",
                    entry.uid, entry.gid
                )),
                errno => Error::io(format!("chown({}:{})", entry.uid, entry.gid), errno),
            })
    }

    /// Sets an xattr, under another name where the disk or our rights do not allow it as it is.
    fn set_xattr(&mut self, object: &UpperObject, name: &[u8], value: &[u8]) -> Result<()> {
        let stored = self.keeping.stored(name);
        let refusal = match object.set_xattr(&stored, value, XattrFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS)) => errno,
            Err(errno) => return Err(errno).during("setxattr", name),
        };
        let kept = Keeping::User { trusted: false }.stored(name);
        let set = match kept == stored {
            true => Err(refusal),
            false => object.set_xattr(&kept, value, XattrFlags::empty()),
        };
        if set.is_err() && self.left_out.len() < MOST_TOLD && self.left_out.insert(name.to_vec()) {
            log::warn!(
                "xattr {} cannot be stored here, and is left out: {refusal}",
                name.escape_ascii()
            );
        }
        Ok(())
    }
}

/// Takes away the ACLs that an object was given by the directory it was made in.
fn disinherit(object: &UpperObject) -> Result<()> {
    for acl in [ACCESS_ACL, DEFAULT_ACL] {
        match object.remove_xattr(acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno).during("removexattr", acl),
        }
    }
    Ok(())
}

impl Parents for Policy {
    fn made(&mut self, dir: &Arc<OwnedFd>, path: &[u8], hides: bool) -> Result<()> {
        if self.implied.len() >= MOST_IMPLIED {
            return Err(Error::refused(format!(
                "more than {MOST_IMPLIED} directories of the archive have no entry"
            )));
        }
        self.implied.insert(path.to_vec());
        let entry = Entry {
            path: Vec::new(),
            what: What::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        if hides {
            self.marks.opaque(dir)?;
        }
        self.describe(Arc::clone(dir), &entry, Kind::Dir, 0)
    }
}
