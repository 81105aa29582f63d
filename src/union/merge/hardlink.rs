//! Hard links of lower files: several names, one file.
//!
//! A lower file with several names is one inode of the merged view, whose names are exactly those of the
//! layer's that are visible. They are found by an index of the layer, made when the first such file is met.
//! When the file is copied up, all its visible names become hard links of the copy.
//!
//! # Crash
//! Several names cannot be published by one call. Before the first one, the list of names is written to the
//! work directory and synced; the next writable mount finishes the list (see [`finish_publications`]).
//! A name whose whiteout or another entry stands in the upper by then was changed after it was published and
//! is left alone.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::layer::dir::{LayerNo, Name, UPPER};
use crate::layer::mark::whiteout_name;
use crate::layer::stat::Kind;
use crate::layer::upper::UpperObject;
use crate::layer::{LowerDir, UpperDir};
use crate::sync::lock;
use crate::union::RealKey;
use crate::union::Union;
use crate::union::Writable;
use crate::union::config::CacheMode;
use crate::union::error::{During, Result, refuse};
use crate::union::node::inode::{Inode, Place};

/// Suffix of the list that belongs to a staged file.
const LIST_SUFFIX: &[u8] = b".names";

/// A path in a layer.
type LayerPath = Vec<Name>;

/// The inode numbers of a layer that stand under several names, with all of them.
#[derive(Debug, Default)]
pub(in crate::union) struct LinkIndex {
    names: HashMap<u64, Vec<LayerPath>>,
    /// When it was made, and how long that took.
    made: Option<(Instant, Duration)>,
}

/// How long an index holds when the layer is edited: at least this, and so many times what it took to make it.
const FRESH: Duration = Duration::from_secs(1);
const TIMES: u32 = 20;

impl LinkIndex {
    /// Walks a whole layer by getdents(2) alone. A directory that cannot be read is left out.
    fn build(root: &LowerDir) -> Self {
        let mut first: HashMap<u64, LayerPath> = HashMap::new();
        let mut index = Self::default();
        let begun = Instant::now();
        let mut todo = vec![(root.clone(), LayerPath::new())];
        while let Some((dir, path)) = todo.pop() {
            let mut directories = Vec::new();
            let walked = dir.for_each(|name, kind, ino| {
                let mut here = path.clone();
                here.push(Name::from(name));
                let kind = kind.or_else(|| dir.stat_entry(name).ok().map(|stat| stat.kind()));
                if kind == Some(Kind::Dir) {
                    directories.push(here);
                } else if let Some(names) = index.names.get_mut(&ino) {
                    names.push(here);
                } else if let Some(earlier) = first.remove(&ino) {
                    index.names.insert(ino, vec![earlier, here]);
                } else {
                    first.insert(ino, here);
                }
            });
            if let Err(errno) = walked {
                log::warn!("hard links below an unreadable directory are not known: {errno}");
            }
            for path in directories {
                if let Some(name) = path.last() {
                    todo.push((dir.child(name), path));
                }
            }
        }
        index.made = Some((begun, begun.elapsed()));
        index
    }

    fn is_fresh(&self) -> bool {
        self.made
            .is_some_and(|(begun, took)| begun.elapsed() < FRESH.max(took * TIMES))
    }
}

impl Union {
    /// Every visible name of a lower file, found through the index of its layer. `dir` and `name` are one of
    /// them.
    pub(super) fn visible_places(
        &self,
        dir: &LowerDir,
        name: &Name,
        key: RealKey,
    ) -> Result<Vec<Place>> {
        let (layer, dev, ino) = key;
        let Some(index) = self.index_of(layer) else {
            return Ok(Vec::new());
        };
        let mut places = Vec::new();
        for path in index.names.get(&ino).into_iter().flatten() {
            // The one that was asked for is known to be visible by its caller.
            if path.last() == Some(name) && dir.path().as_deref() == path.split_last().map(|p| p.1)
            {
                continue;
            }
            if let Some(place) = self.visible_place(path, layer, Some(dev), ino)? {
                places.push(place);
            }
        }
        Ok(places)
    }

    /// The visible names of an inode of a lower layer, if it has several there, and whether those that are not visible
    /// are known to be gone: their directories are where the layer has them.
    pub(super) fn places_of(&self, layer: LayerNo, ino: u64) -> Result<(Vec<Place>, bool)> {
        let index = self.index_of(layer);
        let paths = index.as_ref().and_then(|index| index.names.get(&ino));
        let (mut places, mut all) = (Vec::new(), true);
        for path in paths.into_iter().flatten() {
            let parents = path.split_last().map_or(&[][..], |(_, parents)| parents);
            all &= self.reach(parents)?.is_some();
            places.extend(self.visible_place(path, layer, None, ino)?);
        }
        Ok((places, all))
    }

    /// The merged directory that a layer's path leads to.
    fn reach(&self, parents: &[Name]) -> Result<Option<Arc<Inode>>> {
        let mut at = Arc::clone(&self.nodes.root);
        for parent in parents {
            match self.child(&at, parent)? {
                Some(child) if child.inode.kind == Kind::Dir && child.inode.volume.is_none() => {
                    at = child.inode;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Copies up every file below a directory that has several names in its layer, before the directory is
    /// renamed by a redirect: afterwards its names could not be found by their paths in the layer any more.
    pub(in crate::union) fn copy_up_shared_below(&self, dir: &Arc<Inode>) -> Result<()> {
        let lowers = match dir.lock_dir() {
            Some(state) => state.lowers.clone(),
            None => return refuse(Errno::NOTDIR),
        };
        for lower in &lowers {
            let Some(index) = self.index_of(lower.layer()) else {
                continue;
            };
            let Some(prefix) = lower.path() else { continue };
            for (ino, paths) in &index.names {
                for path in paths.iter().filter(|path| path.starts_with(&prefix)) {
                    if let Some(place) = self.visible_place(path, lower.layer(), None, *ino)?
                        && let Some(child) = self.child(&place.parent, &place.name)?
                    {
                        self.copy_up_file(&child.inode, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The index of a lower layer, made if need be.
    fn index_of(&self, layer: LayerNo) -> Option<Arc<LinkIndex>> {
        let number = usize::from(layer).checked_sub(1)?;
        let (index, root) = (
            self.layers.link_index.get(number)?,
            self.layers.lowers.get(number)?,
        );
        // Held while it is made: who needs it, too, waits for it.
        let mut index = lock(index);
        let held = index
            .as_ref()
            .filter(|index| self.rules.cache == CacheMode::Static || index.is_fresh());
        if let Some(held) = held {
            return Some(Arc::clone(held));
        }
        let made = Arc::new(LinkIndex::build(root));
        *index = Some(Arc::clone(&made));
        Some(made)
    }

    /// The place of a layer's path in the merged view, if what stands there is that layer's file.
    /// Inode numbers alone would do within one file system, but a layer may hold mounts: `dev` is its device, or
    /// `None` where any will do.
    fn visible_place(
        &self,
        path: &[Name],
        layer: LayerNo,
        dev: Option<u64>,
        ino: u64,
    ) -> Result<Option<Place>> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(None);
        };
        let Some(at) = self.reach(parents)? else {
            return Ok(None);
        };
        let Some(mut state) = at.lock_dir() else {
            return Ok(None);
        };
        let visible = self.slot_mut(&mut state, name)?.is_some_and(|slot| {
            slot.merged.upper.is_none()
                && slot.mount.is_none()
                && slot
                    .merged
                    .lower
                    .as_ref()
                    .is_some_and(|lower| lower.top == layer && lower.found.ino == ino)
        });
        let here = state.lowers.iter().find(|dir| dir.layer() == layer);
        let visible = visible
            && here.is_some_and(|dir| {
                dir.stat_entry(name)
                    .is_ok_and(|stat| stat.ino == ino && dev.is_none_or(|dev| dev == stat.dev))
            });
        drop(state);
        let name = Arc::clone(name);
        Ok(visible.then_some(Place { parent: at, name }))
    }

    /// Publishes a finished copy under several names.
    pub(in crate::union) fn publish_names(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        places: &[Place],
        object: &UpperObject,
    ) -> Result<()> {
        let stat = object.stat().during("fstat", staged)?;
        for place in places {
            match self.copy_up_dir(&place.parent) {
                // Removed meanwhile, and the name with it.
                Err(error) if error.errno() == Errno::NOENT => {}
                other => {
                    other?;
                }
            }
        }
        let list = Name::from([&staged[..], LIST_SUFFIX].concat());
        let stage = writable.stage.dir();
        let written = stage
            .create_file(&list, 0o600)
            .and_then(|fd| self.write_list(&fd, places));
        if written.is_err() {
            writable.stage.discard(&list);
        }
        written.during("write list of names", &list)?;
        // From the first name on, lookups of it must find this inode.
        let key = (UPPER, stat.dev, stat.ino);
        self.remember_shared(key, inode);
        for place in places {
            let published = self.publish_link(writable, inode, staged, place, stat.ino);
            self.tell_attributes(&place.parent);
            if let Err(error) = published {
                // All names or none: without the copies the lower file shows again under each of them.
                self.retract_links(inode);
                places
                    .iter()
                    .for_each(|place| self.tell_attributes(&place.parent));
                self.nodes.shared.remove(&key);
                writable.stage.discard(&list);
                return Err(error);
            }
        }
        self.finish_links(inode, object)?;
        writable.stage.discard(&list);
        writable.stage.discard(staged);
        self.tell_attributes(inode);
        Ok(())
    }

    /// Takes published names back out of the upper.
    fn retract_links(&self, inode: &Arc<Inode>) {
        let places: Vec<Place> = match inode.lock_file() {
            Some(state) => state.links.iter().map(|link| link.place.clone()).collect(),
            None => return,
        };
        for place in places {
            let (Some(mut parent), Some(mut state)) = (place.parent.lock_dir(), inode.lock_file())
            else {
                continue;
            };
            let link = state
                .links
                .iter_mut()
                .find(|link| link.place.is(&place.parent, &place.name));
            let Some(dir) = link.and_then(|link| link.upper.take()) else {
                continue;
            };
            if let Err(errno) = dir.despite_mode(|| dir.unlink(&place.name)) {
                log::error!(
                    "unlink half-published {}: {errno}",
                    place.name.escape_ascii()
                );
                continue;
            }
            if let Some(listing) = &mut parent.listing {
                listing.update(&place.name, |slot| slot.merged.upper = None);
            }
        }
    }

    fn write_list(&self, fd: &OwnedFd, places: &[Place]) -> rustix::io::Result<()> {
        let mut list = Vec::new();
        for place in places {
            for name in merged_path(&place.parent) {
                list.extend_from_slice(&name);
                list.push(b'/');
            }
            list.extend_from_slice(&place.name);
            list.push(0);
        }
        crate::union::file::data::write_all(fd, &list, 0)?;
        if self.rules.volatile {
            return Ok(());
        }
        rustix::fs::fsync(fd)
    }
}

/// The names that lead to a directory of the merged view, which are also its path in the upper.
fn merged_path(dir: &Arc<Inode>) -> Vec<Name> {
    let mut path = Vec::new();
    let mut at = Arc::clone(dir);
    while let Some(place) = at.place() {
        path.push(place.name);
        at = place.parent;
    }
    path.reverse();
    path
}

/// Finishes the publications that a killed daemon left half done. Runs before the stage is emptied.
/// Errors: what the disk answers; the lists stay then.
pub(in crate::union) fn finish_publications(
    upper: &UpperDir,
    stage: &UpperDir,
) -> rustix::io::Result<()> {
    let mut lists = Vec::new();
    stage.for_each(|name, _, _| {
        if name.ends_with(LIST_SUFFIX) {
            lists.push(Name::from(name));
        }
    })?;
    for list in lists {
        let Some(staged) = list.strip_suffix(LIST_SUFFIX) else {
            continue;
        };
        let text = read_all(&stage.open_entry(&list)?)?;
        // Without its last NUL the list was cut by the crash: then nothing was published yet.
        if text.last() != Some(&0) || stage.stat_entry(staged).is_err() {
            continue;
        }
        for path in text
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
        {
            finish_name(upper, stage, staged, path)?;
        }
    }
    Ok(())
}

fn finish_name(
    upper: &UpperDir,
    stage: &UpperDir,
    staged: &[u8],
    path: &[u8],
) -> rustix::io::Result<()> {
    let mut dir = upper.clone();
    let mut names = path.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_some() {
            dir = dir.child(&Name::from(name));
            continue;
        }
        if let Some(mark) = whiteout_name(name)
            && dir.stat_entry(&mark).is_ok()
        {
            return Ok(());
        }
        let before = match dir.stat() {
            Ok(stat) => stat,
            // Its directory was removed or renamed after the name was published.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        match stage.link(staged, &dir, name) {
            Ok(()) => crate::union::copyup::copy::restore_times(&dir, &before),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn read_all(fd: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::pread(fd, &mut chunk, text.len() as u64)? {
            0 => return Ok(text),
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Refuses a link whose target is a directory (link(2): EPERM).
pub(in crate::union) fn refuse_directory(inode: &Inode) -> Result<()> {
    if inode.kind == Kind::Dir {
        return refuse(Errno::PERM);
    }
    Ok(())
}
