//! Removing names. Nothing is ever copied up for that but the directories on the way.
//!
//! # Crash
//! Where a lower layer has the name, its whiteout is written before the upper's entry goes (or
//! replaces it in one rename): killed between, the entry is still there, and a directory is still
//! there and empty.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::marks::Mark;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Error, Result, fail};
use crate::union::node::inode::{DirState, FileNode, FileState, Inode, Real};
use crate::union::work::writable::Writable;

/// How often an operation starts over because the tree changed under it.
const PATIENCE: usize = 100;

impl Union {
    /// [`Union::rmdir`] in a directory of the merged tree.
    pub(in crate::union) fn rmdir_in_layers(&self, parent: &Arc<Inode>, name: &[u8]) -> Result<()> {
        let writable = self.writable()?;
        for _ in 0..PATIENCE {
            let Some(child) = self.child(parent, name)? else {
                return fail(Errno::NOENT);
            };
            let inode = child.inode;
            self.check_no_mount(&inode, false)?;
            self.check_empty(&inode)
                .map_err(|error| self.unless_protected(error, &[parent, &inode]))?;
            let dir = self.dir_for_removal(parent, name)?;
            let trash = {
                let Some(mut state) = parent.lock_dir() else {
                    return fail(Errno::NOTDIR);
                };
                if !self.is_still(&mut state, name, &inode)? {
                    continue;
                }
                let Some(mut gone) = inode.lock_dir() else {
                    return fail(Errno::NOTDIR);
                };
                if !self.is_empty(&mut gone)? {
                    return fail(Errno::NOTEMPTY);
                }
                let removed_dir = self.removed_dir_of(&inode, &mut gone)?;
                let trash = self.rmdir_locked(writable, &mut state, &dir, name)?;
                gone.set_removed(removed_dir);
                trash
            };
            if let Some(trash) = trash {
                writable.stage.discard(&trash);
            }
            return Ok(());
        }
        Err(Error::rule(Errno::BUSY))
    }

    /// [`Union::unlink`] in a directory of the merged tree.
    pub(in crate::union) fn unlink_in_layers(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<()> {
        let writable = self.writable()?;
        for _ in 0..PATIENCE {
            let Some(child) = self.child(parent, name)? else {
                return fail(Errno::NOENT);
            };
            self.check_no_mount(&child.inode, false)?;
            let Some(file) = child.inode.file() else {
                return fail(Errno::ISDIR);
            };
            let dir = self.dir_for_removal(parent, name)?;
            let Some(mut state) = parent.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            if !self.is_still(&mut state, name, &child.inode)? {
                continue;
            }
            let mut held = lock(&file.state);
            self.unlink_locked(writable, &mut state, &dir, name, |in_upper| {
                if in_upper {
                    self.keep_alive(&child.inode, file, &mut held, parent, name, &dir)?;
                }
                Ok(())
            })?;
            held.drop_link(parent, name);
            if file.shared_lower.load(Ordering::Relaxed) {
                self.count_name_change();
            }
            return Ok(());
        }
        Err(Error::rule(Errno::BUSY))
    }

    /// The upper's directory in which a name is removed: needed where a whiteout is to be written
    /// or the upper has the name, which then has the directory too.
    fn dir_for_removal(&self, parent: &Arc<Inode>, name: &[u8]) -> Result<WritableDir> {
        {
            let Some(mut state) = parent.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            if self.slot_mut(&mut state, name)?.is_none() {
                return fail(Errno::NOENT);
            }
            if let Some(upper) = &state.upper {
                return Ok(upper.clone());
            }
        }
        self.copy_up_dir(parent)
    }

    /// Whether a name still leads to an inode, in a locked directory.
    pub(super) fn is_still(
        &self,
        state: &mut DirState,
        name: &[u8],
        inode: &Arc<Inode>,
    ) -> Result<bool> {
        Ok(self
            .slot_mut(state, name)?
            .and_then(|slot| slot.child.upgrade())
            .is_some_and(|child| Arc::ptr_eq(&child, inode)))
    }

    /// Takes the name away on disk and in the listing. `before` runs when all is checked, before
    /// anything is changed, and is passed whether the upper has an entry.
    fn unlink_locked(
        &self,
        writable: &Writable,
        state: &mut DirState,
        dir: &WritableDir,
        name: &[u8],
        before: impl FnOnce(bool) -> Result<()>,
    ) -> Result<()> {
        let Some(slot) = self.slot_mut(state, name)? else {
            return fail(Errno::NOENT);
        };
        let in_upper = slot
            .merged
            .upper
            .as_ref()
            .map(|found| (found.kind, found.ino));
        let (covers, old_mark) = (slot.covers_lower(), slot.merged.mark);
        if covers {
            Self::check_may_hide(state)?;
        }
        let leaves = in_upper
            .filter(|(kind, _)| self.leaves_origin(writable, dir, name, *kind))
            .map(|(_, ino)| ino);
        before(in_upper.is_some())?;
        let mut mark = old_mark;
        if covers {
            match writable.mark_for(name) {
                Mark::InPlace => {
                    writable.mark_in_place(dir, name)?;
                    mark = Some(Mark::InPlace);
                }
                Mark::Beside => {
                    writable.mark_beside(dir, name)?;
                    mark = Some(Mark::Beside);
                }
            }
        }
        if in_upper.is_some() && mark != Some(Mark::InPlace) {
            let removed = dir.unlink(name);
            if removed.is_err() && mark != old_mark {
                writable.clear_beside(dir, name);
            }
            removed.unless_immutable("unlink", name)?;
        }
        if let Some(ino) = leaves {
            self.drop_child_origin(dir, ino);
        }
        if let Some(listing) = &mut state.listing {
            listing.update(&Name::from(name), |slot| {
                slot.merged.upper = None;
                slot.merged.upper_redirect = None;
                slot.merged.mark = mark;
            });
        }
        Ok(())
    }

    /// Before a name of an upper file goes: finds the file another home, or holds on to it by a
    /// descriptor until the transport forgets it.
    pub(in crate::union) fn keep_alive(
        &self,
        inode: &Inode,
        file: &FileNode,
        state: &mut FileState,
        parent: &Arc<Inode>,
        name: &[u8],
        dir: &WritableDir,
    ) -> Result<()> {
        let Real::Upper {
            dir: home,
            name: home_name,
        } = &state.real
        else {
            return Ok(());
        };
        if !home.same(dir) || &**home_name != name {
            return Ok(());
        }
        let other = state.links.iter().find_map(|link| {
            (!link.place.is(parent, name))
                .then(|| Some((link.upper.clone()?, Arc::clone(&link.place.name))))
                .flatten()
        });
        if let Some((dir, name)) = other {
            state.real = Real::Upper { dir, name };
        } else if Self::is_known(inode) {
            // A file without bytes of its own has those of another one open.
            let own = file.data.get().filter(|_| state.bytes.is_none());
            let object = match own {
                Some(fd) => home.wrap(fd),
                None => dir.object(name).context("open", name)?,
            };
            state.real = Real::Orphan(object);
        }
        Ok(())
    }

    /// ENOTEMPTY unless a directory shows nothing, EACCES when that cannot be known, ENOTDIR for
    /// anything else.
    pub(super) fn check_empty(&self, inode: &Inode) -> Result<()> {
        let Some(mut state) = inode.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        if self.is_empty(&mut state)? {
            Ok(())
        } else {
            fail(Errno::NOTEMPTY)
        }
    }

    /// Takes an empty directory away. What held its marks is moved to the stage in one piece; its
    /// name there is returned, to be removed when no lock is held.
    fn rmdir_locked(
        &self,
        writable: &Writable,
        state: &mut DirState,
        dir: &WritableDir,
        name: &[u8],
    ) -> Result<Option<Name>> {
        let Some(slot) = self.slot_mut(state, name)? else {
            return fail(Errno::NOENT);
        };
        let (in_upper, covers, mut mark) = (
            slot.merged.upper.is_some(),
            slot.covers_lower(),
            slot.merged.mark,
        );
        if covers {
            Self::check_may_hide(state)?;
        }
        let old_mark = mark;
        let mut trash = None;
        if covers && writable.mark_for(name) == Mark::InPlace {
            mark = Some(Mark::InPlace);
            if in_upper {
                let staged = writable.stage_mark(dir)?;
                let swapped =
                    writable
                        .stage
                        .dir()
                        .rename(&staged, dir, name, RenameFlags::EXCHANGE);
                if swapped.is_err() {
                    writable.stage.discard(&staged);
                }
                swapped.context("exchange directory and whiteout", name)?;
                trash = Some(staged);
            } else {
                writable.mark_in_place(dir, name)?;
            }
        } else {
            if covers {
                writable.mark_beside(dir, name)?;
                mark = Some(Mark::Beside);
            }
            if in_upper {
                let taken = take_away(writable, dir, name);
                if taken.is_err() && mark != old_mark {
                    writable.clear_beside(dir, name);
                }
                trash = taken?;
            }
        }
        if let Some(listing) = &mut state.listing {
            listing.update(&Name::from(name), |slot| {
                slot.merged.upper = None;
                slot.merged.upper_redirect = None;
                slot.merged.mark = mark;
            });
        }
        Ok(trash)
    }

    /// Removes every mark inside a directory that shows nothing, so that a rename can replace it.
    /// The caller has made sure that the marks are not needed any more.
    pub(super) fn clear_marks_in(&self, writable: &Writable, dir: &WritableDir) -> Result<()> {
        let mut names = Vec::new();
        dir.for_each(|name, _, _| names.push(Name::from(name)))
            .context("getdents", b".")?;
        for name in names {
            match dir.unlink(&name) {
                // AUFS keeps directories of its own (`.wh..wh.plnk`).
                Err(Errno::ISDIR | Errno::PERM) => {
                    if let Some(trash) = take_away(writable, dir, &name)? {
                        writable.stage.discard(&trash);
                    }
                }
                other => other.context("unlink mark", &name)?,
            }
        }
        Ok(())
    }
}

/// Removes a directory that shows nothing: at once when it is empty, else by moving it to the
/// stage.
fn take_away(writable: &Writable, dir: &WritableDir, name: &[u8]) -> Result<Option<Name>> {
    match dir.rmdir(name) {
        Ok(()) => return Ok(None),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(errno).context("rmdir", name),
    }
    let trash = writable.stage.fresh_name();
    dir.rename_to_free(name, writable.stage.dir(), &trash)
        .context("rename to work directory", name)?;
    Ok(Some(trash))
}

/// Whether the type of a rename's target fits its source (rename(2)).
pub(super) fn check_types(source: &Inode, target: &Inode) -> Result<()> {
    match (source.kind == Kind::Dir, target.kind == Kind::Dir) {
        (true, false) => fail(Errno::NOTDIR),
        (false, true) => fail(Errno::ISDIR),
        _ => Ok(()),
    }
}
