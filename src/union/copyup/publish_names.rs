//! Publishing a copy under all names that its file has in the merged view.
//!
//! # Crash
//! Several names cannot be published by one call. Before the first one, the list of names is
//! written to the work directory and synced; the next writable mount finishes the list (see
//! [`finish_publications`]). A name whose whiteout or another entry stands in the upper by then was
//! changed after it was published and is left alone.

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::dir::Source;
use crate::layer::marks::whiteout_name;
use crate::layer::object::WritableObject;
use crate::union::error::{Context, Result};
use crate::union::node::inode::{Inode, Place};
use crate::union::work::writable::Writable;
use crate::union::{Union, fail};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Suffix of the list that belongs to a staged file.
const LIST_SUFFIX: &[u8] = b".names";

impl Union {
    /// Copies up every file below a directory that has several names in its layer, before the
    /// directory is renamed by a redirect: afterwards its names could not be found by their paths
    /// in the layer any more.
    pub(in crate::union) fn copy_up_shared_below(&self, dir: &Arc<Inode>) -> Result<()> {
        let lowers = match dir.lock_dir() {
            Some(state) => state.lowers.clone(),
            None => return fail(Errno::NOTDIR),
        };
        for lower in &lowers {
            let Some(index) = self.index_of(lower.source()) else {
                continue;
            };
            let Some(prefix) = lower.path() else { continue };
            for (ino, paths) in &index.names {
                for path in paths.iter().filter(|path| path.starts_with(&prefix)) {
                    if let Some(place) = self.visible_place(path, lower.source(), None, *ino)?
                        && let Some(child) = self.child(&place.parent, &place.name)?
                    {
                        self.copy_up_file(&child.inode, None)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Publishes a finished copy under several names.
    pub(in crate::union) fn publish_names(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
        staged: &Name,
        places: &[Place],
        object: &WritableObject,
    ) -> Result<()> {
        let stat = object.stat().context("fstat", staged)?;
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
        written.context("write list of names", &list)?;
        // From the first name on, lookups of it must find this inode.
        let key = (Source::Upper, stat.dev, stat.ino);
        self.remember_shared(key, inode);
        for place in places {
            let published = self.publish_link(writable, inode, staged, place, stat.ino);
            self.notify_attributes(&place.parent);
            if let Err(error) = published {
                // All names or none: without the copies the lower file shows again under each of
                // them.
                self.retract_links(inode);
                places
                    .iter()
                    .for_each(|place| self.notify_attributes(&place.parent));
                self.nodes.shared.remove(&key);
                writable.stage.discard(&list);
                return Err(error);
            }
        }
        self.finish_links(inode, object)?;
        writable.stage.discard(&list);
        writable.stage.discard(staged);
        self.notify_attributes(inode);
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
        crate::union::copyup::copydata::write_all(fd, &list, 0)?;
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
    upper: &WritableDir,
    stage: &WritableDir,
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
        // Without its last NUL the list was truncated by the crash: then nothing was published yet.
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
    upper: &WritableDir,
    stage: &WritableDir,
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
            Ok(()) => crate::union::copyup::copy::restore_dir_times(&dir, &before),
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
