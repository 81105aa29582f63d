//! The small steps of a rename: on the disk, in the inode that moves, in the listings that it
//! leaves and enters.

use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::marks::Mark;
use crate::sync::lock;
use crate::union::error::{Context, Result};
use crate::union::node::inode::{DirState, FileState, Inode, Place, Real};
use crate::union::node::stack::{Found, Redirect};
use crate::union::work::writable::Writable;

/// One end of a rename.
pub(in crate::union) struct End<'a> {
    pub(in crate::union) parent: &'a Arc<Inode>,
    pub(in crate::union) dir: WritableDir,
    pub(in crate::union) name: Name,
}

/// Both of them.
pub(in crate::union) struct Ends<'a> {
    pub(in crate::union) from: End<'a>,
    pub(in crate::union) to: End<'a>,
}

/// The upper's directory object of an inode.
pub(in crate::union) fn dir_of(inode: &Inode) -> Option<WritableDir> {
    inode.lock_dir()?.upper.clone()
}

pub(in crate::union) fn move_entry(
    source: &Inode,
    from: &End<'_>,
    to: &End<'_>,
    flags: RenameFlags,
) -> rustix::io::Result<()> {
    let rename = || from.dir.rename(&from.name, &to.dir, &to.name, flags);
    match dir_of(source) {
        Some(dir) => dir.relocate(&to.dir, &to.name, rename),
        None => rename(),
    }
}

/// Exchanges two entries on the disk; `dirs` are their directory objects, as far as they are
/// directories.
pub(in crate::union) fn swap_entries(
    dirs: (Option<WritableDir>, Option<WritableDir>),
    from: &End<'_>,
    to: &End<'_>,
) -> rustix::io::Result<()> {
    let swap = || {
        from.dir
            .rename(&from.name, &to.dir, &to.name, RenameFlags::EXCHANGE)
    };
    match dirs {
        (Some(a), Some(b)) => a.relocate(&to.dir, &to.name, || {
            let mut swapped = Ok(());
            let other = b.relocate(&from.dir, &from.name, || {
                swapped = swap();
                swapped
            });
            other.and(swapped)
        }),
        (Some(a), None) => a.relocate(&to.dir, &to.name, swap),
        (None, Some(b)) => b.relocate(&from.dir, &from.name, swap),
        (None, None) => swap(),
    }
}

pub(in crate::union) fn move_link(state: &mut FileState, from: &End<'_>, to: &End<'_>) {
    state.drop_link(from.parent, &from.name);
    state.add_link(to.parent, &to.name, Some(to.dir.clone()));
    let moved = matches!(&state.real, Real::Upper { dir, name }
        if dir.same(&from.dir) && *name == from.name);
    if moved {
        state.real = Real::Upper {
            dir: to.dir.clone(),
            name: Arc::clone(&to.name),
        };
    }
}

/// Updates the place of a renamed directory.
pub(in crate::union) fn settle(inode: &Inode, to: &End<'_>) {
    if let Some(dir) = inode.dir() {
        *lock(&dir.place) = Some(Place {
            parent: Arc::clone(to.parent),
            name: Arc::clone(&to.name),
        });
    }
}

/// What a name in a listing means from now on.
pub(super) struct Entered<'a> {
    pub(super) found: Option<Found>,
    pub(super) redirect: Option<Redirect>,
    pub(super) inode: &'a Arc<Inode>,
}

pub(super) fn take_upper(state: &mut DirState, name: &Name, mark: Option<Mark>) -> Option<Found> {
    let mut moved = None;
    if let Some(listing) = &mut state.listing {
        listing.update(name, |slot| {
            moved = slot.merged.upper.take();
            slot.merged.upper_redirect = None;
            slot.merged.mark = mark;
        });
    }
    moved
}

/// As [`take_upper`], for a name that gets another entry at once: it keeps its place among the
/// others.
pub(super) fn lift_upper(state: &mut DirState, name: &Name, mark: Option<Mark>) -> Option<Found> {
    let slot = state.listing.as_mut()?.get_mut(name)?;
    slot.merged.mark = mark;
    slot.merged.upper.take()
}

pub(super) fn put_upper(state: &mut DirState, name: &Name, entered: Entered<'_>, clear_mark: bool) {
    let Entered {
        found,
        redirect,
        inode,
    } = entered;
    if let Some(listing) = &mut state.listing {
        listing.update(name, |slot| {
            slot.merged.upper = found;
            slot.merged.upper_redirect = redirect.map(Box::new);
            if clear_mark {
                slot.merged.mark = None;
            }
            slot.st_ino = inode.st_ino;
            slot.child = Arc::downgrade(inode);
        });
    }
}

/// Remembers a mark that stands beside an entry of the upper.
pub(super) fn remember_mark(state: &mut DirState, name: &[u8], mark: Option<Mark>) {
    let listing = state.listing.as_mut();
    if let (Some(slot), Some(Mark::Beside)) = (listing.and_then(|l| l.get_mut(name)), mark) {
        slot.merged.mark = mark;
    }
}

/// Brings the marks in a directory to the disk: alone, or (`all`) with everything else that the
/// upper's disk has not written yet. Not to be called under a lock.
pub(super) fn sync_marks(writable: &Writable, dir: &WritableDir, all: bool) -> Result<()> {
    if !all {
        match dir.fd().and_then(rustix::fs::fsync) {
            // It may not be read, so that it is not open for that.
            Err(Errno::BADF) => {}
            other => return other.context("fsync", b"."),
        }
    }
    writable.sync_disk()
}
