//! Directories whose names may be used by who knows them, not listed: `d--x--x--x` of another owner
//! (`/home` of many images), in the layers of an ordinary user's mount.
//!
//! A directory is read as a whole where it can be. Of one that a layer does not let the daemon
//! read, each name is looked for in each of the layers when it is asked for: the name itself, a
//! whiteout of it beside it, and once, at the first use, the marks of the directory. The rule by
//! which layers are merged is the same ([`crate::union::node::stack`]). Listing is EACCES, and so
//! is what needs a listing: removing the directory, and copying what is below it for a rename.

use std::sync::Weak;

use rustix::io::Errno;

use crate::layer::dir::{Dir, Name};
use crate::layer::marks::read::{has_opaque_file, has_whiteout_file, marks_by_readable_xattr};
use crate::layer::marks::{DirMarks, Mark, NameMeaning, meaning};
use crate::union::Union;
use crate::union::config::CacheMode;
use crate::union::error::{Context, Result, fail};
use crate::union::merge::scan::Numbers;
use crate::union::node::inode::DirState;
use crate::union::node::listing::{Listing, Slot};
use crate::union::node::stack::Merger;

impl DirState {
    /// Whether its listing has only the names that were asked for.
    pub(super) fn is_unlisted(&self) -> bool {
        self.unlisted && self.removed.is_none()
    }

    /// Whether there is a layer's directory that the daemon may not read.
    pub(super) fn has_unreadable(&self) -> bool {
        let upper = self.upper.iter().map(|dir| -> &Dir { dir });
        let lowers = self.lowers.iter().map(|dir| -> &Dir { dir });
        upper
            .chain(lowers)
            .any(|dir| dir.may_be_read().is_ok_and(|may| !may))
    }
}

impl Union {
    /// As [`Union::load`], and makes sure that the listing knows a name.
    pub(in crate::union) fn load_name(&self, state: &mut DirState, name: &[u8]) -> Result<()> {
        self.load(state)?;
        if state.is_unlisted() {
            self.look_for(state, name)?;
        }
        Ok(())
    }

    /// As [`Union::load`], for a caller that needs all names. A directory of the upper that is the
    /// daemon's own is read regardless of its mode says. Errors: EACCES for one that may not be
    /// listed.
    pub(in crate::union) fn load_all(&self, state: &mut DirState) -> Result<()> {
        self.load(state)?;
        if !state.is_unlisted() {
            return Ok(());
        }
        if let Some(upper) = &state.upper
            && let Err(errno) = upper.read_despite_mode()
        {
            log::debug!("a directory that may not be read: {errno}");
        }
        let mut fresh = self.read_layers(state)?;
        if state.is_unlisted() {
            return fail(Errno::ACCESS);
        }
        self.show_mounts(state.id, &mut fresh);
        if let Some(older) = state.listing.take() {
            let same = |_: &Name, old: &Slot, new: &mut Slot| old.merged == new.merged;
            fresh.inherit(older, same, |_, _| {});
        }
        state.listing = Some(fresh);
        Ok(())
    }

    /// What is known of a directory that cannot be read, before any name was asked for.
    pub(super) fn begin_unlisted(&self, state: &mut DirState) -> Result<Listing> {
        self.read_stack(state, |dir| self.marks_of(dir))?;
        state.unlisted = true;
        Ok(Listing::default())
    }

    /// The marks of a directory, found by their names. Errors: EACCES also where one is there whose
    /// value may not be read.
    pub(in crate::union) fn marks_of(&self, dir: &Dir) -> Result<DirMarks> {
        let xattrs = dir.xattrs().context("open directory", b".")?;
        let mut marks = marks_by_readable_xattr(&xattrs).context("read marks", b".")?;
        marks.opaque |=
            self.reads_wh_names(dir.source()) && has_opaque_file(dir).context("stat", b".")?;
        Ok(marks)
    }

    /// Asks the layers for a name of a directory that is not listed, unless it is known.
    fn look_for(&self, state: &mut DirState, name: &[u8]) -> Result<()> {
        let known = state.listing.as_ref().and_then(|listing| listing.get(name));
        if known.is_some_and(|slot| slot.mount.is_some() || self.rules.cache == CacheMode::Static) {
            return Ok(());
        }
        let mut merger = Merger::<Slot>::default();
        let mut numbers = Numbers::default();
        if let Some(upper) = &state.upper {
            self.look_in(upper, name, &mut merger, &mut numbers)?;
        }
        for lower in &state.lowers {
            self.look_in(lower, name, &mut merger, &mut numbers)?;
        }
        let found = self.listing_of(merger, &numbers).take(name);
        let Some(listing) = &mut state.listing else {
            return fail(Errno::STALE);
        };
        match found {
            None if listing.get(name).is_none() => {}
            found => listing.update(&Name::from(name), |slot| {
                let found = found.unwrap_or_default();
                if slot.merged != found.merged {
                    slot.merged = found.merged;
                    slot.st_ino = found.st_ino;
                    slot.child = Weak::new();
                }
            }),
        }
        Ok(())
    }

    /// Feeds what one layer says about a name to the merger.
    fn look_in(
        &self,
        dir: &Dir,
        name: &[u8],
        merger: &mut Merger<Slot>,
        numbers: &mut Numbers,
    ) -> Result<()> {
        let plain = !self.reads_wh_names(dir.source());
        let marks = self.marks_of(dir)?;
        merger.begin(dir.source());
        if !plain && has_whiteout_file(dir, name).context("stat whiteout", name)? {
            merger.whiteout(name, Mark::Beside);
        }
        if plain || meaning(name) == NameMeaning::Plain {
            match dir.stat_on_disk(name) {
                Ok(stat) => {
                    let mut layer = self.layer_of(dir, marks, merger, numbers)?;
                    self.feed(&mut layer, name, Some(stat.kind()), stat.ino)?;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context("stat", name),
            }
        }
        merger.end();
        Ok(())
    }

    /// Whether a directory shows nothing. Errors: EACCES for one that may not be listed.
    pub(in crate::union) fn is_empty(&self, state: &mut DirState) -> Result<bool> {
        self.load_all(state)?;
        Ok(state.listing.as_ref().is_some_and(Listing::is_empty))
    }
}
