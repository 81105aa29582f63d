//! Publishing a copy: from the work directory to the names that the file has in the merged tree.
//!
//! # Crash
//! Killed before the rename of [`Union::publish`], the next mount sees the lower object; killed
//! after it, the copy. A file with several names is published by [`crate::union::merge::hardlink`].

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::object::WritableObject;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::copyup::copy::restore_dir_times;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{DirState, FileState, Inode, Link, Node, Place, Real};
use crate::union::node::listing::Slot;
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;

/// A finished copy in the stage.
pub(super) struct Copy {
    pub(super) object: WritableObject,
    /// Of a regular file, open for reading and writing.
    pub(super) data: Option<Arc<OwnedFd>>,
    pub(super) ino: u64,
}

impl Union {
    /// Moves a finished copy from the stage to `name`, which the upper does not have, without a
    /// visible change of the directory.
    pub(super) fn publish(
        &self,
        writable: &Writable,
        staged: &Name,
        dir: &WritableDir,
        name: &Name,
        state: &mut DirState,
    ) -> Result<()> {
        self.mark_impure(writable, dir, state)?;
        let before = dir.stat().context("stat", b".")?;
        let stage = writable.stage.dir();
        dir.despite_mode(|| stage.rename_to_free(staged, dir, name))
            .context("rename copy to", name)?;
        restore_dir_times(dir, &before);
        Ok(())
    }

    /// Marks a directory of the upper as holding entries with an origin, before the first one
    /// comes.
    pub(in crate::union) fn mark_impure(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        state: &mut DirState,
    ) -> Result<()> {
        let Some(prefix) = writable
            .abilities
            .own_xattrs
            .filter(|_| !self.rules.no_xattrs)
        else {
            return Ok(());
        };
        if state.impure {
            return Ok(());
        }
        let xattr = format!("{prefix}impure");
        let this = dir.this().context("open directory", b".")?;
        dir.despite_mode(|| this.set_xattr(xattr.as_bytes(), b"y", XattrFlags::empty()))
            .context("setxattr", xattr.as_bytes())?;
        state.impure = true;
        Ok(())
    }

    /// Puts a finished copy under every name of the file that is visible now.
    pub(super) fn publish_file(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        copy: &Copy,
    ) -> Result<()> {
        let Some(file) = inode.file() else {
            return fail(Errno::ISDIR);
        };
        let result = (|| loop {
            let places: Vec<Place> = lock(&file.state)
                .links
                .iter()
                .map(|link| link.place.clone())
                .collect();
            match places.as_slice() {
                // Removed meanwhile: the copy lives as long as it is held.
                [] => {
                    let mut state = lock(&file.state);
                    if state.links.is_empty() {
                        state.bytes = None;
                        state.real = Real::Orphan(copy.object.clone());
                        file.data.clear();
                        writable.stage.discard(staged);
                        return Ok(());
                    }
                }
                [place] => {
                    let published = self.publish_name(writable, inode, staged, place, copy);
                    self.notify_attributes(&place.parent);
                    self.notify_attributes(inode);
                    if published? {
                        return Ok(());
                    }
                }
                _ => return self.publish_names(writable, inode, staged, &places, &copy.object),
            }
        })();
        if result.is_err() {
            writable.stage.discard(staged);
        }
        result
    }

    /// Publishes the copy under its only name; `false` when the name changed meanwhile.
    fn publish_name(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        place: &Place,
        copy: &Copy,
    ) -> Result<bool> {
        let Some(file) = inode.file() else {
            return fail(Errno::ISDIR);
        };
        let dir = self.copy_up_dir(&place.parent);
        let Some(mut parent) = place.parent.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let mut state = lock(&file.state);
        if state.links.len() != 1 || !state.links[0].place.is(&place.parent, &place.name) {
            return Ok(false);
        }
        let dir = dir?;
        self.store_child_origin(writable, &dir, inode.kind, (inode.st_ino, copy.ino));
        self.publish(writable, staged, &dir, &place.name, &mut parent)?;
        if let Some(listing) = &mut parent.listing {
            listing.update(&place.name, |slot| note_copy(slot, inode.kind, copy.ino));
        }
        state.links[0].upper = Some(dir.clone());
        switch_to_upper(&mut state, &dir, &place.name);
        file.data.clear();
        if let Some(data) = &copy.data {
            self.keep_atime(data);
            file.data.put(Arc::clone(data));
        }
        Ok(true)
    }

    /// Takes a name of a file that is being published into the upper as a hard link of `staged`.
    pub(in crate::union) fn publish_link(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        place: &Place,
        ino: u64,
    ) -> Result<()> {
        let dir = self.copy_up_dir(&place.parent);
        let Some(mut parent) = place.parent.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let Some(mut state) = inode.lock_file() else {
            return fail(Errno::ISDIR);
        };
        let Some(link) = state
            .links
            .iter_mut()
            .find(|link| link.place.is(&place.parent, &place.name))
        else {
            return Ok(());
        };
        let dir = dir?;
        self.mark_impure(writable, &dir, &mut parent)?;
        let before = dir.stat().context("stat", b".")?;
        self.store_child_origin(writable, &dir, inode.kind, (inode.st_ino, ino));
        let stage = writable.stage.dir();
        match dir.despite_mode(|| stage.link(staged, &dir, &place.name)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).context("link copy to", &place.name),
        }
        restore_dir_times(&dir, &before);
        link.upper = Some(dir);
        if let Some(listing) = &mut parent.listing {
            listing.update(&place.name, |slot| {
                note_copy(slot, inode.kind, ino);
                slot.child = Arc::downgrade(inode);
            });
        }
        Ok(())
    }

    /// After all names are published: the file is the upper's now.
    pub(in crate::union) fn finish_links(
        &self,
        inode: &Arc<Inode>,
        object: &WritableObject,
    ) -> Result<()> {
        let Node::File(file) = &inode.node else {
            return fail(Errno::ISDIR);
        };
        let mut state = lock(&file.state);
        let home = state
            .links
            .iter()
            .find_map(|link: &Link| Some((link.upper.clone()?, Arc::clone(&link.place.name))));
        match home {
            Some((dir, name)) => switch_to_upper(&mut state, &dir, &name),
            None => {
                state.bytes = None;
                state.real = Real::Orphan(object.clone());
            }
        }
        file.data.clear();
        Ok(())
    }
}

/// What a copy-up changes in the slot of a name.
pub(super) fn note_copy(slot: &mut Slot, kind: Kind, ino: u64) {
    slot.merged.upper = Some(Found { kind, ino });
}

fn switch_to_upper(state: &mut FileState, dir: &WritableDir, name: &Name) {
    state.bytes = None;
    state.real = Real::Upper {
        dir: dir.clone(),
        name: Arc::clone(name),
    };
}
