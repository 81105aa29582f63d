//! Two trees walked together, each seen as a union: a copy, and the image that it was made from.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::listing::names;
use super::metadata::Metadata;
use crate::archive::error::is_gone;
use crate::layer::stat::Kind;
use crate::union::{self, Attr, Entry, NodeId, Union};

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

/// A directory that is being walked. Both are counted, but the roots.
struct PairLevel {
    dirs: Dirs,
    changed: Option<Attr>,
    /// What was not looked at yet.
    names: std::vec::IntoIter<Vec<u8>>,
}

impl Pair<'_> {
    /// Visits all differences, the root's included.
    pub(super) fn walk<V: Visitor>(&self, visitor: &mut V) -> union::Result<()> {
        let root = |union: &Union| -> union::Result<Entry> {
            Ok(Entry {
                node: NodeId::ROOT,
                attr: union.getattr(NodeId::ROOT)?,
            })
        };
        let first = self.level(visitor, &root(self.now)?, Some(&root(self.base)?))?;
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            let dirs = level.dirs;
            if let Some(name) = level.names.next() {
                levels.extend(self.entry(visitor, dirs, &name)?);
                continue;
            }
            let changed = levels.pop().and_then(|level| level.changed);
            visitor.leave(dirs, changed.as_ref())?;
            if !levels.is_empty() {
                self.forget(Some(dirs.now), dirs.base);
            }
        }
        Ok(())
    }

    fn level<V: Visitor>(
        &self,
        visitor: &mut V,
        now: &Entry,
        base: Option<&Entry>,
    ) -> union::Result<PairLevel> {
        let changed = match base {
            Some(base) if V::DIRECTORIES => self.is_same(now, base)? != Some(true),
            _ => false,
        };
        let dirs = Dirs {
            now: now.node,
            base: base.map(|base| base.node),
        };
        let names: BTreeSet<Vec<u8>> = match names(self.now, now.node) {
            // Others work in the copy.
            Err(error) if is_gone(error.errno()) => BTreeSet::new(),
            names => names?.iter().map(|name| name.to_vec()).collect(),
        };
        visitor.enter(dirs, &names)?;
        Ok(PairLevel {
            dirs,
            changed: changed.then_some(now.attr),
            names: names.into_iter().collect::<Vec<_>>().into_iter(),
        })
    }

    /// One name of the copy; returns two directories to go on in.
    fn entry<V: Visitor>(
        &self,
        visitor: &mut V,
        dirs: Dirs,
        name: &[u8],
    ) -> union::Result<Option<PairLevel>> {
        let base = match dirs.base {
            Some(dir) => self.base.lookup(dir, name)?,
            None => None,
        };
        let now = match self.now.lookup(dirs.now, name) {
            Err(error) if is_gone(error.errno()) => None,
            found => found?,
        };
        let base_dir = base.as_ref().filter(|base| base.attr.kind() == Kind::Dir);
        if let Some(now) = now.as_ref().filter(|now| now.attr.kind() == Kind::Dir)
            && (base_dir.is_some() || !V::DIRECTORIES)
        {
            if base_dir.is_none() {
                self.forget(None, base.as_ref().map(|base| base.node));
            }
            return self.level(visitor, now, base_dir).map(Some);
        }
        let same = match (&now, &base) {
            (Some(now), Some(base)) => self.is_same(now, base),
            _ => Ok(Some(false)),
        };
        let node = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.node);
        self.forget(node(&now), node(&base));
        let shown = match (same?, &now) {
            (Some(true), _) => return Ok(None),
            (_, None) => Now::Nothing,
            (None, Some(_)) => Now::Gone,
            (Some(false), Some(now)) => Now::There(&now.attr),
        };
        visitor.different(dirs, name, shown, base.as_ref().map(|base| &base.attr))?;
        Ok(None)
    }

    /// Whether an entry of the copy is as in the image; `None` when it is gone.
    fn is_same(&self, now: &Entry, base: &Entry) -> union::Result<Option<bool>> {
        match self.compare(now, base) {
            Err(error) if is_gone(error.errno()) => Ok(None),
            same => same.map(Some),
        }
    }

    fn compare(&self, now: &Entry, base: &Entry) -> union::Result<bool> {
        if Metadata::from(&now.attr) != Metadata::from(&base.attr) {
            return Ok(false);
        }
        if now.attr.kind() == Kind::Symlink
            && self.now.readlink(now.node)? != self.base.readlink(base.node)?
        {
            return Ok(false);
        }
        Ok(xattrs(self.now, now.node)? == xattrs(self.base, base.node)?)
    }

    fn forget(&self, now: Option<NodeId>, base: Option<NodeId>) {
        for (union, node) in [(self.now, now), (self.base, base)] {
            if let Some(node) = node {
                union.forget(node, 1);
            }
        }
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
