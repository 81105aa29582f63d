//! Reading a merged directory: every contributing layer once, by getdents(2).

use std::collections::HashMap;

use rustix::io::Errno;

use crate::layer::dir::{Dir, Name, Source};
use crate::layer::marks::names::meaning_in;
use crate::layer::marks::read::{has_whiteout_xattr, marks_by_xattr, redirect};
use crate::layer::marks::{DEVICE_XATTR, DirMarks, Mark, NameMeaning, own_xattr};
use crate::layer::stat::Kind;
use crate::union::Union;
use crate::union::config::CacheMode;
use crate::union::error::{Context, Result};
use crate::union::merge::origin::{announced, read_origin};
use crate::union::node::identity::Numbering;
use crate::union::node::inode::DirState;
use crate::union::node::listing::{Listing, Slot};
use crate::union::node::stack::Merger;

impl Union {
    /// Reads the directory's layers if that was not done yet, or, where they may change, again if
    /// they did. A directory of a volume is not read: its listing has what was looked up only (see
    /// [`Union::refresh`]).
    pub(in crate::union) fn load(&self, state: &mut DirState) -> Result<()> {
        if state.removed.is_some() {
            state.listing.get_or_insert_with(Listing::default);
            return Ok(());
        }
        if state.is_shared() {
            if state.listing.is_none() {
                let mut listing = Listing::default();
                self.show_mounts(state.id, &mut listing);
                state.listing = Some(listing);
            }
            return Ok(());
        }
        match self.rules.cache {
            CacheMode::Static if state.listing.is_some() => Ok(()),
            CacheMode::Static => {
                let mut listing = self.read_layers(state)?;
                self.show_mounts(state.id, &mut listing);
                state.listing = Some(listing);
                Ok(())
            }
            CacheMode::Auto if self.still_holds(state)? => Ok(()),
            CacheMode::Auto => self.load_anew(state),
        }
    }

    /// The names of a directory, by its layers as they are now; none of one that may not be read,
    /// which is noted.
    pub(in crate::union) fn read_layers(&self, state: &mut DirState) -> Result<Listing> {
        state.unlisted = false;
        let mut merger = Merger::default();
        let mut numbers = Numbers::default();
        let read = self.read_stack(state, |dir| {
            if dir.source() == Source::Upper {
                // Once more, if something was settled there.
                merger = Merger::default();
                numbers = Numbers::default();
            }
            self.read_layer(dir, &mut merger, &mut numbers)
        });
        match read {
            Err(error) if error.errno() == Errno::ACCESS && state.has_unreadable() => {
                self.begin_unlisted(state)
            }
            other => other.map(|()| self.listing_of(merger, &numbers)),
        }
    }

    /// Goes through the layers of a directory, newest first, as far as they are not covered by an
    /// opaque one, by what `read` finds out of each. What lies behind is no part of the directory
    /// from then on.
    pub(super) fn read_stack(
        &self,
        state: &mut DirState,
        mut read: impl FnMut(&Dir) -> Result<DirMarks>,
    ) -> Result<()> {
        let mut opaque = false;
        if let Some(upper) = state.upper.clone() {
            let marks = read(&upper)?;
            if marks.leaving
                && let Some(writable) = &self.writable
            {
                self.settle_device_whiteout(writable, &upper, state)?;
                if let Some(id) = state.id {
                    self.notify_attributes_of(id);
                }
                read(&upper)?;
            }
            opaque = marks.opaque;
            state.impure = marks.impure;
        }
        let mut contributing = 0;
        state.impure_lowers.clear();
        for lower in &state.lowers {
            if opaque {
                break;
            }
            let marks = read(lower)?;
            opaque = marks.opaque;
            if marks.impure {
                state.impure_lowers.push(lower.source());
            }
            contributing += 1;
        }
        let covered = state.lowers.split_off(contributing);
        if let Some(live) = &mut state.live {
            live.covered = covered;
        }
        Ok(())
    }

    /// The listing that comes of what the layers have.
    pub(super) fn listing_of(&self, merger: Merger<Slot>, numbers: &Numbers) -> Listing {
        Listing::of(merger, |name, merged| {
            match (&merged.upper, &merged.lower) {
                (Some(upper), _) => numbers.of(&self.nodes.numbers, Source::Upper, name, upper.ino),
                (None, Some(lower)) => {
                    numbers.of(&self.nodes.numbers, lower.top, name, lower.found.ino)
                }
                (None, None) => 0,
            }
        })
    }

    /// Feeds one layer's directory to the merger. Costs no call per name, except where a name may
    /// be more than it seems: of unknown type, a device, in a directory with xattr whiteouts,
    /// copied up, or a regular file of a layer that keeps types in xattrs.
    fn read_layer(
        &self,
        dir: &Dir,
        merger: &mut Merger<Slot>,
        numbers: &mut Numbers,
    ) -> Result<DirMarks> {
        let xattrs = dir.xattrs().context("open directory", b".")?;
        // Marks count also where xattrs are not offered: they say what is deleted.
        let marks = marks_by_xattr(&xattrs).context("listxattr", b".")?;
        merger.begin(dir.source());
        let mut layer = self.layer_of(dir, marks, merger, numbers)?;
        if marks.leaving && dir.source() == Source::Upper {
            layer.left = announced(dir)?;
        }
        let mut failure = None;
        dir.for_each(|name, kind, ino| {
            if let Err(error) = self.feed(&mut layer, name, kind, ino) {
                failure = Some(error);
            }
        })
        .context("getdents", b".")?;
        let marks = layer.marks;
        merger.end();
        match failure {
            Some(error) => Err(error),
            None => Ok(marks),
        }
    }

    /// What is needed while a layer's directory is read.
    pub(super) fn layer_of<'a>(
        &self,
        dir: &'a Dir,
        marks: DirMarks,
        merger: &'a mut Merger<Slot>,
        numbers: &'a mut Numbers,
    ) -> Result<Layer<'a>> {
        // Another disk may be mounted there, or it is a subvolume: its inodes are numbered by
        // themselves.
        let device = dir.device().context("stat", b".")?;
        numbers.devices.push((dir.source(), device));
        Ok(Layer {
            dir,
            marks,
            merger,
            numbers,
            mixed: self.nodes.numbers.is_mixed(dir.source()),
            left: None,
        })
    }

    /// Feeds one entry of a layer's directory to the merger.
    pub(super) fn feed(
        &self,
        layer: &mut Layer<'_>,
        name: &[u8],
        kind: Option<Kind>,
        ino: u64,
    ) -> Result<()> {
        let Layer { dir, merger, .. } = layer;
        match meaning_in(name, !self.reads_wh_names(dir.source())) {
            NameMeaning::Whiteout(hidden) => {
                merger.whiteout(hidden, Mark::Beside);
                return Ok(());
            }
            NameMeaning::Opaque => {
                layer.marks.opaque = true;
                return Ok(());
            }
            NameMeaning::Leftover => return Ok(()),
            NameMeaning::Plain => {}
        }
        match self.look_closer(dir, name, kind, ino, layer.marks)? {
            Closer::Whiteout if layer.left.as_deref() == Some(name) => {
                merger.entry(name, Kind::Char, ino, None);
            }
            Closer::Whiteout => merger.whiteout(name, Mark::InPlace),
            Closer::Entry {
                kind,
                origin,
                redirect,
            } => {
                let others = &mut layer.numbers.others;
                if let Some(origin) = origin {
                    let key = (dir.source(), Name::from(name));
                    others.insert(key, self.nodes.numbers.fit(origin));
                }
                if layer.mixed
                    && let Ok(stat) = dir.stat_on_disk(name)
                {
                    let number = self.nodes.numbers.of(dir.source(), stat.dev, stat.ino);
                    let key = (dir.source(), Name::from(name));
                    others.entry(key).or_insert(number);
                }
                merger.entry(name, kind, ino, redirect);
            }
            Closer::Nothing => {}
        }
        Ok(())
    }

    fn look_closer(
        &self,
        dir: &Dir,
        name: &[u8],
        kind: Option<Kind>,
        ino: u64,
        marks: DirMarks,
    ) -> Result<Closer> {
        let mut kind = match kind {
            Some(kind) if kind != Kind::Char => kind,
            _ => match dir.stat_on_disk(name) {
                Ok(stat) if stat.is_whiteout_device() => return Ok(Closer::Whiteout),
                Ok(stat) => stat.kind(),
                Err(Errno::NOENT) => return Ok(Closer::Nothing),
                Err(errno) => return Err(errno).context("stat", name),
            },
        };
        let mut origin = None;
        let mut target = None;
        if marks.xattr_whiteouts && kind == Kind::File {
            let xattrs = dir.xattrs_of(name).context("open directory", b".")?;
            if has_whiteout_xattr(&xattrs).unwrap_or(false) {
                return Ok(Closer::Whiteout);
            }
        }
        let on_disk = kind;
        if kind == Kind::File && dir.records().is_some() {
            kind = match dir.stat_entry(name) {
                Ok(stat) => stat.kind(),
                Err(Errno::NOENT) => return Ok(Closer::Nothing),
                Err(errno) => return Err(errno).context("stat", name),
            };
        }
        if marks.impure {
            let xattrs = dir.xattrs_of(name).context("open directory", b".")?;
            if dir.source() == Source::Upper {
                let own = dir.xattrs().context("open directory", b".")?;
                origin = read_origin(&own, &xattrs, on_disk, ino);
            }
            // In a lower layer that was the upper of such a union as well.
            if kind == Kind::File && own_xattr(&xattrs, DEVICE_XATTR).is_some() {
                kind = Kind::Char;
            }
            if kind == Kind::Dir {
                target = redirect(&xattrs).map(Name::from);
            }
        }
        Ok(Closer::Entry {
            kind,
            origin,
            redirect: target,
        })
    }
}

/// What decides the `st_ino` of a directory's entries.
#[derive(Default)]
pub(super) struct Numbers {
    /// The disks of the layers' directories.
    devices: Vec<(Source, u64)>,
    /// Numbers that are known otherwise.
    others: HashMap<(Source, Name), u64>,
}

impl Numbers {
    fn of(&self, numbering: &Numbering, layer: Source, name: &Name, ino: u64) -> u64 {
        if !self.others.is_empty()
            && let Some(other) = self.others.get(&(layer, Name::clone(name)))
        {
            return *other;
        }
        let device = self.devices.iter().find(|(number, _)| *number == layer);
        numbering.of(layer, device.map_or(0, |(_, device)| *device), ino)
    }
}

/// What a closer look at a directory entry of a layer found.
enum Closer {
    Whiteout,
    Nothing,
    Entry {
        kind: Kind,
        origin: Option<u64>,
        redirect: Option<Name>,
    },
}

/// One layer's directory while it is read.
pub(super) struct Layer<'a> {
    dir: &'a Dir,
    marks: DirMarks,
    merger: &'a mut Merger<Slot>,
    numbers: &'a mut Numbers,
    /// Its entries may be on several disks.
    mixed: bool,
    /// What stands there as the disk's own device and is one of the merged view.
    left: Option<Name>,
}
