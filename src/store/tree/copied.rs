//! Containers where FUSE is not available: a copy of the image's tree, which is changed directly.
//!
//! What was changed is found by comparing the copy with the image, as docker's driver of that name
//! does: type, mode, owner, size, modification time, target and xattrs. The differences are made on
//! a union over the image, which leaves them in an upper directory: from there on everything is as
//! with the other driver.
//!
//! In a union no file can get a name that begins with `.wh.`. In a copy it can; in a layer it would
//! be a whiteout, so changes with such names are refused. Their bytes count.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::copy::Copy;
use super::listing::names;
use super::pair::{Dirs, Now, Pair, Visitor};
use super::record_form;
use super::whiteout_names::whiteout_names;
use crate::archive::error::is_gone;
use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::store::base::{Area, Context, Result, StoreError, measure};
use crate::union::{self, Attr, Config, NodeId, NodeRef, Union};

/// Gathers the changes of a copied tree in an upper directory of the area. Returns the union of the
/// layers and that.
///
/// # Errors
/// The trees cannot be read, a name in the copy means something else in a layer, or the disk is
/// full.
pub(in crate::store) fn changes_as_upper(
    lowers: &[PathBuf],
    tree: &Path,
    area: &Area,
) -> Result<Config> {
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
    let pair = Pair {
        now: &copied,
        base: &changed,
    };
    let mut apply = Apply {
        base: &changed,
        copy: Copy::of_living(&copied, &changed),
    };
    pair.walk(&mut apply)
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

/// The bytes of what a copied tree has besides its image: the sizes of files and symlinks that are
/// new or different, each inode once, as they would be in an upper directory.
///
/// # Errors
/// The trees cannot be read.
pub(in crate::store) fn changed_size(lowers: &[PathBuf], tree: &Path) -> Result<u64> {
    let open = |lowers: &[PathBuf]| {
        Union::open(&Config {
            lowers: lowers.to_vec(),
            ..Config::default()
        })
    };
    let (now, base) = (open(&[tree.to_owned()])?, open(lowers)?);
    let pair = Pair {
        now: &now,
        base: &base,
    };
    let mut tally = Tally::default();
    pair.walk(&mut tally)
        .map_err(|error| cannot_compare(tree, error))?;
    let mut size = tally.size;
    for path in whiteout_names(tree)? {
        size = size.saturating_add(measure(&tree.join(path))?.size);
    }
    Ok(size)
}

/// Adds up the sizes of what differs.
#[derive(Default)]
struct Tally {
    /// Inodes with several names that were counted.
    seen: HashSet<u64>,
    size: u64,
}

impl Visitor for Tally {
    const DIRECTORIES: bool = false;

    fn different(
        &mut self,
        _dirs: Dirs,
        _name: &[u8],
        now: Now<'_>,
        _base: Option<&Attr>,
    ) -> union::Result<()> {
        if let Now::There(attr) = now
            && (attr.nlink <= 1 || self.seen.insert(attr.ino))
        {
            self.size = self.size.saturating_add(attr.size);
        }
        Ok(())
    }
}

/// Makes the image's union like the copy.
struct Apply<'a> {
    base: &'a Union,
    copy: Copy<'a>,
}

impl Visitor for Apply<'_> {
    const DIRECTORIES: bool = true;

    /// Removes what only the image has.
    fn enter(&mut self, dirs: Dirs, kept: &BTreeSet<Vec<u8>>) -> union::Result<()> {
        let Some(dir) = dirs.base else {
            return Ok(());
        };
        for name in names(self.base, dir)? {
            if kept.contains(&*name) {
                continue;
            }
            let found = self.base.find(dir, &name)?;
            if let Some(kind) = found.map(|entry| entry.attr.kind()) {
                remove(self.base, dir, &name, kind)?;
            }
        }
        Ok(())
    }

    fn different(
        &mut self,
        dirs: Dirs,
        name: &[u8],
        now: Now<'_>,
        base: Option<&Attr>,
    ) -> union::Result<()> {
        let Some(dir) = dirs.base else {
            return Ok(());
        };
        if let Some(base) = base {
            remove(self.base, dir, name, base.kind())?;
        }
        match now {
            Now::Nothing => Ok(()),
            Now::Gone | Now::There(_) => self.copy.entry(dirs.now, name, dir).map(drop),
        }
    }

    fn leave(&mut self, dirs: Dirs, changed: Option<&Attr>) -> union::Result<()> {
        let (Some(base), Some(attr)) = (dirs.base, changed) else {
            return Ok(());
        };
        match self.copy.apply_metadata(dirs.now, base, attr) {
            Err(error) if is_gone(error.errno()) => Ok(()),
            applied => applied,
        }
    }
}

/// Removes an entry of a union, with everything in it.
fn remove(union: &Union, parent: NodeId, name: &[u8], kind: Kind) -> union::Result<()> {
    struct Emptying<'u> {
        parent: NodeId,
        name: Vec<u8>,
        node: NodeRef<'u>,
        left: std::vec::IntoIter<Name>,
    }
    let begin = |parent: NodeId, name: &[u8], kind: Kind| -> union::Result<Option<Emptying<'_>>> {
        if kind != Kind::Dir {
            return union.unlink(parent, name).map(|()| None);
        }
        let Some(dir) = union.find(parent, name)? else {
            return Ok(None);
        };
        Ok(Some(Emptying {
            parent,
            name: name.to_vec(),
            left: names(union, dir.node.id())?.into_iter(),
            node: dir.node,
        }))
    };
    let mut levels = Vec::new();
    levels.extend(begin(parent, name, kind)?);
    while let Some(level) = levels.last_mut() {
        let dir = level.node.id();
        if let Some(inner) = level.left.next() {
            let found = union.find(dir, &inner)?;
            if let Some(kind) = found.map(|entry| entry.attr.kind()) {
                levels.extend(begin(dir, &inner, kind)?);
            }
        } else if let Some(empty) = levels.pop() {
            drop(empty.node);
            union.rmdir(empty.parent, &empty.name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;
    use crate::store::base::Paths;

    #[test]
    fn differences_are_counted_and_become_an_upper() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("image/d/same")).unwrap();
        fs::create_dir_all(at("image/gone/deep")).unwrap();
        for name in ["image/d/f", "image/d/same/kept", "image/gone/deep/f"] {
            fs::write(at(name), "old").unwrap();
        }
        let status = Command::new("cp")
            .arg("-a")
            .args([at("image"), at("copy")])
            .status();
        assert!(status.unwrap().success());
        fs::write(at("copy/d/f"), "newer").unwrap();
        fs::create_dir(at("copy/more")).unwrap();
        fs::write(at("copy/more/one"), "1234567").unwrap();
        fs::hard_link(at("copy/more/one"), at("copy/two")).unwrap();
        fs::remove_dir_all(at("copy/gone")).unwrap();
        let lowers = [at("image")];
        assert_eq!(changed_size(&lowers, &at("copy")).unwrap(), 5 + 7);

        let paths = Paths::new(at("store"));
        paths.create().unwrap();
        let area = Area::new(&paths).unwrap();
        let config = changes_as_upper(&lowers, &at("copy"), &area).unwrap();
        let upper = config.upper.clone().unwrap();
        assert_eq!(fs::read_to_string(upper.join("d/f")).unwrap(), "newer");
        assert!(!upper.join("d/same").exists());
        let same = Pair {
            now: &Union::open(&config).unwrap(),
            base: &Union::open(&Config {
                lowers: vec![at("copy")],
                ..Config::default()
            })
            .unwrap(),
        };
        let mut tally = Tally::default();
        same.walk(&mut tally).unwrap();
        assert_eq!(tally.size, 0);
    }
}
