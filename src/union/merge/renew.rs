//! Reads directories again whose layers others edit (`cache=auto`).
//!
//! A directory that is watched (`live.rs`) is read again when something happened there; one that is
//! not, when the times of its layers' directories are others than before, which is looked at now
//! and then. What then means the same as before keeps its inode. Directories whose stack is another
//! one now get that, and are read again themselves.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::layer::ReadOnlyDir;
use crate::layer::dir::{Dir, Name};
use crate::layer::stat::{BirthTime, Kind};
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Result};
use crate::union::node::followers::Touched;
use crate::union::node::inode::{DirState, FileNode, Inode, described_by};
use crate::union::node::listing::{Listing, Slot, Stamp};

/// How old a listing may be before its layers are looked at again, when changes are not notified.
const RECHECK: Duration = Duration::from_millis(400);

impl Union {
    /// Whether a directory was read, and its layers are as they were then.
    pub(in crate::union) fn still_holds(&self, state: &mut DirState) -> Result<bool> {
        if let Some(live) = &state.live {
            if live.touched.is_some() {
                return Ok(false);
            }
            let is_watched = live.inode().is_some_and(|inode| inode.is_watched());
            if is_watched && state.listing.is_some() {
                return Ok(true);
            }
        }
        let Some(listing) = &mut state.listing else {
            return Ok(false);
        };
        if listing.checked.elapsed() < RECHECK {
            return Ok(true);
        }
        listing.checked = Instant::now();
        let before = std::mem::take(&mut listing.stamps);
        let now = self.stamps(state)?;
        let same = before == now;
        if let (true, Some(listing)) = (same, &mut state.listing) {
            listing.stamps = before;
        }
        Ok(same)
    }

    /// The layers' directories that others may change: not the upper's, unless another mount is
    /// writing there.
    fn changeable<'a>(&self, state: &'a DirState) -> impl Iterator<Item = &'a Dir> + use<'a> {
        let upper = state.upper.iter().map(|dir| -> &Dir { dir });
        let lowers = state.lowers.iter().map(|dir| -> &Dir { dir });
        upper
            .take(usize::from(self.writable.is_none()))
            .chain(lowers)
    }

    fn stamps(&self, state: &DirState) -> Result<Vec<Stamp>> {
        self.changeable(state)
            .map(|dir| {
                let stat = dir.stat().context("stat", b".")?;
                Ok(Stamp {
                    ino: stat.ino,
                    mtime: stat.mtime,
                    ctime: stat.ctime,
                })
            })
            .collect()
    }

    /// Reads a directory, and takes over from what was known what is still true.
    pub(in crate::union) fn load_anew(&self, state: &mut DirState) -> Result<()> {
        let mut live = state.live.take();
        if let Some(live) = &mut live {
            state.lowers.append(&mut live.covered);
        }
        // Before reading: a change meanwhile is then notified, or seen by the times.
        let watched = live
            .as_mut()
            .is_some_and(|live| live.watch(self.changeable(state)));
        state.live = live;
        let before = if watched {
            Vec::new()
        } else {
            self.stamps(state)?
        };
        let mut fresh = self.read_layers(state)?;
        if !before.iter().any(Stamp::is_fresh) {
            fresh.stamps = before;
        }
        self.show_mounts(state.id, &mut fresh);
        let touched = state.live.as_mut().and_then(|live| live.touched.take());
        if state.unlisted
            && let Some(mut older) = state.listing.take()
        {
            // Each name is looked for again when it is asked for.
            (older.stamps, older.checked) = (fresh.stamps, fresh.checked);
            fresh = older;
        } else if let Some(older) = state.listing.take() {
            let touched = touched.unwrap_or(Touched::All);
            fresh.inherit(
                older,
                |name, old, new| self.means_the_same(state, &touched, name, old, new),
                |name, gone| self.tell(state.id, name, gone),
            );
            self.restack(state, &fresh);
            if let Some(id) = state.id {
                self.notify_node(id);
            }
        }
        state.listing = Some(fresh);
        let inode = state.live.as_ref().and_then(|live| live.inode());
        if let Some(inode) = inode
            && let Some(dir) = inode.dir()
        {
            let before = dir.watched.swap(watched, Ordering::AcqRel);
            if before && !watched {
                // The kernel has cached more than it may from now on.
                self.notify_below(&inode);
            }
        }
        Ok(())
    }

    /// Checks a directory that is not watched, before its attributes are returned: the kernel may
    /// have cached its listing.
    pub(in crate::union) fn look_again(&self, inode: &Inode, state: &mut DirState) {
        if self.others.live.is_some()
            && state.listing.is_some()
            && !inode.is_watched()
            && let Err(error) = self.load(state)
        {
            log::debug!("look at a directory again: {error}");
        }
    }

    /// Another file was met in the place of this one, before this was notified: its names are to be
    /// read again.
    pub(in crate::union) fn was_replaced(&self, file: &FileNode) {
        if self.others.live.is_none() {
            return;
        }
        // Directories are locked before files.
        let places: Vec<_> = {
            let state = lock(&file.state);
            state.links.iter().map(|link| link.place.clone()).collect()
        };
        for place in places {
            if let Some(mut state) = place.parent.lock_dir()
                && let Some(live) = &mut state.live
            {
                live.touch(Touched::Names(HashSet::from([place.name])));
            }
        }
    }

    /// Whether a name stands for the object that it stood for. Where only the mount makes changes
    /// it knows better than the disk what number that is known by.
    fn means_the_same(
        &self,
        state: &DirState,
        touched: &Touched,
        name: &Name,
        old: &Slot,
        new: &mut Slot,
    ) -> bool {
        if old.kind() != new.kind() || old.merged.upper != new.merged.upper {
            return false;
        }
        if old.mount.is_some() || new.mount.is_some() {
            return old.st_ino == new.st_ino;
        }
        if old.merged.upper.is_some() && self.writable.is_some() {
            new.st_ino = old.st_ino;
            return true;
        }
        if old.st_ino != new.st_ino {
            return false;
        }
        // A number may have been reused for another file meanwhile.
        let (Some(child), Some(lower)) = (old.child.upgrade(), &new.merged.lower) else {
            return true;
        };
        if child.kind == Kind::Dir || child.birth == BirthTime::UNKNOWN || !touched.has(name) {
            return true;
        }
        let mut dirs = state.lowers.iter();
        dirs.find(|dir| dir.source() == lower.top)
            .is_some_and(|dir| {
                dir.stat_on_disk(name)
                    .is_ok_and(|stat| stat.birth().agrees(child.birth))
            })
    }

    /// Sets for the known directories in this one the lower directories that they consist of now.
    fn restack(&self, state: &DirState, listing: &Listing) {
        for (name, slot) in listing.all() {
            if slot.kind() != Some(Kind::Dir) || slot.mount.is_some() {
                continue;
            }
            let Some(child) = slot.child.upgrade() else {
                continue;
            };
            match self.lowers_of(state, slot, name) {
                Ok(lowers) => self.restack_one(&child, lowers),
                Err(error) => log::debug!("layers of {}: {error}", name.escape_ascii()),
            }
        }
    }

    fn restack_one(&self, dir: &Arc<Inode>, lowers: Vec<ReadOnlyDir>) {
        let Some(mut state) = dir.lock_dir() else {
            return;
        };
        let state = &mut *state;
        let (None, Some(live)) = (&state.removed, &mut state.live) else {
            return;
        };
        let known = state.lowers.len() + live.covered.len();
        let mut changed = known != lowers.len();
        let mut stack = Vec::with_capacity(lowers.len());
        for (at, fresh) in lowers.into_iter().enumerate() {
            // The objects are kept: those of the directories below refer to them.
            let old = state.lowers.iter().chain(&live.covered).nth(at);
            let old =
                old.filter(|old| old.source() == fresh.source() && old.path() == fresh.path());
            match old {
                Some(old) => {
                    changed |= old.close_if_replaced();
                    stack.push(old.clone());
                }
                None => {
                    changed = true;
                    stack.push(fresh);
                }
            }
        }
        if changed {
            state.described_by = described_by(&stack).unwrap_or_else(|errno| {
                log::debug!("what describes a directory: {errno}");
                None
            });
            state.lowers = stack;
            live.covered.clear();
            live.touch(Touched::All);
            live.read_again();
        }
    }
}

/// Who changes a file.
pub(in crate::union) enum ChangedBy<'a> {
    /// This mount.
    Upper,
    /// Others, in the lower directory of these names.
    Lower(&'a [crate::union::node::inode::Link]),
    /// Others, somewhere.
    Elsewhere,
}
