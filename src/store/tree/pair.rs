//! Two trees walked together, each seen as a union: a copy, and the image that it was made from.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::listing::names;
use super::metadata::Metadata;
use crate::archive::error::is_gone;
use crate::layer::stat::Kind;
use crate::union::{self, Attr, EntryRef, NodeId, NodeRef, Union};

/// The trees.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    /// The copy, which others may change meanwhile.
    pub(super) now: &'a Union,
    /// What it is compared with.
    pub(super) base: &'a Union,
}

/// A directory of the copy, and the one that the image has in its place.
#[derive(Clone, Copy)]
pub(super) struct Dirs {
    pub(super) now: NodeId,
    pub(super) base: Option<NodeId>,
}

/// What the copy has of a name.
pub(super) enum Now<'a> {
    Nothing,
    /// Something that was removed, or replaced, while it was compared.
    Gone,
    There(&'a Attr),
}

/// What is done with the differences.
pub(super) trait Visitor {
    /// Directories are compared as well, and one that only the copy has is a single difference;
    /// otherwise it is walked.
    const DIRECTORIES: bool;

    /// A directory begins, with what the copy has in it.
    fn enter(&mut self, _dirs: Dirs, _names: &BTreeSet<Vec<u8>>) -> union::Result<()> {
        Ok(())
    }

    /// A name is not the same in both. `base` is what the image has of it.
    fn different(
        &mut self,
        dirs: Dirs,
        name: &[u8],
        now: Now<'_>,
        base: Option<&Attr>,
    ) -> union::Result<()>;

    /// A directory ends; `changed` is the copy's metadata when the image's is another.
    fn leave(&mut self, _dirs: Dirs, _changed: Option<&Attr>) -> union::Result<()> {
        Ok(())
    }
}

/// A directory that is being walked.
struct PairLevel<'a> {
    now: NodeRef<'a>,
    base: Option<NodeRef<'a>>,
    changed: Option<Attr>,
    /// What was not looked at yet.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl PairLevel<'_> {
    fn dirs(&self) -> Dirs {
        Dirs {
            now: self.now.id(),
            base: self.base.as_ref().map(NodeRef::id),
        }
    }
}

impl<'a> Pair<'a> {
    /// Visits all differences, the root's included.
    pub(super) fn walk<V: Visitor>(&self, visitor: &mut V) -> union::Result<()> {
        let root = |union: &'a Union| -> union::Result<EntryRef<'a>> {
            Ok(EntryRef {
                node: union.root(),
                attr: union.getattr(NodeId::ROOT)?,
            })
        };
        let first = self.level(visitor, root(self.now)?, Some(root(self.base)?))?;
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            let dirs = level.dirs();
            if let Some(name) = level.names.next() {
                levels.extend(self.entry(visitor, dirs, &name)?);
                continue;
            }
            visitor.leave(dirs, level.changed.as_ref())?;
            levels.pop();
        }
        Ok(())
    }

    fn level<V: Visitor>(
        &self,
        visitor: &mut V,
        now: EntryRef<'a>,
        base: Option<EntryRef<'a>>,
    ) -> union::Result<PairLevel<'a>> {
        let changed = match &base {
            Some(base) if V::DIRECTORIES => self.is_same(&now, base)? != Some(true),
            _ => false,
        };
        let names: BTreeSet<Vec<u8>> = match names(self.now, now.node.id()) {
            // Others work in the copy.
            Err(error) if is_gone(error.errno()) => BTreeSet::new(),
            names => names?.iter().map(|name| name.to_vec()).collect(),
        };
        let mut level = PairLevel {
            now: now.node,
            base: base.map(|base| base.node),
            changed: changed.then_some(now.attr),
            names: Vec::new().into_iter(),
        };
        visitor.enter(level.dirs(), &names)?;
        level.names = names.into_iter().collect::<Vec<_>>().into_iter();
        Ok(level)
    }

    /// One name of the copy; returns two directories to go on in.
    fn entry<V: Visitor>(
        &self,
        visitor: &mut V,
        dirs: Dirs,
        name: &[u8],
    ) -> union::Result<Option<PairLevel<'a>>> {
        let base = match dirs.base {
            Some(dir) => self.base.find(dir, name)?,
            None => None,
        };
        let now = match self.now.find(dirs.now, name) {
            Err(error) if is_gone(error.errno()) => None,
            found => found?,
        };
        let is_dir = |entry: &EntryRef<'_>| entry.attr.kind() == Kind::Dir;
        let is_base_dir = base.as_ref().is_some_and(is_dir);
        let now = match now {
            Some(now) if is_dir(&now) && (is_base_dir || !V::DIRECTORIES) => {
                return self.level(visitor, now, base.filter(is_dir)).map(Some);
            }
            now => now,
        };
        let same = match (&now, &base) {
            (Some(now), Some(base)) => self.is_same(now, base),
            _ => Ok(Some(false)),
        }?;
        // What the visitor removes is not held on to.
        let attr = |entry: EntryRef<'_>| entry.attr;
        let (now, base) = (now.map(attr), base.map(attr));
        let shown = match (same, &now) {
            (Some(true), _) => return Ok(None),
            (_, None) => Now::Nothing,
            (None, Some(_)) => Now::Gone,
            (Some(false), Some(now)) => Now::There(now),
        };
        visitor.different(dirs, name, shown, base.as_ref())?;
        Ok(None)
    }

    /// Whether an entry of the copy is as in the image; `None` when it is gone.
    fn is_same(&self, now: &EntryRef<'_>, base: &EntryRef<'_>) -> union::Result<Option<bool>> {
        match self.compare(now, base) {
            Err(error) if is_gone(error.errno()) => Ok(None),
            same => same.map(Some),
        }
    }

    fn compare(&self, now: &EntryRef<'_>, base: &EntryRef<'_>) -> union::Result<bool> {
        if Metadata::from(&now.attr) != Metadata::from(&base.attr) {
            return Ok(false);
        }
        let (in_now, in_base) = (now.node.id(), base.node.id());
        if now.attr.kind() == Kind::Symlink
            && self.now.readlink(in_now)? != self.base.readlink(in_base)?
        {
            return Ok(false);
        }
        Ok(xattrs(self.now, in_now)? == xattrs(self.base, in_base)?)
    }
}

fn xattrs(union: &Union, node: NodeId) -> union::Result<BTreeSet<(Vec<u8>, Vec<u8>)>> {
    let mut found = BTreeSet::new();
    for name in union
        .listxattr(node)?
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        match union.getxattr(node, name) {
            // Others work in the copy.
            Err(error) if error.errno() == Errno::NODATA => {}
            value => {
                found.insert((name.to_vec(), value?));
            }
        }
    }
    Ok(found)
}
