//! Two entries change places.

use std::sync::Arc;

use super::attempt::{Attempt, Before, Outcome};
use super::steps::{
    End, Ends, Entered, dir_of, lift_upper, move_link, put_upper, settle, swap_entries,
};
use crate::layer::marks::Mark;
use crate::union::error::{Context, Result};
use crate::union::node::guards::{Parents, lock_files};
use crate::union::node::inode::Inode;
use crate::union::node::stack::Redirect;

/// An exchange, as far as it was prepared.
pub(super) struct Exchange<'a> {
    pub(super) attempt: &'a Attempt<'a>,
    pub(super) target: &'a Arc<Inode>,
    pub(super) before_from: Before,
    pub(super) before_to: Before,
}

/// What was written for the lower parts of the two, where they are directories that have some.
struct Redirects {
    source: Option<Redirect>,
    target: Option<Redirect>,
}

impl Exchange<'_> {
    pub(super) fn run(self, parents: &mut Parents<'_>) -> Result<Outcome> {
        let attempt = self.attempt;
        let redirects = Redirects {
            source: attempt.prepare_move(attempt.source, self.before_to)?,
            target: attempt.prepare_move(self.target, self.before_from)?,
        };
        if !attempt.synced && (self.before_from.covers || self.before_to.covers) {
            return Ok(Outcome::Unsynced);
        }
        self.mark(parents, &redirects)?;
        self.swap()?;
        self.enter(parents, redirects);
        Ok(Outcome::Done)
    }

    /// Marks on the disk that must be there, and must not be there, when the entries have changed
    /// places.
    fn mark(&self, parents: &mut Parents<'_>, redirects: &Redirects) -> Result<()> {
        let Attempt {
            union,
            writable,
            ends,
            source,
            ..
        } = self.attempt;
        let Ends { from, to } = ends;
        if self.attempt.is_marked(source, self.before_from) || redirects.source.is_some() {
            union.mark_impure(writable, &to.dir, parents.to())?;
        }
        if self.attempt.is_marked(self.target, self.before_to) || redirects.target.is_some() {
            union.mark_impure(writable, &from.dir, parents.from())?;
        }
        // A mark beside a directory that keeps its lower part under a redirect would make it
        // opaque.
        let clear = |end: &End<'_>, mark: Option<Mark>, redirect: &Option<Redirect>| {
            if redirect.is_some() && mark == Some(Mark::Beside) {
                writable.clear_beside(&end.dir, &end.name);
            }
        };
        clear(to, self.before_to.mark, &redirects.source);
        clear(from, self.before_from.mark, &redirects.target);
        Ok(())
    }

    /// On the disk, by one system call, and in the inodes.
    fn swap(&self) -> Result<()> {
        let Attempt {
            union,
            writable,
            ends,
            source,
            ..
        } = *self.attempt;
        let (Ends { from, to }, target) = (ends, self.target);
        let dirs = (dir_of(source), dir_of(target));
        let mut files = lock_files(source, Some(target));
        let source_origin = (source.st_ino, self.before_from.ino);
        let target_origin = (target.st_ino, self.before_to.ino);
        union.store_child_origin(writable, &to.dir, source.kind, source_origin);
        union.store_child_origin(writable, &from.dir, target.kind, target_origin);
        let source_leaves = union.leaves_origin(writable, &from.dir, &from.name, source.kind);
        let target_leaves = union.leaves_origin(writable, &to.dir, &to.name, target.kind);
        swap_entries(dirs, from, to).context("rename (exchange)", &from.name)?;
        if !Arc::ptr_eq(from.parent, to.parent) {
            if source_leaves {
                union.drop_child_origin(&from.dir, self.before_from.ino);
            }
            if target_leaves {
                union.drop_child_origin(&to.dir, self.before_to.ino);
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
        Ok(())
    }

    /// In the listings.
    fn enter(&self, parents: &mut Parents<'_>, redirects: Redirects) {
        let (Ends { from, to }, source) = (self.attempt.ends, self.attempt.source);
        let from_mark = self.before_from.mark.filter(|_| redirects.target.is_none());
        let to_mark = self.before_to.mark.filter(|_| redirects.source.is_none());
        let of_source = lift_upper(parents.from(), &from.name, from_mark);
        let of_target = lift_upper(parents.to(), &to.name, to_mark);
        let moved = Entered {
            found: of_source,
            redirect: redirects.source,
            inode: source,
        };
        put_upper(parents.to(), &to.name, moved, false);
        let moved = Entered {
            found: of_target,
            redirect: redirects.target,
            inode: self.target,
        };
        put_upper(parents.from(), &from.name, moved, false);
    }
}
