//! An entry gets another name, in the place of what had it, if anything.

use std::sync::{Arc, MutexGuard};

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::attempt::{Attempt, Before, Outcome};
use super::steps::{
    End, Ends, Entered, move_entry, move_link, put_upper, remember_mark, settle, take_upper,
};
use crate::layer::dir::Name;
use crate::layer::marks::Mark;
use crate::layer::stat::Kind;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::guards::{Files, Parents, lock_files};
use crate::union::node::inode::{DirState, Inode};
use crate::union::node::removed_dir::RemovedDir;
use crate::union::node::stack::Redirect;
use crate::union::work::writable::Writable;

/// A rename with or without something in its way.
pub(super) struct Replace<'a> {
    pub(super) attempt: &'a Attempt<'a>,
    pub(super) before_from: Before,
    pub(super) before_to: Before,
}

/// An empty directory that is in the way, locked, and what is kept of it.
struct Doomed<'a> {
    state: MutexGuard<'a, DirState>,
    removed_dir: RemovedDir,
}

/// How the old name is hidden and the new one taken.
struct Marks {
    /// The whiteout of the old name comes by the rename itself.
    in_place: bool,
    /// The mark is where the new entry goes, and is exchanged with it.
    swap: bool,
    /// What stands at the new name.
    to: Option<Mark>,
    /// The device that is to be left under the old name, in the work directory.
    device: Option<Name>,
}

impl<'a> Replace<'a> {
    pub(super) fn run(self, parents: &mut Parents<'_>) -> Result<Outcome> {
        let Attempt {
            union,
            writable,
            ends,
            source,
            target,
            ..
        } = *self.attempt;
        let Ends { from, to } = ends;
        self.check_permitted(parents)?;
        let redirect = self.attempt.prepare_move(source, self.before_to)?;
        if self.attempt.is_marked(source, self.before_from) || redirect.is_some() {
            union.mark_impure(writable, &to.dir, parents.to())?;
        }
        let mut marks = Marks {
            in_place: self.attempt.whiteout_for.is_some()
                || (self.before_from.covers
                    && (redirect.is_some() || writable.mark_for(&from.name) == Mark::InPlace)),
            swap: self.before_to.mark == Some(Mark::InPlace) && source.kind == Kind::Dir,
            to: self.before_to.mark,
            device: None,
        };
        let doomed = self.empty_target(&mut marks)?;
        if self.before_from.covers && !marks.in_place {
            writable.mark_beside(&from.dir, &from.name)?;
        }
        if self.is_unsynced() {
            // They hide nothing that is not hidden already.
            let beside = self.before_from.covers && !marks.in_place;
            remember_mark(parents.from(), &from.name, beside.then_some(Mark::Beside));
            remember_mark(parents.to(), &to.name, marks.to);
            return Ok(Outcome::Unsynced);
        }
        if let Some(caller) = self.attempt.whiteout_for {
            let device = union.prepare_device_whiteout(writable, from, parents.from(), caller)?;
            marks.device = Some(device);
        }
        let mut files = lock_files(source, target);
        self.keep_target_alive(&mut files)?;
        self.move_on_disk(&marks)?;
        let removed = doomed.map(|mut doomed| {
            doomed.state.set_removed(doomed.removed_dir);
            doomed.state
        });
        if let Some(state) = files.target() {
            state.drop_link(to.parent, &to.name);
        }
        if let Some(state) = files.source() {
            move_link(state, from, to);
        }
        drop(files);
        drop(removed);
        settle(source, to);
        self.enter(parents, &marks, redirect)?;
        Ok(Outcome::Done)
    }

    fn check_permitted(&self, parents: &mut Parents<'_>) -> Result<()> {
        if self.before_from.covers {
            Union::check_may_hide(parents.from())?;
        }
        if self.before_to.covers && self.attempt.target.is_some() {
            Union::check_may_hide(parents.to())?;
        }
        Ok(())
    }

    /// Whether marks must be on the disk before the entry moves.
    fn is_unsynced(&self) -> bool {
        let is_dir = self.attempt.source.kind == Kind::Dir;
        !self.attempt.synced && (self.before_from.covers || (is_dir && self.before_to.covers))
    }

    /// Prepares a directory that is in the way: it has no names, and from here on its own marks are
    /// not needed.
    fn empty_target(&self, marks: &mut Marks) -> Result<Option<Doomed<'a>>> {
        let Attempt {
            union,
            writable,
            ends,
            ..
        } = *self.attempt;
        let is_dir = |target: &&'a Arc<Inode>| target.kind == Kind::Dir;
        let Some(target) = self.attempt.target.filter(is_dir) else {
            return Ok(None);
        };
        let to = &ends.to;
        let Some(mut state) = target.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        if !union.is_empty(&mut state)? {
            return fail(Errno::NOTEMPTY);
        }
        let removed_dir = union.removed_dir_of(target, &mut state)?;
        if let Some(upper) = state.upper.clone() {
            if self.before_to.covers {
                // From here on its own marks are not needed to hide what lies below.
                if writable.mark_for(&to.name) == Mark::Beside {
                    writable.mark_beside(&to.dir, &to.name)?;
                    marks.to = Some(Mark::Beside);
                } else {
                    writable.make_opaque(&upper)?;
                }
            }
            if !self.is_unsynced() {
                union.clear_marks_in(writable, &upper)?;
            }
        }
        Ok(Some(Doomed { state, removed_dir }))
    }

    /// A file that is in the way can be used on by those who have it open.
    fn keep_target_alive(&self, files: &mut Files<'_>) -> Result<()> {
        let to = &self.attempt.ends.to;
        if self.before_to.in_upper
            && let Some(target) = self.attempt.target
            && let Some(file) = target.file()
            && let Some(state) = files.target()
        {
            let union = self.attempt.union;
            union.keep_alive(target, file, state, to.parent, &to.name, &to.dir)?;
        }
        Ok(())
    }

    /// Moves the entry by one system call, and takes away what is not needed any more.
    fn move_on_disk(&self, marks: &Marks) -> Result<()> {
        let Attempt {
            union,
            writable,
            ends,
            source,
            target,
            ..
        } = *self.attempt;
        let Ends { from, to } = ends;
        if marks.swap && marks.in_place {
            // It will be the whiteout of the old name: an xattr mark counts only in a directory
            // that says so.
            replace_mark(writable, from, to)?;
        }
        let flags = if marks.swap {
            // A directory cannot replace the mark, which is a file: they change places.
            RenameFlags::EXCHANGE
        } else if marks.in_place {
            RenameFlags::WHITEOUT
        } else {
            RenameFlags::empty()
        };
        let origin = (source.st_ino, self.before_from.ino);
        union.store_child_origin(writable, &to.dir, source.kind, origin);
        let source_leaves = union.leaves_origin(writable, &from.dir, &from.name, source.kind);
        let target_leaves =
            target.is_some_and(|t| union.leaves_origin(writable, &to.dir, &to.name, t.kind));
        let moved = move_entry(source, from, to, flags);
        if moved.is_err() {
            self.take_back(marks);
        }
        moved.unless_immutable("rename", &from.name)?;
        if let Some(device) = &marks.device {
            union.finish_device_whiteout(writable, &from.dir, &from.name, device);
        }
        if source_leaves && !Arc::ptr_eq(from.parent, to.parent) {
            union.drop_child_origin(&from.dir, self.before_from.ino);
        }
        if target_leaves {
            union.drop_child_origin(&to.dir, self.before_to.ino);
        }
        if marks.swap && !marks.in_place {
            from.dir
                .unlink(&from.name)
                .context("unlink whiteout", &from.name)?;
        }
        if marks.to == Some(Mark::Beside) {
            writable.clear_beside(&to.dir, &to.name);
        }
        Ok(())
    }

    /// The disk refused: takes back what was only written for the rename.
    fn take_back(&self, marks: &Marks) {
        let (writable, from) = (self.attempt.writable, &self.attempt.ends.from);
        if self.before_from.covers && !marks.in_place && self.before_from.mark.is_none() {
            writable.clear_beside(&from.dir, &from.name);
        }
        if let Some(device) = &marks.device {
            writable.stage.discard(device);
            self.attempt.union.end_device_whiteout(&from.dir);
        }
    }

    /// In the listings.
    fn enter(
        &self,
        parents: &mut Parents<'_>,
        marks: &Marks,
        redirect: Option<Redirect>,
    ) -> Result<()> {
        let Ends { from, to } = self.attempt.ends;
        let mark_from = match (self.before_from.covers, marks.in_place) {
            _ if marks.device.is_some() => self.before_from.mark,
            (true, true) => Some(Mark::InPlace),
            (true, false) => Some(Mark::Beside),
            (false, _) => self.before_from.mark,
        };
        let moved = Entered {
            found: take_upper(parents.from(), &from.name, mark_from),
            redirect,
            inode: self.attempt.source,
        };
        put_upper(parents.to(), &to.name, moved, true);
        if marks.device.is_some() {
            let union = self.attempt.union;
            union.show_device(parents.from(), &from.dir, &from.name)?;
        }
        Ok(())
    }
}

/// Puts a mark at the new name that will hide the old one as well.
fn replace_mark(writable: &Writable, from: &End<'_>, to: &End<'_>) -> Result<()> {
    let staged = writable.stage_mark(&from.dir)?;
    let stage = writable.stage.dir();
    let moved = stage.rename(&staged, &to.dir, &to.name, RenameFlags::empty());
    if moved.is_err() {
        writable.stage.discard(&staged);
    }
    moved.context("rename whiteout", &to.name)
}
