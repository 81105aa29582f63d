//! Containers where FUSE is not available: a copy of the image's tree, which is changed directly.
//!
//! What was changed is found by comparing the copy with the image, as docker's driver of that name does: type, mode, owner,
//! size, modification time, target and xattrs. The differences are made on a union over the image, which leaves them
//! in an upper directory: from there on everything is as with the other driver.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::area::Area;
use super::copy::Copy;
use super::error::{Doing, Result, StoreError};
use super::mount::record_form;
use crate::layer::stat::Kind;
use crate::union::{self, Config, Entry, NodeId, Union};

/// Gathers the changes of a copied tree in an upper directory of the area. Gives the union of the layers and that.
///
/// # Errors
/// The trees cannot be read, or the disk is full.
pub fn changes_as_upper(lowers: &[PathBuf], tree: &Path, area: &Area) -> Result<Config> {
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
    compare.dir(NodeId::ROOT, NodeId::ROOT).map_err(|error| {
        StoreError::new(
            format!(
                "cannot compare '{}' with its image: {error}",
                tree.display()
            ),
            "make room on the disk of the store, or run 'unionmount system check'",
        )
    })?;
    Ok(Config {
        work: None,
        read_only: true,
        ..config
    })
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
                let same = self.same(now, before)?;
                self.dir(now.node, before.node)?;
                if same {
                    return Ok(());
                }
                self.copy.dress(now.node, before.node, &now.attr)
            }
            Some(before) if self.same(now, before)? => Ok(()),
            Some(before) => {
                remove(self.base, parent, name, before.attr.kind())?;
                self.copy.entry(now, parent, name)
            }
            None => self.copy.entry(now, parent, name),
        }
    }

    fn same(&self, now: &Entry, before: &Entry) -> union::Result<bool> {
        let (one, other) = (&now.attr, &before.attr);
        let dir = one.kind() == Kind::Dir;
        let alike = (one.mode, one.uid, one.gid, one.mtime, one.rdev)
            == (other.mode, other.uid, other.gid, other.mtime, other.rdev)
            && (dir || one.size == other.size);
        if !alike {
            return Ok(false);
        }
        if one.kind() == Kind::Symlink
            && self.now.readlink(now.node)? != self.base.readlink(before.node)?
        {
            return Ok(false);
        }
        Ok(xattrs(self.now, now.node)? == xattrs(self.base, before.node)?)
    }
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
