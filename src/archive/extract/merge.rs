//! A layer that was unpacked onto a tree: whiteouts take away, entries replace, directories merge.
//!
//! In a tree, xattrs are what they are called: that names of an overlay are stored under others is
//! for layers.
//!
//! Everything moves by rename, so the layer has to be on the disk of the tree. Both are gone
//! through by descriptors; no symlink is followed in either, and no way leads into what is mounted
//! on the tree.
//!
//! # Crash
//! Killed meanwhile, a part of the layer is on the tree, and the rest where it was unpacked.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    Gid, Mode, Uid, XattrFlags, fchmod, fchown, fsetxattr, futimens, mkdirat, openat, renameat,
};
use rustix::io::Errno;

use crate::archive::disk::{DIRECTORY, clear, open_inner, remove};
use crate::archive::error::{AtEntry as _, Context as _, Result};
use crate::archive::listing::LayerListing;
use crate::layer::ReadOnlyDir;
use crate::layer::descent::Descent;
use crate::layer::dir::Name;
use crate::layer::marks::{HAS_IMPLIED, IMPLIED, own_xattrs};
use crate::layer::object::{SetTime, WritableObject, timestamps};
use crate::layer::stat::{Kind, Stat};
use crate::layer::stat_override::{STAT_OVERRIDE_XATTRS, StatOverride, StatOverrides};
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::{is_internal, seen};

/// What says something about the layer, not about the directory.
const MARKS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Moves a layer onto a tree.
pub(super) struct Merger<'a> {
    /// Directories of the layer that no entry describes.
    pub(super) implied: &'a HashSet<Vec<u8>>,
    /// A name in the tree's root that is not part of it.
    pub(super) spared: Option<&'a [u8]>,
}

impl Merger<'_> {
    /// Moves `layer` onto `tree`.
    pub(super) fn merge(&self, layer: &ReadOnlyDir, tree: &OwnedFd, has_root: bool) -> Result<()> {
        let before = Stat::of_fd(tree).context("stat", b".")?;
        let metadata = on_disk(layer)?;
        self.contents(layer, &metadata, tree)?;
        if has_root {
            return self.apply_root_metadata(layer, &metadata, tree);
        }
        if layer.records().is_some() {
            self.record_root(tree)?;
        }
        keep_mtime(tree, &before)
    }

    /// The root's record says that the tree has records, so it is never removed: one that the layer
    /// does not bring is made to say what the layer says.
    fn apply_root_metadata(
        &self,
        layer: &ReadOnlyDir,
        metadata: &Stat,
        tree: &OwnedFd,
    ) -> Result<()> {
        let root = Arc::new(tree.try_clone().context("dup", b".")?);
        let records = StatOverrides::of_root(&root).filter(|_| layer.records().is_none());
        apply_metadata(layer, metadata, tree)?;
        if records.is_some() {
            WritableObject::new(root, records)
                .record(&StatOverride::of(metadata))
                .context("setxattr", b".")?;
        }
        Ok(())
    }

    /// The tree keeps owners in xattrs from now on, as the layer does.
    fn record_root(&self, tree: &OwnedFd) -> Result<()> {
        let root = Arc::new(tree.try_clone().context("dup", b".")?);
        if StatOverrides::of_root(&root).is_none() {
            let stat = Stat::of_fd(&root).context("stat", b".")?;
            let records = StatOverrides::new(
                crate::layer::stat_override::StatOverrideForm::User,
                stat.perm(),
            );
            WritableObject::new(root, Some(records))
                .record(&StatOverride::of(&stat))
                .context("setxattr", b".")?;
        }
        Ok(())
    }

    /// What is in the layer's root, and below, however deep.
    fn contents(&self, layer: &ReadOnlyDir, metadata: &Stat, tree: &OwnedFd) -> Result<()> {
        let root = tree.try_clone().context("dup", b".")?;
        let mut path = Vec::new();
        let first = self.level(layer.clone(), *metadata, &root, &path, false)?;
        let mut descent = Descent::begin(root, first);
        while let Some((to, level)) = descent.last() {
            path.truncate(level.end);
            if let Some(name) = level.names.next() {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(&name);
                let hides = level.whiteouts.contains(&name);
                let below = self.entry(&level.from, &to, &name, &path, hides);
                if let Some((inner, level)) = below.at_entry(&path)? {
                    descent.push(inner, level).context("stat", &path)?;
                }
                continue;
            }
            let Some((to, level)) = descent.pop().context("open", b"..").at_entry(&path)? else {
                break;
            };
            if descent.last().is_some() {
                level.finish(&to).at_entry(&path)?;
            }
        }
        Ok(())
    }

    /// Begins with a directory: what it hides goes.
    fn level(
        &self,
        from: ReadOnlyDir,
        metadata: Stat,
        to: &OwnedFd,
        path: &[u8],
        hides: bool,
    ) -> Result<Level> {
        let listing = LayerListing::read(&from, false).at_entry(path)?;
        if listing.opaque || hides {
            self.empty(to, path).at_entry(path)?;
        }
        for name in listing.whiteouts.difference(&listing.entries) {
            remove(to, name).at_entry(&join(path, name))?;
        }
        Ok(Level {
            from,
            metadata,
            kept: None,
            end: path.len(),
            whiteouts: listing.whiteouts,
            names: listing.entries.into_iter(),
        })
    }

    fn empty(&self, to: &OwnedFd, path: &[u8]) -> Result<()> {
        let Some(spared) = self.spared.filter(|_| path.is_empty()) else {
            return clear(to);
        };
        let mut names = Vec::new();
        let dir = openat(to, ".", DIRECTORY, Mode::empty()).context("open", b".")?;
        for entry in rustix::fs::Dir::read_from(&dir).context("getdents", b".")? {
            let entry = entry.context("getdents", b".")?;
            names.push(entry.file_name().to_bytes().to_vec());
        }
        for name in names {
            if name != spared && name != b"." && name != b".." {
                remove(to, &name)?;
            }
        }
        Ok(())
    }

    /// Moves one entry. Returns a directory to go on in.
    fn entry(
        &self,
        from: &ReadOnlyDir,
        to: &OwnedFd,
        name: &Name,
        path: &[u8],
        hides: bool,
    ) -> Result<Option<(OwnedFd, Level)>> {
        let there = match Stat::of_entry(to, &name[..]) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).context("stat", name),
        };
        let was_dir = there.is_some_and(|stat| stat.kind() == Kind::Dir);
        if from.stat_on_disk(name).context("stat", name)?.kind() != Kind::Dir {
            if was_dir {
                remove(to, name)?;
            }
            bare_xattrs(from, name)?;
            let dir = from.fd().context("open", b".")?;
            renameat(&*dir, &name[..], to, &name[..]).context("rename", name)?;
            return Ok(None);
        }
        if !was_dir {
            if there.is_some() {
                remove(to, name)?;
            }
            mkdirat(to, &name[..], Mode::RWXU).context("mkdir", name)?;
        }
        let inner = open_inner(to, name)?;
        let child = from.child(name);
        // Its time changes when entries are moved out of it.
        let metadata = on_disk(&child)?;
        let level = self.level(child, metadata, &inner, path, hides)?;
        // What the archive says nothing about stays as it is.
        let kept = there.filter(|_| was_dir && self.implied.contains(path));
        Ok(Some((inner, Level { kept, ..level })))
    }
}

/// A directory of the layer whose entries are being moved.
struct Level {
    from: ReadOnlyDir,
    /// Its metadata before entries were moved out of it.
    metadata: Stat,
    /// What the tree's directory keeps.
    kept: Option<Stat>,
    /// So many bytes of the path are its own.
    end: usize,
    whiteouts: BTreeSet<Name>,
    /// What was not moved yet.
    names: std::collections::btree_set::IntoIter<Name>,
}

impl Level {
    /// Applies the metadata to the tree's directory, when nothing is moved into it any more.
    fn finish(&self, to: &OwnedFd) -> Result<()> {
        if let Some(stat) = &self.kept {
            return keep_mtime(to, stat);
        }
        apply_metadata(&self.from, &self.metadata, to)?;
        forget_record(&self.from, to)
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path {
        b"" => name.to_vec(),
        _ => [path, b"/", name].concat(),
    }
}

fn keep_mtime(dir: &OwnedFd, stat: &Stat) -> Result<()> {
    let times = timestamps(SetTime::Keep, SetTime::At(stat.mtime));
    futimens(dir, &times).context("utimensat", b".")
}

fn on_disk(dir: &ReadOnlyDir) -> Result<Stat> {
    let fd = dir.fd().context("open", b".")?;
    Stat::of_fd(&fd).context("stat", b".")
}

/// Applies to a directory the metadata of another one, which had `stat`.
fn apply_metadata(from: &ReadOnlyDir, stat: &Stat, to: &OwnedFd) -> Result<()> {
    let fd = from.fd().context("open", b".")?;
    let is = Stat::of_fd(to).context("stat", b".")?;
    if (is.uid, is.gid) != (stat.uid, stat.gid) {
        let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
        fchown(to, Some(uid), Some(gid)).context("chown", b".")?;
    }
    copy_xattrs(&XattrPath::of_fd(fd), to, from.records().is_some())?;
    fchmod(to, Mode::from_raw_mode(stat.perm())).context("chmod", b".")?;
    keep_mtime(to, stat)
}

/// What the tree recorded of a directory that now has the owner and mode of the layer on the disk.
fn forget_record(from: &ReadOnlyDir, to: &OwnedFd) -> Result<()> {
    let from = from.xattrs().context("open", b".")?;
    let object = WritableObject::new(Arc::new(to.try_clone().context("dup", b".")?), None);
    for name in STAT_OVERRIDE_XATTRS {
        let brought = from.get_opt(name).context("getxattr", name)?.is_some();
        let is_there = || object.xattrs().get_opt(name).context("getxattr", name);
        if !brought && is_there()?.is_some() {
            object.remove_xattr(name).context("removexattr", name)?;
        }
    }
    Ok(())
}

fn copy_xattrs(from: &XattrPath, to: &OwnedFd, recorded: bool) -> Result<()> {
    let list = from.list().context("listxattr", b".")?;
    let mut wanted = Vec::new();
    for stored in list.split(|byte| *byte == 0).filter(|name| counts(name)) {
        let name = match seen(stored) {
            Some(seen) if !recorded => seen.name.into_owned(),
            Some(_) => stored.to_vec(),
            None if is_mark(stored) => continue,
            None => stored.to_vec(),
        };
        wanted.push((name, from.get(stored).context("getxattr", stored)?));
    }
    let object = WritableObject::new(Arc::new(to.try_clone().context("dup", b".")?), None);
    let old = object.xattrs().list().context("listxattr", b".")?;
    for name in old.split(|byte| *byte == 0).filter(|name| counts(name)) {
        if !is_internal(name) && !wanted.iter().any(|(wanted, _)| wanted == name) {
            object.remove_xattr(name).context("removexattr", name)?;
        }
    }
    for (name, value) in wanted {
        fsetxattr(to, &name[..], &value, XattrFlags::empty()).context("setxattr", &name)?;
    }
    Ok(())
}

fn is_mark(stored: &[u8]) -> bool {
    let is_ours = |name| own_xattrs(name).iter().any(|own| own.as_bytes() == stored);
    MARKS.iter().any(|prefix| stored.starts_with(prefix))
        || [IMPLIED, HAS_IMPLIED].into_iter().any(is_ours)
}

/// Not what this machine's security module says.
fn counts(name: &[u8]) -> bool {
    !name.is_empty() && name != b"security.selinux"
}

/// In a layer, names that mean something to a union are stored under others; in a tree they are
/// what they are.
fn bare_xattrs(dir: &ReadOnlyDir, name: &Name) -> Result<()> {
    if dir.records().is_some() {
        return Ok(());
    }
    let list = dir.xattrs_of(name).and_then(|xattrs| xattrs.list());
    let list = list.context("listxattr", name)?;
    for stored in list.split(|byte| *byte == 0).filter(|name| counts(name)) {
        let Some(seen) = seen(stored).filter(|seen| *seen.name != *stored) else {
            continue;
        };
        let fd = Arc::new(dir.pin_entry(name).context("open", name)?);
        let object = WritableObject::new(fd, None);
        let value = object.xattrs().get(stored).context("getxattr", stored)?;
        object
            .set_xattr(&seen.name, &value, XattrFlags::empty())
            .and_then(|()| object.remove_xattr(stored))
            .context("setxattr", &seen.name)?;
    }
    Ok(())
}
