//! One attempt at a rename, under the locks of both parents.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::check_loops_locked;
use super::exchange::Exchange;
use super::replace::Replace;
use super::steps::Ends;
use crate::layer::marks::Mark;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::copyup::copy::restore_dir_times;
use crate::union::error::{Context, Result, fail};
use crate::union::node::guards::{Parents, lock_parents};
use crate::union::node::inode::{DirState, Inode};
use crate::union::node::listing::Slot;
use crate::union::node::stack::Redirect;
use crate::union::types::{Caller, RenameMode};
use crate::union::work::writable::Writable;

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// What was prepared does not hold any more.
    Overtaken,
    /// The marks are written, and must be on the disk before the entry moves.
    Unsynced,
}

/// What the slot of a name said before anything was changed.
#[derive(Clone, Copy)]
pub(super) struct Before {
    /// Lower content lies under the name.
    pub(super) covers: bool,
    pub(super) mark: Option<Mark>,
    pub(super) in_upper: bool,
    pub(super) ino: u64,
}

impl Before {
    fn of(state: &DirState, name: &[u8]) -> Self {
        let slot = state.listing.as_ref().and_then(|listing| listing.get(name));
        Self {
            covers: slot.is_some_and(Slot::covers_lower),
            mark: slot.and_then(|slot| slot.merged.mark),
            in_upper: slot.is_some_and(|slot| slot.merged.upper.is_some()),
            ino: slot
                .and_then(|slot| slot.merged.upper.as_ref())
                .map_or(0, |upper| upper.ino),
        }
    }
}

/// A rename whose objects are in the upper.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) union: &'a Union,
    pub(super) writable: &'a Writable,
    pub(super) ends: &'a Ends<'a>,
    pub(super) source: &'a Arc<Inode>,
    pub(super) target: Option<&'a Arc<Inode>>,
    pub(super) mode: RenameMode,
    /// A device is left under the old name, made for this caller.
    pub(super) whiteout_for: Option<&'a Caller<'a>>,
    /// What must be on the disk before is there, or need not be.
    pub(super) synced: bool,
}

impl Attempt<'_> {
    /// Renames, if all is as it was when it was prepared.
    pub(super) fn run(&self) -> Result<Outcome> {
        let Ends { from, to } = self.ends;
        let _shape = lock(&self.union.renames);
        check_loops_locked(self.source, to.parent)?;
        let exchanged = self.target.filter(|_| self.mode == RenameMode::Exchange);
        if let Some(target) = exchanged {
            check_loops_locked(target, from.parent)?;
        }
        if !self.detach(exchanged)? {
            return Ok(Outcome::Overtaken);
        }
        let Some(mut parents) = lock_parents(from.parent, to.parent) else {
            return fail(Errno::NOTDIR);
        };
        if !self.is_still_so(&mut parents)? {
            return Ok(Outcome::Overtaken);
        }
        let before_from = Before::of(parents.from(), &from.name);
        let before_to = Before::of(parents.to(), &to.name);
        if !before_from.in_upper || (exchanged.is_some() && !before_to.in_upper) {
            return Ok(Outcome::Overtaken);
        }
        let outcome = match exchanged {
            Some(target) => Exchange {
                attempt: self,
                target,
                before_from,
                before_to,
            }
            .run(&mut parents)?,
            None => Replace {
                attempt: self,
                before_from,
                before_to,
            }
            .run(&mut parents)?,
        };
        if outcome == Outcome::Done && self.changes_shared_names() {
            self.union.count_name_change();
        }
        Ok(outcome)
    }

    /// Makes directories independent of what lies below them, unless redirects keep that; `false`
    /// when something in them was not copied up.
    fn detach(&self, exchanged: Option<&Arc<Inode>>) -> Result<bool> {
        if self.union.rules.redirect_dir {
            return Ok(true);
        }
        for inode in [Some(self.source), exchanged].into_iter().flatten() {
            if inode.kind == Kind::Dir && !self.union.detach_tree(self.writable, inode)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the names mean what they meant. Errors: ENOENT when the new parent was removed.
    fn is_still_so(&self, parents: &mut Parents<'_>) -> Result<bool> {
        let Ends { from, to } = self.ends;
        if parents.to().removed.is_some() {
            return fail(Errno::NOENT);
        }
        if !self
            .union
            .is_still(parents.from(), &from.name, self.source)?
        {
            return Ok(false);
        }
        match self.target {
            Some(target) => self.union.is_still(parents.to(), &to.name, target),
            None => Ok(self.union.slot_mut(parents.to(), &to.name)?.is_none()),
        }
    }

    /// Whether a list of the names of files that share an inode is old now.
    fn changes_shared_names(&self) -> bool {
        let both = [Some(self.source), self.target];
        both.into_iter().flatten().any(|inode| {
            inode
                .file()
                .is_none_or(|file| file.shared_lower.load(Ordering::Relaxed))
        })
    }

    /// Before a directory moves to a place where lower content lies under its new name: makes sure
    /// that it does not merge with that. With redirects its own lower part goes along; returns what
    /// was written for that.
    pub(super) fn prepare_move(
        &self,
        inode: &Arc<Inode>,
        new_place: Before,
    ) -> Result<Option<Redirect>> {
        let Some(mut state) = inode.lock_dir() else {
            return Ok(None);
        };
        self.union.load(&mut state)?;
        let Some(upper) = state.upper.clone() else {
            return fail(Errno::STALE);
        };
        if !state.lowers.is_empty() {
            let redirect = self.union.write_redirect(self.writable, &upper, &state);
            return redirect.map(Some);
        }
        if new_place.covers {
            let times = upper.stat().context("stat", b".")?;
            self.writable.make_opaque(&upper)?;
            restore_dir_times(&upper, &times);
        }
        Ok(None)
    }

    /// Whether an entry carries xattrs that are only looked for in directories that say so: an
    /// origin, or that it is a device.
    pub(super) fn is_marked(&self, inode: &Inode, before: Before) -> bool {
        inode.st_ino != self.union.nodes.numbers.of_upper(before.ino) || inode.kind == Kind::Char
    }
}
