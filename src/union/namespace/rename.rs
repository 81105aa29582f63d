//! rename(2) in all its forms.
//!
//! Whatever is renamed is first brought into the upper: a file by copy-up; a directory with lower content by
//! copying up everything below it, in place, where each single copy leaves the merged view as it is. Then it is
//! marked opaque, which changes nothing either, since it hides only what was copied. From there on it is an
//! ordinary directory of the upper and moves by one system call. (Building the copy beside, in the work
//! directory, would need the same copies, and a second one of what the upper already has.) With
//! `redirect_dir=on` nothing is copied: a redirect xattr names the lower directory.
//!
//! # Crash
//! Before the renameat2(2) the old name is there, after it the new one. The whiteout of the old name is written
//! before it (beside the entry, where it hides only lower layers) or by it (`RENAME_WHITEOUT`). After a power cut the same
//! holds where the disk keeps the order of changes. Where it does not (btrfs), marks and copies are synced before the entry
//! moves, without a lock: what is written by then leaves the merged view as it is, and the rename starts over.

use crate::union::RenameMode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::mark::Mark;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::copyup::copy::restore_times;
use crate::union::error::{During, Error, Result, refuse};
use crate::union::namespace::moving::{
    End, dir_of, lift_upper, move_entry, move_link, note_mark, put_upper, settle, swap_entries,
    sync_marks, take_upper,
};
use crate::union::namespace::remove::check_types;
use crate::union::node::guards::{Parents, lock_files, lock_parents};
use crate::union::node::inode::{DirState, Inode, NodeId};
use crate::union::node::remains::bury;
use crate::union::node::stack::Redirect;
use crate::union::work::writable::Writable;
use crate::union::{Caller, New, Union};

/// How often a rename starts over because the tree changed while it prepared.
const PATIENCE: usize = 100;

/// How an entry is renamed.
#[derive(Clone, Copy)]
struct How<'a> {
    mode: RenameMode,
    /// A device is left under the old name, made for this caller.
    leaves: Option<&'a Caller<'a>>,
    /// What must be on the disk before is there, or need not be.
    synced: bool,
}

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Done,
    /// What was prepared does not hold any more.
    Overtaken,
    /// The marks are written, and must be on the disk before the entry moves.
    Unsynced,
}

/// What the slots said before anything was changed.
#[derive(Clone, Copy)]
struct Before {
    covers: bool,
    mark: Option<Mark>,
    in_upper: bool,
    ino: u64,
}

impl Union {
    /// Renames `from_name` in `from` to `to_name` in `to`.
    /// Errors: ENOENT, EEXIST, ENOTEMPTY, ENOTDIR, EISDIR, EINVAL for a directory into itself, EPERM for a name
    /// that would be a whiteout, EXDEV from or into a volume, EBUSY for what a volume is shown at or below, EROFS, ENOSPC (the copies made so far stay, unseen), what the disk answers.
    pub fn rename(
        &self,
        from: NodeId,
        from_name: &[u8],
        to: NodeId,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.rename_entry((from, from_name), (to, to_name), mode, None)
    }

    /// As [`Union::rename`]; leaves a device 0/0 of the merged view, made for `leaves`, under the old name.
    fn rename_entry(
        &self,
        (from, from_name): (NodeId, &[u8]),
        (to, to_name): (NodeId, &[u8]),
        mode: RenameMode,
        leaves: Option<&Caller<'_>>,
    ) -> Result<()> {
        let from = self.nodes.table.get(from)?;
        let to = self.nodes.table.get(to)?;
        if from.volume != to.volume {
            return refuse(Errno::XDEV);
        }
        if from.volume.is_some() {
            let flags = match mode {
                RenameMode::Replace => RenameFlags::empty(),
                RenameMode::NoReplace => RenameFlags::NOREPLACE,
                RenameMode::Exchange => RenameFlags::EXCHANGE,
            };
            return self.rename_in_volume((&from, from_name), (&to, to_name), flags);
        }
        let writable = self.writable()?;
        self.check_new_name(to_name)?;
        let need_not_sync = self.rules.volatile || writable.abilities.ordered;
        let mut synced = need_not_sync;
        for _ in 0..PATIENCE {
            let Some(source) = self.child(&from, from_name)? else {
                return refuse(Errno::NOENT);
            };
            let source = source.inode;
            let target = self.child(&to, to_name)?.map(|child| child.inode);
            self.check_no_mount(&source, true)?;
            if let Some(target) = &target {
                self.check_no_mount(target, mode == RenameMode::Exchange)?;
            }
            match (&target, mode) {
                (Some(_), RenameMode::NoReplace) => return refuse(Errno::EXIST),
                (None, RenameMode::Exchange) => return refuse(Errno::NOENT),
                // Two names of one file: rename(2) does nothing.
                (Some(target), _) if Arc::ptr_eq(&source, target) => return Ok(()),
                (Some(target), RenameMode::Replace) => {
                    check_types(&source, target)?;
                    if target.kind == Kind::Dir {
                        self.check_empty(target).map_err(|error| {
                            self.unless_protected(error, &[&from, &source, &to, target])
                        })?;
                    }
                }
                _ => {}
            }
            self.check_loops(&source, &to)?;
            if let (Some(target), RenameMode::Exchange) = (&target, mode) {
                self.check_loops(target, &from)?;
            }
            self.bring_up(&source)?;
            if let (Some(target), RenameMode::Exchange) = (&target, mode) {
                self.bring_up(target)?;
            }
            let ends = (
                End {
                    dir: self.copy_up_dir(&from)?,
                    parent: &from,
                    name: Name::from(from_name),
                },
                End {
                    dir: self.copy_up_dir(&to)?,
                    parent: &to,
                    name: Name::from(to_name),
                },
            );
            let how = How {
                mode,
                leaves,
                synced,
            };
            match self.try_rename(writable, &ends, &source, target.as_ref(), how)? {
                Attempt::Done => return Ok(()),
                Attempt::Overtaken => synced = need_not_sync,
                Attempt::Unsynced => {
                    // With all that was copied, and before a whiteout comes that the disk makes by the rename itself.
                    let all = mode == RenameMode::Exchange
                        || source.kind == Kind::Dir
                        || writable.char_marks;
                    let marks = sync_marks(writable, &ends.0.dir, all);
                    self.note_loss(&marks);
                    marks?;
                    synced = true;
                }
            }
        }
        Err(Error::rule(Errno::BUSY))
    }

    /// As [`Union::rename`], and leaves a character device 0/0 under the old name, which is how another overlay
    /// on this mount hides what it renamed (`RENAME_WHITEOUT` of renameat2(2)). Both happen at once (see
    /// `leaving.rs`); where the upper's disk has no such devices, in two steps: killed between, the device is missing.
    pub fn rename_leaving_device(
        &self,
        (from, from_name): (NodeId, &[u8]),
        (to, to_name): (NodeId, &[u8]),
        mode: RenameMode,
        caller: &Caller<'_>,
    ) -> Result<()> {
        if self.is_shared(from) {
            let flags = match mode {
                RenameMode::NoReplace => RenameFlags::NOREPLACE | RenameFlags::WHITEOUT,
                RenameMode::Replace => RenameFlags::WHITEOUT,
                RenameMode::Exchange => return refuse(Errno::INVAL),
            };
            let (from, to) = (self.nodes.table.get(from)?, self.nodes.table.get(to)?);
            if from.volume != to.volume {
                return refuse(Errno::XDEV);
            }
            return self.rename_in_volume((&from, from_name), (&to, to_name), flags);
        }
        if mode == RenameMode::Exchange {
            return refuse(Errno::INVAL);
        }
        if self.can_leave_device(self.writable()?) {
            return self.rename_entry((from, from_name), (to, to_name), mode, Some(caller));
        }
        self.rename(from, from_name, to, to_name, mode)?;
        let device = New::Node {
            kind: Kind::Char,
            mode: 0,
            rdev: 0,
        };
        let entry = self.make(from, from_name, &device, caller)?;
        self.forget(entry.node, 1);
        Ok(())
    }

    fn check_loops(&self, moved: &Arc<Inode>, into: &Arc<Inode>) -> Result<()> {
        let _shape = lock(&self.renames);
        if moved.kind == Kind::Dir && moved.is_ancestor_of(into) {
            return refuse(Errno::INVAL);
        }
        Ok(())
    }

    /// Brings what is to be renamed into the upper.
    fn bring_up(&self, inode: &Arc<Inode>) -> Result<()> {
        if inode.kind != Kind::Dir {
            return self.copy_up_file(inode, None);
        }
        if self.rules.redirect_dir {
            self.copy_up_dir(inode)?;
            return self.copy_up_shared_below(inode);
        }
        self.copy_up_tree(inode)
    }

    /// The part under locks.
    fn try_rename(
        &self,
        writable: &Writable,
        ends: &(End, End),
        source: &Arc<Inode>,
        target: Option<&Arc<Inode>>,
        how: How<'_>,
    ) -> Result<Attempt> {
        let (from, to) = ends;
        let _shape = lock(&self.renames);
        self.check_loops_locked(source, to.parent)?;
        let exchanged = target.filter(|_| how.mode == RenameMode::Exchange);
        if let Some(target) = exchanged {
            self.check_loops_locked(target, from.parent)?;
        }
        if !self.rules.redirect_dir {
            for inode in [Some(source), exchanged].into_iter().flatten() {
                if inode.kind == Kind::Dir && !self.cut(writable, inode)? {
                    return Ok(Attempt::Overtaken);
                }
            }
        }
        let Some(mut parents) = lock_parents(from.parent, to.parent) else {
            return refuse(Errno::NOTDIR);
        };
        if parents.to().removed.is_some() {
            return refuse(Errno::NOENT);
        }
        if !self.is_still(parents.from(), &from.name, source)? {
            return Ok(Attempt::Overtaken);
        }
        let target_is_still = match target {
            Some(target) => self.is_still(parents.to(), &to.name, target)?,
            None => self.slot_mut(parents.to(), &to.name)?.is_none(),
        };
        if !target_is_still {
            return Ok(Attempt::Overtaken);
        }
        let before = (
            before(parents.from(), &from.name),
            before(parents.to(), &to.name),
        );
        if !before.0.in_upper || (exchanged.is_some() && !before.1.in_upper) {
            return Ok(Attempt::Overtaken);
        }
        let moved = match exchanged {
            Some(target) => {
                let objects = (source, target);
                self.exchange(writable, ends, &mut parents, objects, before, how)?
            }
            None => {
                let objects = (source, target);
                self.replace(writable, ends, &mut parents, objects, before, how)?
            }
        };
        if moved != Attempt::Done {
            return Ok(moved);
        }
        if [Some(source), target].into_iter().flatten().any(|inode| {
            inode
                .file()
                .is_none_or(|file| file.shared_lower.load(Ordering::Relaxed))
        }) {
            self.note_name_change();
        }
        Ok(Attempt::Done)
    }

    fn check_loops_locked(&self, moved: &Arc<Inode>, into: &Arc<Inode>) -> Result<()> {
        if moved.kind == Kind::Dir && moved.is_ancestor_of(into) {
            return refuse(Errno::INVAL);
        }
        Ok(())
    }

    fn replace(
        &self,
        writable: &Writable,
        (from, to): &(End, End),
        parents: &mut Parents<'_>,
        (source, target): (&Arc<Inode>, Option<&Arc<Inode>>),
        (before_from, before_to): (Before, Before),
        how: How<'_>,
    ) -> Result<Attempt> {
        if before_from.covers {
            Self::check_may_hide(parents.from())?;
        }
        if before_to.covers && target.is_some() {
            Self::check_may_hide(parents.to())?;
        }
        let redirected = self.prepare_move(writable, source, before_to)?;
        if self.is_marked(source, before_from) || redirected.is_some() {
            self.mark_impure(writable, &to.dir, parents.to())?;
        }
        let is_dir = source.kind == Kind::Dir;
        let unsynced = !how.synced && (before_from.covers || (is_dir && before_to.covers));
        let mut mark_to = before_to.mark;
        let dead_dir = match target.filter(|target| target.kind == Kind::Dir) {
            Some(target) => {
                let Some(mut state) = target.lock_dir() else {
                    return refuse(Errno::NOTDIR);
                };
                if !self.is_empty(&mut state)? {
                    return refuse(Errno::NOTEMPTY);
                }
                let remains = self.remains_of(target, &mut state)?;
                if let Some(upper) = state.upper.clone() {
                    if before_to.covers {
                        // From here on its own marks are not needed to hide what lies below.
                        if writable.mark_for(&to.name) == Mark::Beside {
                            writable.mark_beside(&to.dir, &to.name)?;
                            mark_to = Some(Mark::Beside);
                        } else {
                            writable.make_opaque(&upper)?;
                        }
                    }
                    if !unsynced {
                        self.clear_marks_in(writable, &upper)?;
                    }
                }
                Some((state, remains))
            }
            None => None,
        };
        let in_place = how.leaves.is_some()
            || (before_from.covers
                && (redirected.is_some() || writable.mark_for(&from.name) == Mark::InPlace));
        if before_from.covers && !in_place {
            writable.mark_beside(&from.dir, &from.name)?;
        }
        if unsynced {
            // They hide nothing that is not hidden already.
            let beside = before_from.covers && !in_place;
            note_mark(parents.from(), &from.name, beside.then_some(Mark::Beside));
            note_mark(parents.to(), &to.name, mark_to);
            return Ok(Attempt::Unsynced);
        }
        let leaving = match how.leaves {
            Some(caller) => Some(self.prepare_leaving(writable, from, parents.from(), caller)?),
            None => None,
        };
        let mut files = lock_files(source, target);
        if let (Some(target), Some(file), true) = (
            target,
            target.and_then(|target| target.file()),
            before_to.in_upper,
        ) && let Some(state) = files.target()
        {
            self.keep_alive(target, file, state, to.parent, &to.name, &to.dir)?;
        }
        let swap = before_to.mark == Some(Mark::InPlace) && source.kind == Kind::Dir;
        if swap && in_place {
            // It will be the whiteout of the old name: an xattr mark counts only in a directory that says so.
            self.replace_mark(writable, from, to)?;
        }
        let flags = if swap {
            // A directory cannot replace the mark, which is a file: they change places.
            RenameFlags::EXCHANGE
        } else if in_place {
            RenameFlags::WHITEOUT
        } else {
            RenameFlags::empty()
        };
        let origin = (source.st_ino, before_from.ino);
        self.store_child_origin(writable, &to.dir, source.kind, origin);
        let leaves = (
            self.leaves_origin(writable, &from.dir, &from.name, source.kind),
            target.is_some_and(|t| self.leaves_origin(writable, &to.dir, &to.name, t.kind)),
        );
        let moved = move_entry(source, from, to, flags);
        if moved.is_err() && before_from.covers && !in_place && before_from.mark.is_none() {
            writable.clear_beside(&from.dir, &from.name);
        }
        if let (Err(_), Some(device)) = (&moved, &leaving) {
            writable.stage.discard(device);
            self.end_leaving(&from.dir);
        }
        moved.unless_immutable("rename", &from.name)?;
        if let Some(device) = &leaving {
            self.finish_leaving(writable, &from.dir, &from.name, device);
        }
        if leaves.0 && !Arc::ptr_eq(from.parent, to.parent) {
            self.drop_child_origin(&from.dir, before_from.ino);
        }
        if leaves.1 {
            self.drop_child_origin(&to.dir, before_to.ino);
        }
        if swap && !in_place {
            from.dir
                .unlink(&from.name)
                .during("unlink whiteout", &from.name)?;
        }
        if mark_to == Some(Mark::Beside) {
            writable.clear_beside(&to.dir, &to.name);
        }
        let buried = dead_dir.map(|(mut state, remains)| {
            bury(&mut state, remains);
            state
        });
        if let Some(state) = files.target() {
            state.drop_link(to.parent, &to.name);
        }
        if let Some(state) = files.source() {
            move_link(state, from, to);
        }
        drop(files);
        drop(buried);
        settle(source, to);
        let mark_from = match (before_from.covers, in_place && leaving.is_none()) {
            _ if leaving.is_some() => before_from.mark,
            (true, true) => Some(Mark::InPlace),
            (true, false) => Some(Mark::Beside),
            (false, _) => before_from.mark,
        };
        let upper = take_upper(parents.from(), &from.name, mark_from);
        put_upper(parents.to(), &to.name, (upper, redirected), source, true);
        if leaving.is_some() {
            self.show_device(parents.from(), &from.dir, &from.name)?;
        }
        Ok(Attempt::Done)
    }

    fn exchange(
        &self,
        writable: &Writable,
        (from, to): &(End, End),
        parents: &mut Parents<'_>,
        (source, target): (&Arc<Inode>, &Arc<Inode>),
        (before_from, before_to): (Before, Before),
        how: How<'_>,
    ) -> Result<Attempt> {
        let redirected = (
            self.prepare_move(writable, source, before_to)?,
            self.prepare_move(writable, target, before_from)?,
        );
        if !how.synced && (before_from.covers || before_to.covers) {
            return Ok(Attempt::Unsynced);
        }
        if self.is_marked(source, before_from) || redirected.0.is_some() {
            self.mark_impure(writable, &to.dir, parents.to())?;
        }
        if self.is_marked(target, before_to) || redirected.1.is_some() {
            self.mark_impure(writable, &from.dir, parents.from())?;
        }
        // A mark beside a directory that keeps its lower part under a redirect would cut that off.
        for (end, mark, redirected) in [
            (to, before_to.mark, &redirected.0),
            (from, before_from.mark, &redirected.1),
        ] {
            if redirected.is_some() && mark == Some(Mark::Beside) {
                writable.clear_beside(&end.dir, &end.name);
            }
        }
        let dirs = (dir_of(source), dir_of(target));
        let mut files = lock_files(source, Some(target));
        let (a, b) = (
            (source.st_ino, before_from.ino),
            (target.st_ino, before_to.ino),
        );
        self.store_child_origin(writable, &to.dir, source.kind, a);
        self.store_child_origin(writable, &from.dir, target.kind, b);
        let leaves = (
            self.leaves_origin(writable, &from.dir, &from.name, source.kind),
            self.leaves_origin(writable, &to.dir, &to.name, target.kind),
        );
        swap_entries(dirs, from, to).during("rename (exchange)", &from.name)?;
        if !Arc::ptr_eq(from.parent, to.parent) {
            if leaves.0 {
                self.drop_child_origin(&from.dir, before_from.ino);
            }
            if leaves.1 {
                self.drop_child_origin(&to.dir, before_to.ino);
            }
        }
        if let Some(state) = files.source() {
            move_link(state, from, to);
        }
        if let Some(state) = files.target() {
            move_link(state, to, from);
        }
        drop(files);
        settle(source, to);
        settle(target, from);
        let from_mark = before_from.mark.filter(|_| redirected.1.is_none());
        let to_mark = before_to.mark.filter(|_| redirected.0.is_none());
        let a = lift_upper(parents.from(), &from.name, from_mark);
        let b = lift_upper(parents.to(), &to.name, to_mark);
        put_upper(parents.to(), &to.name, (a, redirected.0), source, false);
        put_upper(parents.from(), &from.name, (b, redirected.1), target, false);
        Ok(Attempt::Done)
    }

    /// Puts a mark at the new name that will hide the old one as well.
    fn replace_mark(&self, writable: &Writable, from: &End<'_>, to: &End<'_>) -> Result<()> {
        let staged = writable.stage_mark(&from.dir)?;
        let stage = writable.stage.dir();
        let moved = stage.rename(&staged, &to.dir, &to.name, RenameFlags::empty());
        if moved.is_err() {
            writable.stage.discard(&staged);
        }
        moved.during("rename whiteout", &to.name)
    }

    /// Before a directory moves to a place where lower content lies under its new name: makes sure that it
    /// does not merge with that. With redirects its own lower part goes along; gives what was written for that.
    fn prepare_move(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        target: Before,
    ) -> Result<Option<Redirect>> {
        let Some(mut state) = inode.lock_dir() else {
            return Ok(None);
        };
        self.load(&mut state)?;
        let Some(upper) = state.upper.clone() else {
            return refuse(Errno::STALE);
        };
        if !state.lowers.is_empty() {
            return self.write_redirect(writable, &upper, &state).map(Some);
        }
        if target.covers {
            let times = upper.stat().during("stat", b".")?;
            writable.make_opaque(&upper)?;
            restore_times(&upper, &times);
        }
        Ok(None)
    }

    /// Whether an entry carries xattrs that are only looked for in directories that say so: an origin, or that it is
    /// a device.
    fn is_marked(&self, inode: &Inode, before: Before) -> bool {
        inode.st_ino != self.nodes.numbers.of_upper(before.ino) || inode.kind == Kind::Char
    }
}

fn before(state: &DirState, name: &[u8]) -> Before {
    let slot = state.listing.as_ref().and_then(|listing| listing.get(name));
    Before {
        covers: slot.is_some_and(crate::union::node::listing::Slot::covers_lower),
        mark: slot.and_then(|slot| slot.merged.mark),
        in_upper: slot.is_some_and(|slot| slot.merged.upper.is_some()),
        ino: slot
            .and_then(|slot| slot.merged.upper.as_ref())
            .map_or(0, |upper| upper.ino),
    }
}

#[cfg(test)]
mod tests;
