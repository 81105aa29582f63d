//! rename(2) in all its forms.
//!
//! Everything that is renamed is first copied up: a file by copy-up; a directory with lower content
//! by copying up everything below it, in place, where each single copy leaves the merged view as it
//! is. Then it is marked opaque, which changes nothing either, since it hides only what was copied.
//! From there on it is an ordinary directory of the upper and moves by one system call. (Building
//! the copy beside, in the work directory, would need the same copies, and a second one of what the
//! upper already has.) With `redirect_dir=on` nothing is copied: a redirect xattr names the lower
//! directory.
//!
//! # Crash
//! Before the renameat2(2) the old name is there, after it the new one. The whiteout of the old
//! name is written before it (beside the entry, where it hides only lower layers) or by it
//! (`RENAME_WHITEOUT`). After a power cut the same holds where the disk keeps the order of changes.
//! Where it does not (btrfs), marks and copies are synced before the entry moves, without a lock:
//! what is written by then leaves the merged view as it is, and the rename starts over.

mod attempt;
mod exchange;
mod replace;
pub(in crate::union) mod steps;
#[cfg(test)]
mod tests;
mod whiteout;

use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Error, Result, fail};
use crate::union::namespace::remove::check_types;
use crate::union::node::inode::{EntryName, Inode};
use crate::union::types::{Caller, New, RenameMode};

use attempt::{Attempt, Outcome};
use steps::{End, Ends, sync_marks};

/// How often a rename starts over because the tree changed while it prepared.
const PATIENCE: usize = 100;

/// What is renamed to what, as it was asked for.
#[derive(Clone, Copy)]
pub(in crate::union) struct Rename<'a> {
    pub(in crate::union) from: EntryName<'a>,
    pub(in crate::union) to: EntryName<'a>,
    pub(in crate::union) mode: RenameMode,
    /// A device is left under the old name, made for this caller.
    pub(in crate::union) whiteout_for: Option<&'a Caller<'a>>,
}

/// The objects that have the two names.
struct Subjects {
    source: Arc<Inode>,
    target: Option<Arc<Inode>>,
}

impl Union {
    /// [`Union::rename`] and [`Union::rename_with_whiteout_device`] in the merged tree.
    pub(in crate::union) fn rename_in_layers(&self, rename: Rename<'_>) -> Result<()> {
        let writable = self.writable()?;
        if rename.whiteout_for.is_some() && !self.supports_device_whiteout(writable) {
            return self.rename_and_make_device(rename);
        }
        self.check_new_name(rename.to.name)?;
        let need_not_sync = self.rules.volatile || writable.abilities.ordered;
        let mut synced = need_not_sync;
        for _ in 0..PATIENCE {
            let Some(subjects) = self.subjects_of(&rename)? else {
                return Ok(());
            };
            self.bring_up(&subjects.source)?;
            if let (Some(target), RenameMode::Exchange) = (&subjects.target, rename.mode) {
                self.bring_up(target)?;
            }
            let ends = Ends {
                from: self.end_of(rename.from)?,
                to: self.end_of(rename.to)?,
            };
            let attempt = Attempt {
                union: self,
                writable,
                ends: &ends,
                source: &subjects.source,
                target: subjects.target.as_ref(),
                mode: rename.mode,
                whiteout_for: rename.whiteout_for,
                synced,
            };
            match attempt.run()? {
                Outcome::Done => return Ok(()),
                Outcome::Overtaken => synced = need_not_sync,
                Outcome::Unsynced => {
                    // With all that was copied, and before a whiteout comes that the disk makes by
                    // the rename itself.
                    let all = rename.mode == RenameMode::Exchange
                        || subjects.source.kind == Kind::Dir
                        || writable.char_marks;
                    let marks = sync_marks(writable, &ends.from.dir, all);
                    self.remember_failed_sync(&marks);
                    marks?;
                    synced = true;
                }
            }
        }
        Err(Error::rule(Errno::BUSY))
    }

    /// Where the upper's disk has no whiteout devices: renames, then makes the device that is left.
    fn rename_and_make_device(&self, rename: Rename<'_>) -> Result<()> {
        self.rename_in_layers(Rename {
            whiteout_for: None,
            ..rename
        })?;
        let device = New::Node {
            kind: Kind::Char,
            mode: 0,
            rdev: 0,
        };
        let caller = rename.whiteout_for.copied().unwrap_or_default();
        self.make_in_layers(rename.from.parent, rename.from.name, &device, &caller)?;
        Ok(())
    }

    /// Finds what has the names, and whether it may be renamed; `None` when there is nothing to do.
    fn subjects_of(&self, rename: &Rename<'_>) -> Result<Option<Subjects>> {
        let Rename { from, to, mode, .. } = rename;
        let Some(source) = self.child(from.parent, from.name)? else {
            return fail(Errno::NOENT);
        };
        let source = source.inode;
        let target = self.child(to.parent, to.name)?.map(|child| child.inode);
        self.check_no_mount(&source, true)?;
        if let Some(target) = &target {
            self.check_no_mount(target, *mode == RenameMode::Exchange)?;
        }
        check_presence(target.is_some(), *mode)?;
        self.check_loops(&source, to.parent)?;
        match (&target, mode) {
            (Some(target), RenameMode::Exchange) => self.check_loops(target, from.parent)?,
            (Some(target), _) if target.kind == Kind::Dir && target.is_ancestor_of(from.parent) => {
                return fail(Errno::NOTEMPTY);
            }
            _ => {}
        }
        match (&target, mode) {
            // Two names of one file: rename(2) does nothing.
            (Some(target), _) if Arc::ptr_eq(&source, target) => return Ok(None),
            (Some(target), RenameMode::Replace) => {
                check_types(&source, target)?;
                if target.kind == Kind::Dir {
                    self.check_empty(target).map_err(|error| {
                        self.unless_protected(error, &[from.parent, &source, to.parent, target])
                    })?;
                }
            }
            _ => {}
        }
        Ok(Some(Subjects { source, target }))
    }

    fn end_of<'a>(&self, entry: EntryName<'a>) -> Result<End<'a>> {
        Ok(End {
            parent: entry.parent,
            dir: self.copy_up_dir(entry.parent)?,
            name: Name::from(entry.name),
        })
    }

    fn check_loops(&self, moved: &Arc<Inode>, into: &Arc<Inode>) -> Result<()> {
        let _shape = lock(&self.renames);
        check_loops_locked(moved, into)
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
}

/// Whether there may be something at the new name, which the kernel asks before all else
/// (`do_renameat2` in `fs/namei.c`). Errors: EEXIST for a rename that replaces nothing, ENOENT for
/// an exchange.
pub(in crate::union) fn check_presence(is_there: bool, mode: RenameMode) -> Result<()> {
    match (is_there, mode) {
        (true, RenameMode::NoReplace) => fail(Errno::EXIST),
        (false, RenameMode::Exchange) => fail(Errno::NOENT),
        _ => Ok(()),
    }
}

/// A directory does not go below itself. Errors: EINVAL.
fn check_loops_locked(moved: &Arc<Inode>, into: &Arc<Inode>) -> Result<()> {
    if moved.kind == Kind::Dir && moved.is_ancestor_of(into) {
        return fail(Errno::INVAL);
    }
    Ok(())
}
