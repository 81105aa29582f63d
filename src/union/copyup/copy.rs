//! Copy-up: bringing an object of a lower layer into the upper, at the first change of it.
//!
//! # Crash
//! A copy is built in the work directory, complete with owner, xattrs, mode and times, and (unless the union
//! is volatile) on disk before one rename makes it visible. Killed before the rename, the next mount sees the
//! lower object as if nothing had happened; killed after it, the copy. The parent's times are put back in a
//! step of their own: killed between, the parent's mtime is the time of the copy-up. A file with several names
//! is published by [`crate::union::merge::hardlink`].

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::layer::UpperDir;
use crate::layer::dir::Name;
use crate::layer::object::{SetTime, UpperObject};
use crate::layer::stat::{Kind, Stat};
use crate::layer::stat_override::Record;
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::seen;
use crate::sync::lock;
use crate::union::Union;
use crate::union::copyup::copydata::copy_data;
use crate::union::copyup::flags::copy_flags;
use crate::union::error::{During, Result, refuse};
use crate::union::node::inode::{DirState, FileState, Inode, Link, Node, Place, Real};
use crate::union::node::listing::Slot;
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;

impl Union {
    /// Makes sure that a directory exists in the upper, and gives it. Its parents come first.
    /// Errors: ENOENT when it was removed, EROFS, and what the disk answers.
    pub(in crate::union) fn copy_up_dir(&self, inode: &Arc<Inode>) -> Result<UpperDir> {
        self.check_writable(inode)?;
        if inode.volume.is_some() {
            let upper = inode.lock_dir().and_then(|state| state.upper.clone());
            return upper.map_or_else(|| refuse(Errno::NOENT), Ok);
        }
        let writable = self.writable()?;
        // Parents that are still missing, the highest one last.
        let mut missing: Vec<Arc<Inode>> = Vec::new();
        loop {
            let next = missing.last().unwrap_or(inode);
            match self.copy_up_beside_parent(writable, next)? {
                Progress::Done(upper) => {
                    if missing.pop().is_none() {
                        return Ok(upper);
                    }
                }
                Progress::First(parent) => missing.push(parent),
                Progress::Again => {}
            }
        }
    }

    /// One step of [`Union::copy_up_dir`]: brings a directory into the upper if its parent is there.
    fn copy_up_beside_parent(&self, writable: &Writable, inode: &Arc<Inode>) -> Result<Progress> {
        {
            let Some(state) = inode.lock_dir() else {
                return refuse(Errno::NOTDIR);
            };
            if state.removed.is_some() {
                return refuse(Errno::NOENT);
            }
            if let Some(upper) = &state.upper {
                return Ok(Progress::Done(upper.clone()));
            }
        }
        let Some(place) = inode.place() else {
            return refuse(Errno::ROFS);
        };
        let Some(mut parent) = place.parent.lock_dir() else {
            return refuse(Errno::NOTDIR);
        };
        let Some(parent_dir) = parent.upper.clone() else {
            drop(parent);
            return Ok(Progress::First(place.parent));
        };
        // It may have been renamed or copied up since its place was read.
        if !inode
            .place()
            .is_some_and(|now| now.is(&place.parent, &place.name))
        {
            return Ok(Progress::Again);
        }
        let Some(mut state) = inode.lock_dir() else {
            return refuse(Errno::NOTDIR);
        };
        if state.removed.is_some() || state.upper.is_some() {
            return Ok(Progress::Again);
        }
        let upper = self.publish_dir(
            writable,
            inode,
            &place,
            &parent_dir,
            &mut parent,
            &mut state,
        );
        drop(state);
        drop(parent);
        // Also after a failure: steps before it may have changed the parent.
        self.tell_attributes(&place.parent);
        self.tell_attributes(inode);
        upper.map(Progress::Done)
    }

    /// Builds the copy of a directory (without its entries) and puts it in place. Both states are locked.
    fn publish_dir(
        &self,
        writable: &Writable,
        inode: &Inode,
        place: &Place,
        parent_dir: &UpperDir,
        parent: &mut DirState,
        state: &mut DirState,
    ) -> Result<UpperDir> {
        let Some(lower) = state.looks_like().cloned() else {
            return refuse(Errno::STALE);
        };
        let stat = lower.stat().during("stat", &place.name)?;
        let xattrs = lower.xattrs().during("open directory", &place.name)?;
        let stage = writable.stage.dir();
        let staged = writable.stage.fresh_name();
        stage
            .mkdir(&staged, stage.disk_mode(0o700))
            .during("mkdir", &staged)?;
        let mut build = || -> Result<u64> {
            let object = stage.object(&staged).during("open", &staged)?;
            if let (Ok(from), Ok(to)) = (lower.fd(), stage.child(&staged).fd()) {
                copy_flags(from, to);
            }
            let ino = self.dress(writable, &object, &stat, &xattrs, Some(inode.st_ino))?;
            match self.publish(writable, &staged, parent_dir, &place.name, parent) {
                // To move a directory is to change its `..`: without root's rights that takes its own write
                // permission. Killed before the last step, the copy keeps `u+w` more than the lower has.
                Err(error) if error.errno() == Errno::ACCESS => {
                    object.chmod(stat.perm() | 0o200).during("chmod", &staged)?;
                    self.publish(writable, &staged, parent_dir, &place.name, parent)?;
                    object.chmod(stat.perm()).during("chmod", &place.name)?;
                }
                other => other?,
            }
            Ok(ino)
        };
        match build() {
            Ok(ino) => {
                let upper = parent_dir.child(&place.name);
                state.upper = Some(upper.clone());
                // It has two layers now, which its link count says.
                if let Some(listing) = &mut parent.listing {
                    listing.update(&place.name, |slot| note_copy(slot, Kind::Dir, ino));
                }
                Ok(upper)
            }
            Err(error) => {
                writable.stage.discard(&staged);
                Err(error)
            }
        }
    }

    /// Moves a finished copy from the stage to `name`, which the upper does not have, without a visible
    /// change of the directory.
    fn publish(
        &self,
        writable: &Writable,
        staged: &Name,
        dir: &UpperDir,
        name: &Name,
        state: &mut DirState,
    ) -> Result<()> {
        self.mark_impure(writable, dir, state)?;
        let before = dir.stat().during("stat", b".")?;
        let stage = writable.stage.dir();
        dir.despite_mode(|| stage.rename_to_free(staged, dir, name))
            .during("rename copy to", name)?;
        restore_times(dir, &before);
        Ok(())
    }

    /// Marks a directory of the upper as holding entries with an origin, before the first one comes.
    pub(in crate::union) fn mark_impure(
        &self,
        writable: &Writable,
        dir: &UpperDir,
        state: &mut DirState,
    ) -> Result<()> {
        let Some(prefix) = writable
            .abilities
            .own_xattrs
            .filter(|_| !self.rules.no_xattrs)
        else {
            return Ok(());
        };
        if state.impure {
            return Ok(());
        }
        let xattr = format!("{prefix}impure");
        let this = dir.this().during("open directory", b".")?;
        dir.despite_mode(|| this.set_xattr(xattr.as_bytes(), b"y", XattrFlags::empty()))
            .during("setxattr", xattr.as_bytes())?;
        state.impure = true;
        Ok(())
    }

    /// Gives a copy everything but the data: owner, xattrs and ACLs, origin, mode, times. Owner before mode,
    /// since chown(2) clears setuid; xattrs before mode, since ACLs change it, and since a daemon without root's
    /// rights needs its own write permission to set them. Gives the copy's inode number.
    fn dress(
        &self,
        writable: &Writable,
        object: &UpperObject,
        stat: &Stat,
        xattrs: &XattrPath,
        origin: Option<u64>,
    ) -> Result<u64> {
        let kind = stat.kind();
        let made = Stat::of_fd(object.fd()).during("fstat", b".")?;
        let recorded = object.record(&Record::of(stat)).during("setxattr", b".")?;
        if !recorded && (made.uid, made.gid) != (stat.uid, stat.gid) {
            self.tolerate_owner(object.chown(Some(stat.uid), Some(stat.gid)))
                .during("chown", b".")?;
        }
        if !self.rules.no_xattrs {
            copy_xattrs(writable, xattrs, object)?;
        }
        if let Some(origin) = origin {
            self.store_origin(writable, object, kind, (origin, made.ino))?;
        }
        if !recorded && kind != Kind::Symlink {
            object.chmod(stat.perm()).during("chmod", b".")?;
        }
        object
            .utimens(SetTime::At(stat.atime), SetTime::At(stat.mtime))
            .during("utimensat", b".")?;
        Ok(made.ino)
    }

    /// Without the right to give files away (a single user's mount) the owner stays the daemon's.
    pub(in crate::union) fn tolerate_owner(
        &self,
        result: rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        match result {
            Err(Errno::PERM | Errno::INVAL)
                if self.rules.daemon.0 != 0 || !crate::sys::may_chown() =>
            {
                log::debug!("owner not stored: no right to chown");
                Ok(())
            }
            other => other,
        }
    }

    /// Makes sure that a file (or anything else but a directory) is in the upper. `keep` limits the bytes that
    /// are copied, for a file that is about to be truncated. The data is copied without any lock but the
    /// inode's own copy-up lock.
    pub(in crate::union) fn copy_up_file(
        &self,
        inode: &Arc<Inode>,
        keep: Option<u64>,
    ) -> Result<()> {
        self.check_writable(inode)?;
        if inode.volume.is_some() && inode.kind != Kind::Dir {
            return Ok(());
        }
        let writable = self.writable()?;
        let Some(file) = inode.file() else {
            return refuse(Errno::ISDIR);
        };
        let is_whole = |state: &FileState| state.is_upper() && state.bytes.is_none();
        if is_whole(&lock(&file.state)) {
            return Ok(());
        }
        let _copying = lock(&file.copy_up);
        self.complete(inode, file, keep)?;
        let (dir, name) = {
            let state = lock(&file.state);
            match &state.real {
                Real::Lower { dir, name } => (dir.clone(), Arc::clone(name)),
                Real::Upper { .. } | Real::Orphan(_) => return Ok(()),
            }
        };
        let mut stat = dir.stat_entry(&name).during("stat", &name)?;
        if inode.kind == Kind::Char
            && stat.kind() == Kind::File
            && writable.stage.dir().records().is_some()
        {
            // A record can say what it is.
            stat.mode = Kind::Char.mode_bits() | stat.perm();
        }
        let xattrs = dir.xattrs_of(&name).during("open directory", &name)?;
        let staged = writable.stage.fresh_name();
        let build = || -> Result<Copy> {
            let stage = writable.stage.dir();
            let mut data = None;
            match stat.kind() {
                Kind::File => {
                    let to = stage
                        .create_file(&staged, stage.disk_mode(0o600))
                        .during("create", &staged)?;
                    let size = keep.unwrap_or(stat.size).min(stat.size);
                    let opened = Self::open_bytes(&lock(&file.state));
                    match opened {
                        Ok(from) => {
                            if size > 0 {
                                copy_data(&from, &to, size, &stat).during("copy", &name)?;
                            }
                            copy_flags(&from, &to);
                        }
                        // No byte of it is needed.
                        Err(errno) if size == 0 => log::debug!("flags are not copied: {errno}"),
                        Err(errno) => return Err(errno).during("open", &name),
                    }
                    data = Some(Arc::new(to));
                }
                Kind::Symlink => {
                    let target = dir.read_link(&name).during("readlink", &name)?;
                    stage.symlink(&target, &staged).during("symlink", &staged)?;
                }
                _ if stage.records().is_some() => stage
                    .mknod(&staged, Kind::File, stage.disk_mode(0o600), 0)
                    .during("mknod", &staged)?,
                kind => stage
                    .mknod(&staged, kind, 0o600, stat.rdev)
                    .during("mknod", &staged)?,
            }
            let object = match &data {
                Some(data) => stage.wrap(Arc::clone(data)),
                None => stage.object(&staged).during("open", &staged)?,
            };
            let ino = self.dress(writable, &object, &stat, &xattrs, Some(inode.st_ino))?;
            if inode.kind == Kind::Char && stat.kind() == Kind::File {
                self.make_device(writable, &object)?;
            }
            if let Some(data) = data.as_ref().filter(|_| !self.rules.volatile) {
                rustix::fs::fsync(data).during("fsync", &name)?;
            }
            Ok(Copy { object, data, ino })
        };
        let copy = match build() {
            Ok(copy) => copy,
            Err(error) => {
                writable.stage.discard(&staged);
                return Err(error);
            }
        };
        self.publish_file(writable, inode, &staged, &copy)?;
        if stat.nlink > 1 {
            // What is left below under that number is another file from now on.
            self.nodes.shared.remove(&(dir.layer(), stat.dev, stat.ino));
        }
        Ok(())
    }

    /// Puts a finished copy under every name of the file that is visible now.
    fn publish_file(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        copy: &Copy,
    ) -> Result<()> {
        let Some(file) = inode.file() else {
            return refuse(Errno::ISDIR);
        };
        let result = (|| loop {
            let places: Vec<Place> = lock(&file.state)
                .links
                .iter()
                .map(|link| link.place.clone())
                .collect();
            match places.as_slice() {
                // Removed meanwhile: the copy lives as long as somebody holds it.
                [] => {
                    let mut state = lock(&file.state);
                    if state.links.is_empty() {
                        state.bytes = None;
                        state.real = Real::Orphan(copy.object.clone());
                        file.data.clear();
                        writable.stage.discard(staged);
                        return Ok(());
                    }
                }
                [place] => {
                    let published = self.publish_name(writable, inode, staged, place, copy);
                    self.tell_attributes(&place.parent);
                    self.tell_attributes(inode);
                    if published? {
                        return Ok(());
                    }
                }
                _ => return self.publish_names(writable, inode, staged, &places, &copy.object),
            }
        })();
        if result.is_err() {
            writable.stage.discard(staged);
        }
        result
    }

    /// Publishes the copy under its only name; `false` when the name changed meanwhile.
    fn publish_name(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        place: &Place,
        copy: &Copy,
    ) -> Result<bool> {
        let Some(file) = inode.file() else {
            return refuse(Errno::ISDIR);
        };
        let dir = self.copy_up_dir(&place.parent);
        let Some(mut parent) = place.parent.lock_dir() else {
            return refuse(Errno::NOTDIR);
        };
        let mut state = lock(&file.state);
        if state.links.len() != 1 || !state.links[0].place.is(&place.parent, &place.name) {
            return Ok(false);
        }
        let dir = dir?;
        self.store_child_origin(writable, &dir, inode.kind, (inode.st_ino, copy.ino));
        self.publish(writable, staged, &dir, &place.name, &mut parent)?;
        if let Some(listing) = &mut parent.listing {
            listing.update(&place.name, |slot| note_copy(slot, inode.kind, copy.ino));
        }
        state.links[0].upper = Some(dir.clone());
        switch_to_upper(&mut state, &dir, &place.name);
        file.data.clear();
        if let Some(data) = &copy.data {
            self.spare_atime(data);
            file.data.put(Arc::clone(data));
        }
        Ok(true)
    }

    /// Takes a name of a file that is being published into the upper as a hard link of `staged`.
    pub(in crate::union) fn publish_link(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        place: &Place,
        ino: u64,
    ) -> Result<()> {
        let dir = self.copy_up_dir(&place.parent);
        let Some(mut parent) = place.parent.lock_dir() else {
            return refuse(Errno::NOTDIR);
        };
        let Some(mut state) = inode.lock_file() else {
            return refuse(Errno::ISDIR);
        };
        let Some(link) = state
            .links
            .iter_mut()
            .find(|link| link.place.is(&place.parent, &place.name))
        else {
            return Ok(());
        };
        let dir = dir?;
        self.mark_impure(writable, &dir, &mut parent)?;
        let before = dir.stat().during("stat", b".")?;
        self.store_child_origin(writable, &dir, inode.kind, (inode.st_ino, ino));
        let stage = writable.stage.dir();
        match dir.despite_mode(|| stage.link(staged, &dir, &place.name)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).during("link copy to", &place.name),
        }
        restore_times(&dir, &before);
        link.upper = Some(dir);
        if let Some(listing) = &mut parent.listing {
            listing.update(&place.name, |slot| {
                note_copy(slot, inode.kind, ino);
                slot.child = Arc::downgrade(inode);
            });
        }
        Ok(())
    }

    /// After all names are published: the file is the upper's now.
    pub(in crate::union) fn finish_links(
        &self,
        inode: &Arc<Inode>,
        object: &UpperObject,
    ) -> Result<()> {
        let Node::File(file) = &inode.node else {
            return refuse(Errno::ISDIR);
        };
        let mut state = lock(&file.state);
        let home = state
            .links
            .iter()
            .find_map(|link: &Link| Some((link.upper.clone()?, Arc::clone(&link.place.name))));
        match home {
            Some((dir, name)) => switch_to_upper(&mut state, &dir, &name),
            None => {
                state.bytes = None;
                state.real = Real::Orphan(object.clone());
            }
        }
        file.data.clear();
        Ok(())
    }
}

/// How far the copy-up of a directory is.
enum Progress {
    /// It is in the upper.
    Done(UpperDir),
    /// This parent must come first.
    First(Arc<Inode>),
    /// Another thread changed the tree meanwhile.
    Again,
}

/// A finished copy in the stage.
struct Copy {
    object: UpperObject,
    /// Of a regular file, open for reading and writing.
    data: Option<Arc<OwnedFd>>,
    ino: u64,
}

/// What a copy-up changes in the slot of a name.
fn note_copy(slot: &mut Slot, kind: Kind, ino: u64) {
    slot.merged.upper = Some(Found { kind, ino });
}

fn switch_to_upper(state: &mut FileState, dir: &UpperDir, name: &Name) {
    state.bytes = None;
    state.real = Real::Upper {
        dir: dir.clone(),
        name: Arc::clone(name),
    };
}

/// Puts a directory's times back after something was published in it unnoticed.
pub(in crate::union) fn restore_times(dir: &UpperDir, before: &Stat) {
    let restored = dir
        .this()
        .and_then(|this| this.utimens(SetTime::At(before.atime), SetTime::At(before.mtime)));
    if let Err(errno) = restored {
        log::warn!("times of a directory after copy-up: {errno}");
    }
}

/// Copies every xattr that means something outside its layer. Where the upper cannot store one that only
/// concerns privileged programs, it is left out as cp(1) does.
fn copy_xattrs(writable: &Writable, from: &XattrPath, to: &UpperObject) -> Result<()> {
    let list = from.list().during("listxattr", b".")?;
    let mut shown: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| Some((name, seen(name)?)))
        .collect();
    // Of two that are seen by one name the kept one counts: it comes last.
    shown.sort_by_key(|(_, seen)| seen.kept);
    for (name, seen) in shown {
        let Some(value) = from.get_opt(name).during("getxattr", name)? else {
            continue;
        };
        let stored = writable.keeping.stored(&seen.name);
        match to.set_xattr(&stored, &value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) if !stored.starts_with(b"user.") => {
                log::debug!("xattr {} is not copied up", name.escape_ascii());
            }
            other => other.during("setxattr", name)?,
        }
    }
    Ok(())
}

/// Modes of fallocate(2) are passed on as they are.
pub(in crate::union) fn fallocate_flags(mode: u32) -> FallocateFlags {
    FallocateFlags::from_bits_retain(mode)
}

/// Flags to open the data of an upper file for reading and writing.
pub(in crate::union) const READ_WRITE: OFlags = OFlags::RDWR;
