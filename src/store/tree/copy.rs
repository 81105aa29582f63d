//! Copying what a union shows into a directory: for new volumes, and for containers where there is
//! no FUSE.
//!
//! The directory is itself opened as a union that has nothing but an upper, so that owners and
//! devices are stored as the user at hand can store them, and read back so. Data are shared with
//! the layers where the disk can do that (reflinks), never by hard links: a change of the copy must
//! not change a layer. Killed meanwhile, the directory has a part of it; it is moved to its place
//! when it is complete.

use std::collections::HashMap;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::listing::names;
use super::record_form;
use crate::archive::error::is_gone;
use crate::cancel;
use crate::layer::dir::Name;
use crate::layer::object::SetTime;
use crate::layer::stat::Kind;
use crate::layer::stat_override::StatOverrideForm;
use crate::store::base::{Result, StoreError};
use crate::union::{self, Attr, Caller, Config, EntryRef, New, NodeId, NodeRef, SetAttr, Union};

/// Copies a directory of a union with everything in it, its own attributes included. `into` and
/// `work` exist and are empty. `records` is the form in which owners and types are stored; with
/// `None`, an ordinary user owns all of the copy, and devices are left out.
///
/// # Errors
/// The disk is full, or cannot store what there is.
pub(in crate::store) fn copy_tree(
    source: &Union,
    from: &NodeRef<'_>,
    into: &Path,
    work: &Path,
    records: Option<StatOverrideForm>,
) -> Result<()> {
    let target = target(into, work, records)?;
    let mut copy = Copy::new(source, &target);
    let copied = copy.dir(from).and_then(|()| copy.root(from.id()));
    copied.map_err(|error| cannot(into, error))
}

/// Copies the attributes of a union's root to a directory that exists; `work` is empty.
///
/// # Errors
/// The disk cannot store them.
pub(in crate::store) fn copy_root(source: &Config, into: &Path, work: &Path) -> Result<()> {
    let (source, target) = (Union::open(source)?, target(into, work, record_form())?);
    let copied = Copy::new(&source, &target).root(NodeId::ROOT);
    copied.map_err(|error| cannot(into, error))
}

/// A directory as a union of its own.
fn target(into: &Path, work: &Path, records: Option<StatOverrideForm>) -> Result<Union> {
    Ok(Union::open(&Config {
        upper: Some(into.to_owned()),
        work: Some(work.to_owned()),
        volatile: true,
        xattr_permissions: records,
        ..Config::default()
    })?)
}

fn cannot(into: &Path, error: union::Error) -> StoreError {
    StoreError::failed(
        format!("cannot copy into '{}'", into.display()),
        error,
        "make room on the disk, or use a disk that can store owners and xattrs",
    )
}

/// Whether an ordinary user has no right to do that.
fn may_not(error: &union::Error) -> bool {
    error.errno() == Errno::PERM && !rustix::process::geteuid().is_root()
}

/// How often a name is looked up again whose entry was replaced while it was read.
const ATTEMPTS: u32 = 8;

/// A copy under way.
pub(super) struct Copy<'a> {
    source: &'a Union,
    target: &'a Union,
    /// What was made of files with several names.
    linked: HashMap<u64, NodeRef<'a>>,
    /// Others change the source meanwhile: what is gone is left out.
    is_in_use: bool,
}

/// A directory that is being copied.
struct CopiedDir<'a> {
    from: NodeRef<'a>,
    /// Its attributes; of the first one the caller sees to them.
    attr: Option<Attr>,
    to: NodeRef<'a>,
    /// What was not looked at yet.
    names: std::vec::IntoIter<Name>,
}

impl<'a> Copy<'a> {
    pub(super) fn new(source: &'a Union, target: &'a Union) -> Self {
        Self {
            source,
            target,
            linked: HashMap::new(),
            is_in_use: false,
        }
    }

    /// A copy of a tree that other processes change meanwhile.
    pub(super) fn of_living(source: &'a Union, target: &'a Union) -> Self {
        Self {
            is_in_use: true,
            ..Self::new(source, target)
        }
    }

    /// The attributes of a directory for the root of the target.
    pub(super) fn root(&self, from: NodeId) -> union::Result<()> {
        let attr = self.source.getattr(from)?;
        self.apply_metadata(from, NodeId::ROOT, &attr)
    }

    /// Copies what is in a directory into the root of the target.
    fn dir(&mut self, from: &NodeRef<'a>) -> union::Result<()> {
        let names = names(self.source, from.id())?.into_iter();
        self.walk(CopiedDir {
            from: from.clone(),
            attr: None,
            to: self.target.root(),
            names,
        })
    }

    /// Copies what has a name in a directory, with everything in it, to a name that is free;
    /// returns whether it was there.
    pub(super) fn entry(&mut self, parent: NodeId, name: &[u8], to: NodeId) -> union::Result<bool> {
        let Some(made) = self.begin(parent, name, to)? else {
            return Ok(false);
        };
        if let Some(level) = made {
            self.walk(level)?;
        }
        Ok(true)
    }

    /// However deep it is. What is kept for each level on the way are the names that are left in
    /// it.
    fn walk(&mut self, first: CopiedDir<'a>) -> union::Result<()> {
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            cancel::check().map_err(|_| Errno::INTR)?;
            if let Some(name) = level.names.next() {
                let (from, to) = (level.from.id(), level.to.id());
                levels.extend(self.begin(from, &name, to)?.flatten());
                continue;
            }
            if let Some(attr) = &level.attr {
                let applied = self.apply_metadata(level.from.id(), level.to.id(), attr);
                self.unless_gone(&[], applied)?;
            }
            levels.pop();
        }
        Ok(())
    }

    /// Looks a name up and copies it, of a directory nothing but itself, which is returned to
    /// continue with. `None` when it is not there.
    fn begin(
        &mut self,
        from: NodeId,
        name: &[u8],
        to: NodeId,
    ) -> union::Result<Option<Option<CopiedDir<'a>>>> {
        for attempt in 1..=ATTEMPTS {
            let found = self.unless_gone(name, self.source.find(from, name))?;
            let Some(entry) = found.flatten() else {
                return Ok(None);
            };
            match self.make(entry, to, name) {
                Err(error) if self.is_in_use && is_gone(error.errno()) && attempt < ATTEMPTS => {}
                made => return self.unless_gone(name, made),
            }
        }
        Ok(None)
    }

    /// `None` for what was removed from a source in use.
    fn unless_gone<T>(&self, name: &[u8], read: union::Result<T>) -> union::Result<Option<T>> {
        match read {
            Err(error) if self.is_in_use && is_gone(error.errno()) => {
                let name = name.escape_ascii();
                log::warn!("'{name}' was removed while it was read, and is left out: {error}");
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Makes an entry like another one; returns a directory to continue with. What could not be
    /// read to its end is not there.
    fn make(
        &mut self,
        entry: EntryRef<'a>,
        to: NodeId,
        name: &[u8],
    ) -> union::Result<Option<CopiedDir<'a>>> {
        let attr = entry.attr;
        let is_dir = attr.kind() == Kind::Dir;
        let has_names = !is_dir && attr.nlink > 1;
        if has_names && let Some(made) = self.linked.get(&attr.ino) {
            let linked = self.target.link(made.id(), to, name)?;
            drop(NodeRef::claim(self.target, linked.node));
            return Ok(None);
        }
        let Some(made) = self.make_empty(&entry, to, name)? else {
            return Ok(None);
        };
        if is_dir {
            let names = self.unless_gone(name, names(self.source, entry.node.id()));
            return Ok(Some(CopiedDir {
                from: entry.node,
                attr: Some(attr),
                to: made,
                names: names?.unwrap_or_default().into_iter(),
            }));
        }
        if let Err(error) = self.fill(&entry, &made) {
            self.target.unlink(to, name)?;
            return Err(error);
        }
        if has_names {
            self.linked.insert(attr.ino, made);
        }
        Ok(None)
    }

    /// Makes an entry of the same type; `None` for a device that an ordinary user cannot make.
    fn make_empty(
        &self,
        entry: &EntryRef<'_>,
        to: NodeId,
        name: &[u8],
    ) -> union::Result<Option<NodeRef<'a>>> {
        let attr = &entry.attr;
        let target;
        let new = match attr.kind() {
            Kind::Dir => New::Dir { mode: attr.mode },
            Kind::Symlink => {
                target = self.source.readlink(entry.node.id())?;
                New::Symlink { target: &target }
            }
            kind => New::Node {
                kind,
                mode: attr.mode,
                rdev: attr.rdev,
            },
        };
        let caller = Caller {
            uid: attr.uid,
            gid: attr.gid,
            ..Caller::default()
        };
        match self.target.make(to, name, &new, &caller) {
            Err(error) if matches!(attr.kind(), Kind::Char | Kind::Block) && may_not(&error) => {
                log::warn!("device {} is left out: {error}", name.escape_ascii());
                Ok(None)
            }
            made => Ok(Some(NodeRef::claim(self.target, made?.node))),
        }
    }

    /// The content and the metadata of anything but a directory.
    fn fill(&self, entry: &EntryRef<'_>, made: &NodeRef<'_>) -> union::Result<()> {
        let (from, to) = (entry.node.id(), made.id());
        if entry.attr.kind() == Kind::File {
            self.target.copy_content_from(to, self.source, from)?;
        }
        self.apply_metadata(from, to, &entry.attr)
    }

    /// Owner and mode, which clear capabilities, then xattrs, and the times last.
    pub(super) fn apply_metadata(
        &self,
        from: NodeId,
        to: NodeId,
        attr: &Attr,
    ) -> union::Result<()> {
        let owner = SetAttr {
            uid: Some(attr.uid),
            gid: Some(attr.gid),
            ..SetAttr::default()
        };
        match self.target.setattr(to, &owner) {
            Err(error) if may_not(&error) => log::debug!("an owner is not copied: {error}"),
            set => set.map(drop)?,
        }
        if attr.kind() != Kind::Symlink {
            let mode = SetAttr {
                mode: Some(attr.mode),
                ..SetAttr::default()
            };
            self.target.setattr(to, &mode)?;
        }
        let names = self.source.listxattr(from)?;
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let value = match self.source.getxattr(from, name) {
                Err(error) if error.errno() == Errno::NODATA => continue,
                value => value?,
            };
            match self.target.setxattr(to, name, &value, XattrFlags::empty()) {
                // `trusted.` and `security.` names, for an ordinary user; and disks without ACLs.
                Err(error)
                    if matches!(
                        error.errno(),
                        Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS
                    ) =>
                {
                    log::debug!("xattr {} is not copied: {error}", name.escape_ascii());
                }
                result => result?,
            }
        }
        let times = SetAttr {
            atime: SetTime::At(attr.atime),
            mtime: SetTime::At(attr.mtime),
            ..SetAttr::default()
        };
        self.target.setattr(to, &times).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_merged_tree_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["new/d", "old/d/e", "into", "work"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("old/d/f"), "old").unwrap();
        std::fs::write(at("old/d/gone"), "x").unwrap();
        std::fs::write(at("new/d/.wh.gone"), "").unwrap();
        std::fs::hard_link(at("old/d/f"), at("old/d/e/again")).unwrap();
        symlink("d/e", at("old/way")).unwrap();
        let source = Union::open(&Config {
            lowers: vec![at("new"), at("old")],
            ..Config::default()
        })
        .unwrap();
        copy_tree(&source, &source.root(), &at("into"), &at("work"), None).unwrap();
        assert_eq!(std::fs::read_to_string(at("into/d/f")).unwrap(), "old");
        assert!(!at("into/d/gone").exists() && !at("into/d/.wh.gone").exists());
        let (one, two) = (
            at("into/d/f").metadata().unwrap(),
            at("into/d/e/again").metadata().unwrap(),
        );
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
        assert_ne!(one.ino(), at("old/d/f").metadata().unwrap().ino());
        assert_eq!(
            one.mtime_nsec(),
            at("old/d/f").metadata().unwrap().mtime_nsec()
        );
        assert_eq!(
            std::fs::read_link(at("into/way")).unwrap(),
            Path::new("d/e")
        );
    }
}
