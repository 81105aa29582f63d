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

use super::area::Area;
use super::copy::Copy;
use super::error::{Doing, Result, StoreError};
use super::mount::record_form;
use super::size::measure;
use crate::layer::dir::Name;
use crate::layer::mark::WH_PREFIX;
use crate::layer::stat::Kind;
use crate::layer::{FdCache, LowerDir};
use crate::union::{self, Config, Entry, NodeId, Union};

/// Descriptors that stay open while a tree is walked.
const DESCRIPTORS: usize = 64;

/// Gathers the changes of a copied tree in an upper directory of the area. Gives the union of the layers and that.
///
/// # Errors
/// The trees cannot be read, a name in the copy means something else in a layer, or the disk is full.
pub fn changes_as_upper(lowers: &[PathBuf], tree: &Path, area: &Area) -> Result<Config> {
    if let Some(path) = whiteout_names(tree)?.first() {
        return Err(StoreError::new(
            format!(
                "the container's '/{}' has a name that is a whiteout in a layer",
                path.display()
            ),
            "rename it: names that begin with '.wh.' can be in no layer",
        ));
    }
    let (upper, work) = (area.join("upper"), area.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir(dir).doing("mkdir", dir)?;
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
        copy: Copy::new(&copied, &changed),
    };
    compare
        .dir(NodeId::ROOT, NodeId::ROOT)
        .map_err(|error| cannot_compare(tree, &error))?;
    Ok(Config {
        work: None,
        read_only: true,
        ..config
    })
}

fn cannot_compare(tree: &Path, error: &union::Error) -> StoreError {
    StoreError::new(
        format!(
            "cannot compare '{}' with its image: {error}",
            tree.display()
        ),
        "make room on the disk of the store, or run 'unionmount system check'",
    )
}

/// The bytes of what a copied tree has besides its image: the sizes of files and symlinks that are new or different, each inode
/// once, as they would be in an upper directory.
///
/// # Errors
/// The trees cannot be read.
pub fn changed_size(lowers: &[PathBuf], tree: &Path) -> Result<u64> {
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
    tally
        .dir(NodeId::ROOT, Some(NodeId::ROOT))
        .map_err(|error| cannot_compare(tree, &error))?;
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

impl Tally<'_> {
    fn dir(&mut self, now: NodeId, base: Option<NodeId>) -> union::Result<()> {
        for name in names(self.now, now)? {
            let Some(there) = self.now.lookup(now, &name)? else {
                continue;
            };
            let before = match base {
                Some(base) => self.base.lookup(base, &name)?,
                None => None,
            };
            let counted = self.entry(&there, before.as_ref());
            self.now.forget(there.node, 1);
            if let Some(before) = before {
                self.base.forget(before.node, 1);
            }
            match counted {
                // Somebody works in the copy.
                Err(error) if error.errno() == Errno::NOENT => {}
                counted => counted?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, now: &Entry, before: Option<&Entry>) -> union::Result<()> {
        if now.attr.kind() == Kind::Dir {
            let before = before.filter(|before| before.attr.kind() == Kind::Dir);
            return self.dir(now.node, before.map(|before| before.node));
        }
        if let Some(before) = before
            && alike(self.now, now, self.base, before)?
        {
            return Ok(());
        }
        if now.attr.nlink <= 1 || self.seen.insert(now.attr.ino) {
            self.size = self.size.saturating_add(now.attr.size);
        }
        Ok(())
    }
}

/// The paths in a tree, from its root, whose names would be whiteouts in a layer; not what is below them.
fn whiteout_names(tree: &Path) -> Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, tree, flags, Mode::empty()).doing("open", tree)?;
    let root = LowerDir::root(1, root, &FdCache::new(DESCRIPTORS));
    let mut found = Vec::new();
    whiteout_names_in(&root, Path::new(""), &mut found).doing("read", tree)?;
    found.sort();
    Ok(found)
}

fn whiteout_names_in(
    dir: &LowerDir,
    path: &Path,
    found: &mut Vec<PathBuf>,
) -> rustix::io::Result<()> {
    let mut below = Vec::new();
    dir.for_each(|name, kind, _| {
        if name.starts_with(WH_PREFIX) {
            found.push(path.join(OsStr::from_bytes(name)));
        } else if kind.is_none_or(|kind| kind == Kind::Dir) {
            below.push(Name::from(name));
        }
    })?;
    for name in below {
        let read = match dir.stat_on_disk(&name) {
            Ok(stat) if stat.kind() == Kind::Dir => whiteout_names_in(
                &dir.child(&name),
                &path.join(OsStr::from_bytes(&name)),
                found,
            ),
            other => other.map(|_| ()),
        };
        match read {
            Err(Errno::NOENT) => {}
            read => read?,
        }
    }
    Ok(())
}

struct Compare<'a> {
    now: &'a Union,
    base: &'a Union,
    copy: Copy<'a>,
}

impl Compare<'_> {
    /// Makes a directory of the union like that of the copy.
    fn dir(&mut self, now: NodeId, base: NodeId) -> union::Result<()> {
        let names: BTreeSet<Vec<u8>> = names(self.now, now)?.into_iter().collect();
        for name in names_only_in(self.base, base, &names)? {
            if let Some(entry) = self.base.lookup(base, &name)? {
                self.base.forget(entry.node, 1);
                remove(self.base, base, &name, entry.attr.kind())?;
            }
        }
        for name in names {
            let Some(there) = self.now.lookup(now, &name)? else {
                continue;
            };
            let before = self.base.lookup(base, &name)?;
            self.entry(&there, before.as_ref(), base, &name)?;
            self.now.forget(there.node, 1);
            if let Some(before) = before {
                self.base.forget(before.node, 1);
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        now: &Entry,
        before: Option<&Entry>,
        parent: NodeId,
        name: &[u8],
    ) -> union::Result<()> {
        let is_dir = now.attr.kind() == Kind::Dir;
        match before {
            Some(before) if is_dir && before.attr.kind() == Kind::Dir => {
                let same = alike(self.now, now, self.base, before)?;
                self.dir(now.node, before.node)?;
                if same {
                    return Ok(());
                }
                self.copy.dress(now.node, before.node, &now.attr)
            }
            Some(before) if alike(self.now, now, self.base, before)? => Ok(()),
            Some(before) => {
                remove(self.base, parent, name, before.attr.kind())?;
                self.copy.entry(now, parent, name)
            }
            None => self.copy.entry(now, parent, name),
        }
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

fn names_only_in(
    union: &Union,
    dir: NodeId,
    others: &BTreeSet<Vec<u8>>,
) -> union::Result<Vec<Vec<u8>>> {
    let mut names = names(union, dir)?;
    names.retain(|name| !others.contains(name));
    Ok(names)
}

fn remove(union: &Union, parent: NodeId, name: &[u8], kind: Kind) -> union::Result<()> {
    if kind != Kind::Dir {
        return union.unlink(parent, name);
    }
    if let Some(dir) = union.lookup(parent, name)? {
        for inner in names(union, dir.node)? {
            if let Some(entry) = union.lookup(dir.node, &inner)? {
                union.forget(entry.node, 1);
                remove(union, dir.node, &inner, entry.attr.kind())?;
            }
        }
        union.forget(dir.node, 1);
    }
    union.rmdir(parent, name)
}

fn xattrs(union: &Union, node: NodeId) -> union::Result<BTreeSet<(Vec<u8>, Vec<u8>)>> {
    let mut found = BTreeSet::new();
    for name in union
        .listxattr(node)?
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        found.insert((name.to_vec(), union.getxattr(node, name)?));
    }
    Ok(found)
}
