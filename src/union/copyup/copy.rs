//! Copy-up: bringing an object of a lower layer into the upper, at the first change of it.
//!
//! # Crash
//! A copy is built in the work directory, complete with owner, xattrs, mode and times, and (unless
//! the union is volatile) on disk before one rename makes it visible. Killed before the rename, the
//! next mount sees the lower object as if nothing had happened; killed after it, the copy. The
//! parent's times are put back in a step of their own: killed between, the parent's mtime is the
//! time of the copy-up. A file with several names is published by
//! [`crate::union::merge::hardlink`].

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::object::SetTime;
use crate::layer::stat::{Kind, Stat};
use crate::layer::{ReadOnlyDir, WritableDir};
use crate::sync::lock;
use crate::union::Union;
use crate::union::copyup::copydata::copy_data;
use crate::union::copyup::flags::copy_flags;
use crate::union::copyup::publish::{Copy, note_copy};
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{DirState, FileNode, FileState, Inode, Place, Real};
use crate::union::work::writable::Writable;

impl Union {
    /// Makes sure that a directory exists in the upper, and returns it. Its parents come first.
    /// Errors: ENOENT when it was removed, EROFS, and what the disk answers.
    pub(in crate::union) fn copy_up_dir(&self, inode: &Arc<Inode>) -> Result<WritableDir> {
        self.check_writable(inode)?;
        if let Some(upper) = Self::upper_of(inode)? {
            return Ok(upper);
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

    /// The directory in the upper, or in a volume, if it is there. Errors: ENOENT when it was
    /// removed.
    fn upper_of(inode: &Inode) -> Result<Option<WritableDir>> {
        match inode.lock_dir() {
            None => fail(Errno::NOTDIR),
            Some(state) if state.removed.is_some() => fail(Errno::NOENT),
            Some(state) => Ok(state.upper.clone()),
        }
    }

    /// One step of [`Union::copy_up_dir`]: brings a directory into the upper if its parent is
    /// there.
    fn copy_up_beside_parent(&self, writable: &Writable, inode: &Arc<Inode>) -> Result<Progress> {
        if let Some(upper) = Self::upper_of(inode)? {
            return Ok(Progress::Done(upper));
        }
        let Some(place) = inode.place() else {
            return fail(Errno::ROFS);
        };
        let Some(mut parent) = place.parent.lock_dir() else {
            return fail(Errno::NOTDIR);
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
            return fail(Errno::NOTDIR);
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
        self.notify_attributes(&place.parent);
        self.notify_attributes(inode);
        upper.map(Progress::Done)
    }

    /// Builds the copy of a directory (without its entries) and puts it in place. Both states are
    /// locked.
    fn publish_dir(
        &self,
        writable: &Writable,
        inode: &Inode,
        place: &Place,
        parent_dir: &WritableDir,
        parent: &mut DirState,
        state: &mut DirState,
    ) -> Result<WritableDir> {
        let Some(lower) = state.looks_like().cloned() else {
            return fail(Errno::STALE);
        };
        let stat = lower.stat().context("stat", &place.name)?;
        let xattrs = lower.xattrs().context("open directory", &place.name)?;
        let stage = writable.stage.dir();
        let staged = writable.stage.fresh_name();
        stage
            .mkdir(&staged, stage.disk_mode(0o700))
            .context("mkdir", &staged)?;
        let mut build = || -> Result<u64> {
            let object = stage.object(&staged).context("open", &staged)?;
            if let (Ok(from), Ok(to)) = (lower.fd(), stage.child(&staged).fd()) {
                copy_flags(from, to);
            }
            let ino = self.apply_metadata(writable, &object, &stat, &xattrs, Some(inode.st_ino))?;
            match self.publish(writable, &staged, parent_dir, &place.name, parent) {
                // To move a directory is to change its `..`: without root's rights that takes its
                // own write permission. Killed before the last step, the copy keeps `u+w` more than
                // the lower has.
                Err(error) if error.errno() == Errno::ACCESS => {
                    object
                        .chmod(stat.perm() | 0o200)
                        .context("chmod", &staged)?;
                    self.publish(writable, &staged, parent_dir, &place.name, parent)?;
                    object.chmod(stat.perm()).context("chmod", &place.name)?;
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

    /// Makes sure that a file (or anything else but a directory) is in the upper. `keep` limits the
    /// bytes that are copied, for a file that is about to be truncated. The data is copied without
    /// any lock but the inode's own copy-up lock.
    pub(in crate::union) fn copy_up_file(
        &self,
        inode: &Arc<Inode>,
        keep: Option<u64>,
    ) -> Result<()> {
        self.check_writable(inode)?;
        let Some(file) = inode.file() else {
            return fail(Errno::ISDIR);
        };
        let is_whole = |state: &FileState| state.is_upper() && state.bytes.is_none();
        if is_whole(&lock(&file.state)) {
            return Ok(());
        }
        let writable = self.writable()?;
        let _copying = lock(&file.copy_up);
        self.complete(inode, file, keep)?;
        let (dir, name) = {
            let state = lock(&file.state);
            match &state.real {
                Real::Lower { dir, name } => (dir.clone(), Arc::clone(name)),
                Real::Upper { .. } | Real::Orphan(_) => return Ok(()),
            }
        };
        let mut stat = dir.stat_entry(&name).context("stat", &name)?;
        if inode.kind == Kind::Char
            && stat.kind() == Kind::File
            && writable.stage.dir().records().is_some()
        {
            // A record can say what it is.
            stat.mode = Kind::Char.mode_bits() | stat.perm();
        }
        let copy_up = CopyUp {
            union: self,
            writable,
            inode,
            file,
            dir: &dir,
            name: &name,
            stat: &stat,
            staged: writable.stage.fresh_name(),
        };
        match copy_up.build(keep) {
            // What cannot be published is removed there.
            Ok(copy) => self.publish_file(writable, inode, &copy_up.staged, &copy)?,
            Err(error) => {
                copy_up.abandon();
                return Err(error);
            }
        }
        if stat.nlink > 1 {
            // What remains below under that number is another file from now on.
            self.nodes
                .shared
                .remove(&(dir.source(), stat.dev, stat.ino));
        }
        Ok(())
    }
}

/// The copy-up of anything but a directory, built under a name in the work directory.
struct CopyUp<'a> {
    union: &'a Union,
    writable: &'a Writable,
    inode: &'a Inode,
    file: &'a FileNode,
    /// The lower object, by directory and name.
    dir: &'a ReadOnlyDir,
    name: &'a Name,
    /// What the copy will be.
    stat: &'a Stat,
    staged: Name,
}

impl CopyUp<'_> {
    /// Builds the copy, complete and (unless the union is volatile) on disk; `keep` limits its
    /// bytes. A failure leaves parts of it in the work directory: see [`CopyUp::abandon`].
    fn build(&self, keep: Option<u64>) -> Result<Copy> {
        let (union, writable, stat) = (self.union, self.writable, self.stat);
        let stage = writable.stage.dir();
        let xattrs = self
            .dir
            .xattrs_of(self.name)
            .context("open directory", self.name)?;
        let data = self.make(keep)?;
        let object = match &data {
            Some(data) => stage.wrap(Arc::clone(data)),
            None => stage.object(&self.staged).context("open", &self.staged)?,
        };
        let origin = Some(self.inode.st_ino);
        let ino = union.apply_metadata(writable, &object, stat, &xattrs, origin)?;
        if self.inode.kind == Kind::Char && stat.kind() == Kind::File {
            union.make_device(writable, &object)?;
        }
        if let Some(data) = data.as_ref().filter(|_| !union.rules.volatile) {
            rustix::fs::fsync(data).context("fsync", self.name)?;
        }
        Ok(Copy { object, data, ino })
    }

    /// Makes the object; returns the descriptor of a regular file, with its bytes and flags.
    fn make(&self, keep: Option<u64>) -> Result<Option<Arc<OwnedFd>>> {
        let (stage, staged, stat) = (self.writable.stage.dir(), &self.staged, self.stat);
        match stat.kind() {
            Kind::File => return self.make_file(keep).map(Some),
            Kind::Symlink => {
                let target = self
                    .dir
                    .read_link(self.name)
                    .context("readlink", self.name)?;
                stage.symlink(&target, staged).context("symlink", staged)?;
            }
            _ if stage.records().is_some() => stage
                .mknod(staged, Kind::File, stage.disk_mode(0o600), 0)
                .context("mknod", staged)?,
            kind => stage
                .mknod(staged, kind, 0o600, stat.rdev)
                .context("mknod", staged)?,
        }
        Ok(None)
    }

    fn make_file(&self, keep: Option<u64>) -> Result<Arc<OwnedFd>> {
        let (stage, stat, name) = (self.writable.stage.dir(), self.stat, self.name);
        let to = stage
            .create_file(&self.staged, stage.disk_mode(0o600))
            .context("create", &self.staged)?;
        let size = keep.unwrap_or(stat.size).min(stat.size);
        let opened = Union::open_bytes(&lock(&self.file.state));
        match opened {
            Ok(from) => {
                if size > 0 {
                    copy_data(&from, &to, size, stat).context("copy", name)?;
                }
                copy_flags(&from, &to);
            }
            // No byte of it is needed.
            Err(errno) if size == 0 => log::debug!("flags are not copied: {errno}"),
            Err(errno) => return Err(errno).context("open", name),
        }
        Ok(Arc::new(to))
    }

    /// Removes what was built.
    fn abandon(&self) {
        self.writable.stage.discard(&self.staged);
    }
}

/// How far the copy-up of a directory is.
enum Progress {
    /// It is in the upper.
    Done(WritableDir),
    /// This parent must come first.
    First(Arc<Inode>),
    /// Another thread changed the tree meanwhile.
    Again,
}

/// Puts a directory's times back after something was published in it unnoticed.
pub(in crate::union) fn restore_dir_times(dir: &WritableDir, before: &Stat) {
    let restored = dir
        .this()
        .and_then(|this| this.utimens(SetTime::At(before.atime), SetTime::At(before.mtime)));
    if let Err(errno) = restored {
        log::warn!("times of a directory after copy-up: {errno}");
    }
}
