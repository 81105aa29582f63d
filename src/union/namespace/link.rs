//! link(2): another name for a file, or the first one for a file that was made without any.
//!
//! # Crash
//! A name appears by one system call; over a whiteout that stands in its place, as a link in the
//! work directory that is renamed over it. Killed before, there is no such name; killed after, but
//! before the whiteout of an earlier entry is removed, the whiteout hides nothing (see
//! [`crate::union::copyup::whiteout`]). As on any disk, the bytes of the file are where fsync(2)
//! brought them.

use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::{Name, Source};
use crate::layer::marks::Mark;
use crate::layer::stat::Kind;
use crate::union::error::{Context, Result, fail};
use crate::union::merge::lookup::Child;
use crate::union::node::inode::{FileState, Inode, Real};
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;
use crate::union::{Entry, Union};

impl Union {
    /// [`Union::link`] of a file to a directory, both of the merged tree.
    pub(in crate::union) fn link_in_layers(
        &self,
        inode: &Arc<Inode>,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Entry> {
        let writable = self.writable()?;
        self.check_new_name(name)?;
        // The upper's disk distinguishes what never had a name and what has none any more; a lower
        // file had one.
        let is_gone = |file: &FileState| !file.is_upper() && file.links.is_empty();
        if inode.lock_file().is_some_and(|file| is_gone(&file)) {
            return fail(Errno::NOENT);
        }
        self.copy_up_file(inode, None)?;
        let dir = self.copy_up_dir(parent)?;
        let key = {
            let Some(mut state) = parent.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            let (mark, _) = self.free_name(&mut state, name)?;
            if inode.st_ino != self.disk_identity(inode)? || inode.kind == Kind::Char {
                self.mark_impure(writable, &dir, &mut state)?;
            }
            let Some(mut file) = inode.lock_file() else {
                return fail(Errno::PERM);
            };
            let ino = crate::union::node::real::real_stat(&file.real)?.ino;
            self.store_child_origin(writable, &dir, inode.kind, (inode.st_ino, ino));
            let name = Name::from(name);
            self.link_locked(writable, &file.real, &dir, &name, mark)?;
            let stat = dir.stat_entry(&name).context("stat", &name)?;
            file.add_link(parent, &name, Some(dir.clone()));
            if matches!(file.real, Real::Orphan(_)) {
                file.real = Real::Upper {
                    dir: dir.clone(),
                    name: Arc::clone(&name),
                };
            }
            if let Some(listing) = &mut state.listing {
                listing.update(&name, |slot| {
                    slot.merged.upper = Some(Found {
                        kind: inode.kind,
                        ino: stat.ino,
                    });
                    slot.merged.mark = None;
                    slot.st_ino = inode.st_ino;
                    slot.child = Arc::downgrade(inode);
                });
            }
            (Source::Upper, stat.dev, stat.ino)
        };
        self.remember_shared(key, inode);
        self.entry(&Child {
            inode: Arc::clone(inode),
            stat: None,
        })
    }

    fn link_locked(
        &self,
        writable: &Writable,
        real: &Real,
        dir: &WritableDir,
        name: &Name,
        mark: Option<Mark>,
    ) -> Result<()> {
        let link_to = |to: &WritableDir, new: &[u8]| match real {
            Real::Upper { dir, name } => dir.link(name, to, new),
            Real::Orphan(object) => to.link_fd(object.fd(), new),
            Real::Lower { .. } => Err(Errno::STALE),
        };
        if mark == Some(Mark::InPlace) {
            let staged = writable.stage.fresh_name();
            link_to(writable.stage.dir(), &staged).context("link", &staged)?;
            let moved = writable
                .stage
                .dir()
                .rename(&staged, dir, name, RenameFlags::empty());
            if moved.is_err() {
                writable.stage.discard(&staged);
            }
            return moved.context("rename link to", name);
        }
        link_to(dir, name).unless_immutable("link", name)?;
        if mark == Some(Mark::Beside) {
            writable.clear_beside(dir, name);
        }
        Ok(())
    }

    /// The `st_ino` that an upper file would have without an origin.
    fn disk_identity(&self, inode: &Inode) -> Result<u64> {
        let Some(state) = inode.lock_file() else {
            return Ok(inode.st_ino);
        };
        let stat = crate::union::node::real::real_stat(&state.real)?;
        Ok(self.nodes.numbers.of(Source::Upper, stat.dev, stat.ino))
    }
}

/// Refuses a link whose target is a directory (link(2): EPERM).
pub(in crate::union) fn fail_for_directory(inode: &Inode) -> Result<()> {
    if inode.kind == Kind::Dir {
        return fail(Errno::PERM);
    }
    Ok(())
}
