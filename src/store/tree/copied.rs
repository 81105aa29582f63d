//! Containers where FUSE is not available: a copy of the image's tree, which is changed directly.
//!
//! What was changed is found by comparing the copy with the image, as docker's driver of that name does: type, mode, owner,
//! size, modification time, target and xattrs. The differences are made on a union over the image, which leaves them
//! in an upper directory: from there on everything is as with the other driver.
//!
//! In a union nobody can give a file a name that begins with `.wh.`. In a copy anybody can; a layer would take it for a whiteout,
//! so changes with such names are refused. Their bytes count.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::copy::Copy;
use crate::archive::error::is_gone;
use crate::layer::dir::Name;
use crate::layer::mark::WH_PREFIX;
use crate::layer::stat::Kind;
use crate::layer::{FdCache, LowerDir};
use crate::store::base::{Area, Context, Result, StoreError, measure};
use crate::store::tree::record_form;
use crate::union::{self, Attr, Config, Entry, NodeId, Union};

/// Descriptors that stay open while a tree is walked.
const DESCRIPTORS: usize = 64;

/// Gathers the changes of a copied tree in an upper directory of the area. Gives the union of the layers and that.
///
/// # Errors
/// The trees cannot be read, a name in the copy means something else in a layer, or the disk is full.
pub(crate) fn changes_as_upper(lowers: &[PathBuf], tree: &Path, area: &Area) -> Result<Config> {
    if let Some(path) = whiteout_names(tree)?.first() {
        return Err(StoreError::unsupported(
            format!(
                "the container's '/{}' has a name that is a whiteout in a layer",
                path.display()
            ),
            "rename it: names that begin with '.wh.' can be in no layer",
        ));
    }
    let (upper, work) = (area.join("upper"), area.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir(dir).context("mkdir", dir)?;
    }
    let config = Config {
        lowers: lowers.to_vec(),
        upper: Some(upper),
        work: Some(work),
        volatile: true,
        xattr_permissions: record_form(),
        ..Config::default()
    };
    let copied = Union::open(&Config {
        lowers: vec![tree.to_owned()],
        ..Config::default()
    })?;
    let changed = Union::open(&config)?;
    let mut compare = Compare {
        now: &copied,
        base: &changed,
        copy: Copy::of_living(&copied, &changed),
    };
    compare
        .trees()
        .map_err(|error| cannot_compare(tree, error))?;
    Ok(Config {
        work: None,
        read_only: true,
        ..config
    })
}

fn cannot_compare(tree: &Path, error: union::Error) -> StoreError {
    StoreError::failed(
        format!("cannot compare '{}' with its image", tree.display()),
        error,
        "make room on the disk of the store, or run 'unionmount system check'",
    )
}

/// The bytes of what a copied tree has besides its image: the sizes of files and symlinks that are new or different, each inode
/// once, as they would be in an upper directory.
///
/// # Errors
/// The trees cannot be read.
pub(crate) fn changed_size(lowers: &[PathBuf], tree: &Path) -> Result<u64> {
    let open = |lowers: &[PathBuf]| {
        Union::open(&Config {
            lowers: lowers.to_vec(),
            ..Config::default()
        })
    };
    let (now, base) = (open(&[tree.to_owned()])?, open(lowers)?);
    let mut tally = Tally {
        now: &now,
        base: &base,
        seen: HashSet::new(),
        size: 0,
    };
    tally.trees().map_err(|error| cannot_compare(tree, error))?;
    let mut size = tally.size;
    for path in whiteout_names(tree)? {
        size = size.saturating_add(measure(&tree.join(path))?.size);
    }
    Ok(size)
}

/// Adds up what differs.
struct Tally<'a> {
    now: &'a Union,
    base: &'a Union,
    /// Inodes with several names that were counted.
    seen: HashSet<u64>,
    size: u64,
}

/// A directory of the copy that is being walked, and what the image has in its place. Both are counted, but the roots.
struct Level {
    now: NodeId,
    base: Option<NodeId>,
    /// How it is to look, unless it looks so already.
    dress: Option<Attr>,
    /// What was not looked at yet.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Tally<'_> {
    fn trees(&mut self) -> union::Result<()> {
        let mut levels = vec![Level {
            now: NodeId::ROOT,
            base: Some(NodeId::ROOT),
            dress: None,
            names: living_names(self.now, NodeId::ROOT)?.into_iter(),
        }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                if let Some(left) = levels.pop().filter(|_| !levels.is_empty()) {
                    self.forget(Some(left.now), left.base);
                }
                continue;
            };
            let (now, base) = (level.now, level.base);
            match self.entry(now, base, &name) {
                // Somebody works in the copy.
                Err(error) if is_gone(error.errno()) => {}
                below => levels.extend(below?),
            }
        }
        Ok(())
    }

    fn forget(&self, now: Option<NodeId>, base: Option<NodeId>) {
        for (union, node) in [(self.now, now), (self.base, base)] {
            if let Some(node) = node {
                union.forget(node, 1);
            }
        }
    }

    /// Counts what has a name; gives a directory to go on in.
    fn entry(
        &mut self,
        now: NodeId,
        base: Option<NodeId>,
        name: &[u8],
    ) -> union::Result<Option<Level>> {
        let Some(there) = self.now.lookup(now, name)? else {
            return Ok(None);
        };
        let before = match base {
            Some(base) => self.base.lookup(base, name)?,
            None => None,
        };
        if there.attr.kind() == Kind::Dir {
            let (dir, other): (Option<Entry>, Option<Entry>) = match before {
                Some(before) if before.attr.kind() == Kind::Dir => (Some(before), None),
                other => (None, other),
            };
            self.forget(None, other.map(|other| other.node));
            return Ok(Some(Level {
                now: there.node,
                base: dir.map(|dir| dir.node),
                dress: None,
                names: living_names(self.now, there.node)?.into_iter(),
            }));
        }
        let same = match &before {
            Some(before) => alike(self.now, &there, self.base, before),
            None => Ok(false),
        };
        self.forget(Some(there.node), before.map(|before| before.node));
        if !same? && (there.attr.nlink <= 1 || self.seen.insert(there.attr.ino)) {
            self.size = self.size.saturating_add(there.attr.size);
        }
        Ok(None)
    }
}

/// The paths in a tree, from its root, whose names would be whiteouts in a layer; not what is below them.
fn whiteout_names(tree: &Path) -> Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, tree, flags, Mode::empty()).context("open", tree)?;
    let root = LowerDir::root(1, root, &FdCache::new(DESCRIPTORS));
    let mut found = Vec::new();
    let mut path = Vec::new();
    let below = whiteout_names_in(&root, &path, &mut found).context("read", tree)?;
    let mut levels = vec![(root, path.len(), below.into_iter())];
    while let Some((dir, end, names)) = levels.last_mut() {
        path.truncate(*end);
        let Some(name) = names.next() else {
            levels.pop();
            continue;
        };
        path.extend_from_slice(&name);
        path.push(b'/');
        let below = dir.stat_on_disk(&name).and_then(|stat| {
            if stat.kind() != Kind::Dir {
                return Ok(None);
            }
            let inner = dir.child(&name);
            let below = whiteout_names_in(&inner, &path, &mut found)?;
            Ok(Some((inner, path.len(), below.into_iter())))
        });
        match below {
            // Somebody works in the copy.
            Err(errno) if is_gone(errno) => {}
            below => levels.extend(below.context("read", tree)?),
        }
    }
    found.sort();
    Ok(found)
}

/// Those in one directory, whose path is empty or ends with a slash; gives the names of what may be directories in it.
fn whiteout_names_in(
    dir: &LowerDir,
    path: &[u8],
    found: &mut Vec<PathBuf>,
) -> rustix::io::Result<Vec<Name>> {
    let mut below = Vec::new();
    dir.for_each(|name, kind, _| {
        if name.starts_with(WH_PREFIX) {
            found.push(PathBuf::from(OsStr::from_bytes(&[path, name].concat())));
        } else if kind.is_none_or(|kind| kind == Kind::Dir) {
            below.push(Name::from(name));
        }
    })?;
    Ok(below)
}

struct Compare<'a> {
    now: &'a Union,
    base: &'a Union,
    copy: Copy<'a>,
}

impl Compare<'_> {
    /// Makes the union like the copy, its root included.
    fn trees(&mut self) -> union::Result<()> {
        let attr = self.now.getattr(NodeId::ROOT)?;
        let root = |union: &Union| -> union::Result<Entry> {
            Ok(Entry {
                node: NodeId::ROOT,
                attr: union.getattr(NodeId::ROOT)?,
            })
        };
        let same = alike(self.now, &root(self.now)?, self.base, &root(self.base)?)?;
        let first = self.level(NodeId::ROOT, NodeId::ROOT, (!same).then_some(attr))?;
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            let (now, base) = (level.now, level.base.unwrap_or(NodeId::ROOT));
            if let Some(name) = level.names.next() {
                levels.extend(self.entry(now, base, &name)?);
                continue;
            }
            if let Some(Level {
                dress: Some(attr), ..
            }) = levels.pop()
            {
                match self.copy.dress(now, base, &attr) {
                    Err(error) if is_gone(error.errno()) => {}
                    dressed => dressed?,
                }
            }
            if !levels.is_empty() {
                self.now.forget(now, 1);
                self.base.forget(base, 1);
            }
        }
        Ok(())
    }

    /// Begins with two directories: what only the image has goes.
    fn level(&self, now: NodeId, base: NodeId, dress: Option<Attr>) -> union::Result<Level> {
        let names: BTreeSet<Vec<u8>> = living_names(self.now, now)?.into_iter().collect();
        for name in names_only_in(self.base, base, &names)? {
            if let Some(entry) = self.base.lookup(base, &name)? {
                self.base.forget(entry.node, 1);
                remove(self.base, base, &name, entry.attr.kind())?;
            }
        }
        Ok(Level {
            now,
            base: Some(base),
            dress,
            names: names.into_iter().collect::<Vec<_>>().into_iter(),
        })
    }

    /// One name of the copy; gives two directories to go on in.
    fn entry(&mut self, now: NodeId, base: NodeId, name: &[u8]) -> union::Result<Option<Level>> {
        let before = self.base.lookup(base, name)?;
        let there = match self.now.lookup(now, name) {
            Err(error) if is_gone(error.errno()) => None,
            found => found?,
        };
        let same = match (&there, &before) {
            (Some(there), Some(before)) => match alike(self.now, there, self.base, before) {
                Err(error) if is_gone(error.errno()) => Ok(false),
                same => same,
            },
            _ => Ok(false),
        };
        let dirs = match (&there, &before) {
            (Some(there), Some(before))
                if there.attr.kind() == Kind::Dir && before.attr.kind() == Kind::Dir =>
            {
                Some((there.node, before.node, there.attr))
            }
            _ => None,
        };
        if let Some((now, base, attr)) = dirs {
            return self.level(now, base, (!same?).then_some(attr)).map(Some);
        }
        for (union, entry) in [(self.now, &there), (self.base, &before)] {
            if let Some(entry) = entry {
                union.forget(entry.node, 1);
            }
        }
        if same? {
            return Ok(None);
        }
        if let Some(before) = before {
            remove(self.base, base, name, before.attr.kind())?;
        }
        if there.is_some() {
            self.copy.entry(now, name, base)?;
        }
        Ok(None)
    }
}

/// Whether an entry of the copy is as in the image.
fn alike(copied: &Union, now: &Entry, image: &Union, before: &Entry) -> union::Result<bool> {
    let (one, other) = (&now.attr, &before.attr);
    let dir = one.kind() == Kind::Dir;
    let alike = (one.mode, one.uid, one.gid, one.mtime, one.rdev)
        == (other.mode, other.uid, other.gid, other.mtime, other.rdev)
        && (dir || one.size == other.size);
    if !alike {
        return Ok(false);
    }
    if one.kind() == Kind::Symlink && copied.readlink(now.node)? != image.readlink(before.node)? {
        return Ok(false);
    }
    Ok(xattrs(copied, now.node)? == xattrs(image, before.node)?)
}

fn names(union: &Union, dir: NodeId) -> union::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    union.readdir(dir, 0, |entry| {
        if !matches!(&*entry.name, b"." | b"..") {
            names.push(entry.name.to_vec());
        }
        true
    })?;
    Ok(names)
}

/// The same of a directory that others work in: when it is gone there are none.
fn living_names(union: &Union, dir: NodeId) -> union::Result<Vec<Vec<u8>>> {
    match names(union, dir) {
        Err(error) if is_gone(error.errno()) => Ok(Vec::new()),
        names => names,
    }
}

fn names_only_in(
    union: &Union,
    dir: NodeId,
    others: &BTreeSet<Vec<u8>>,
) -> union::Result<Vec<Vec<u8>>> {
    let mut names = names(union, dir)?;
    names.retain(|name| !others.contains(name));
    Ok(names)
}

/// Removes an entry of a union, with everything in it.
fn remove(union: &Union, parent: NodeId, name: &[u8], kind: Kind) -> union::Result<()> {
    struct Emptying {
        parent: NodeId,
        name: Vec<u8>,
        node: NodeId,
        left: std::vec::IntoIter<Vec<u8>>,
    }
    let begin = |parent: NodeId, name: &[u8], kind: Kind| -> union::Result<Option<Emptying>> {
        if kind != Kind::Dir {
            return union.unlink(parent, name).map(|()| None);
        }
        let Some(dir) = union.lookup(parent, name)? else {
            return Ok(None);
        };
        Ok(Some(Emptying {
            parent,
            name: name.to_vec(),
            node: dir.node,
            left: names(union, dir.node)?.into_iter(),
        }))
    };
    let mut levels = Vec::new();
    levels.extend(begin(parent, name, kind)?);
    while let Some(level) = levels.last_mut() {
        let dir = level.node;
        if let Some(inner) = level.left.next() {
            if let Some(entry) = union.lookup(dir, &inner)? {
                union.forget(entry.node, 1);
                levels.extend(begin(dir, &inner, entry.attr.kind())?);
            }
        } else if let Some(empty) = levels.pop() {
            union.forget(empty.node, 1);
            union.rmdir(empty.parent, &empty.name)?;
        }
    }
    Ok(())
}

fn xattrs(union: &Union, node: NodeId) -> union::Result<BTreeSet<(Vec<u8>, Vec<u8>)>> {
    let mut found = BTreeSet::new();
    for name in union
        .listxattr(node)?
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match union.getxattr(node, name) {
            // Somebody works in the copy.
            Err(error) if error.errno() == Errno::NODATA => {}
            value => {
                found.insert((name.to_vec(), value?));
            }
        }
    }
    Ok(found)
}
