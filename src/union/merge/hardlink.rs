//! Hard links of lower files: several names, one file.
//!
//! A lower file with several names is one inode of the merged view, whose names are exactly those
//! of the layer's that are visible. They are found by an index of the layer, made when the first
//! such file is met. When the file is copied up, all its visible names become hard links of the
//! copy. How a copy of it is published is written in `copyup/publish_names.rs`.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::layer::ReadOnlyDir;
use crate::layer::dir::{Name, Source};
use crate::layer::stat::Kind;
use crate::sync::{lock, wait};
use crate::union::Union;
use crate::union::config::CacheMode;
use crate::union::error::Result;
use crate::union::node::inode::{Inode, Place};
use crate::union::node::nodes::RealKey;

/// A path in a layer.
type LayerPath = Vec<Name>;

/// The inode numbers of a layer that stand under several names, with all of them.
#[derive(Debug, Default)]
pub(in crate::union) struct LinkIndex {
    pub(in crate::union) names: HashMap<u64, Vec<LayerPath>>,
    /// When it was made, and how long that took.
    made: Option<(Instant, Duration)>,
}

/// The index of one layer, once a file with several names was met there.
#[derive(Debug, Default)]
pub(in crate::union) struct LayerLinks {
    /// Lock order: after the locks of inodes; nothing is locked while it is held, and it is not
    /// held while the layer is walked.
    state: Mutex<Built>,
    /// A walk has ended.
    built: Condvar,
}

#[derive(Debug, Default)]
struct Built {
    index: Option<Arc<LinkIndex>>,
    /// A thread walks the layer.
    is_walked: bool,
}

impl LayerLinks {
    /// The index, if it is valid; else what `build` makes, in one thread at a time: others that
    /// need it wait for that one.
    fn get(
        &self,
        is_valid: impl Fn(&LinkIndex) -> bool,
        build: impl FnOnce() -> LinkIndex,
    ) -> Arc<LinkIndex> {
        let mut state = lock(&self.state);
        loop {
            if let Some(index) = state.index.as_ref().filter(|index| is_valid(index)) {
                return Arc::clone(index);
            }
            if !state.is_walked {
                break;
            }
            state = wait(&self.built, state);
        }
        state.is_walked = true;
        drop(state);
        // Also when the walk panics the next one may try.
        let _ended = Walk(self);
        let index = Arc::new(build());
        lock(&self.state).index = Some(Arc::clone(&index));
        index
    }
}

/// A walk of a layer; ends it when it is dropped.
struct Walk<'a>(&'a LayerLinks);

impl Drop for Walk<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_walked = false;
        self.0.built.notify_all();
    }
}

/// How long an index holds when the layer is edited: at least this, and so many times what it took
/// to make it.
const FRESH: Duration = Duration::from_secs(1);
const TIMES: u32 = 20;

impl LinkIndex {
    /// Walks a whole layer by getdents(2) alone. A directory that cannot be read is left out.
    fn build(root: &ReadOnlyDir) -> Self {
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
    /// Every visible name of a lower file, found through the index of its layer. `dir` and `name`
    /// are one of them.
    pub(super) fn visible_places(
        &self,
        dir: &ReadOnlyDir,
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

    /// The visible names of an inode of a lower layer, if it has several there, and whether those
    /// that are not visible are known to be gone: their directories are where the layer has them.
    pub(in crate::union) fn places_of(
        &self,
        layer: Source,
        ino: u64,
    ) -> Result<(Vec<Place>, bool)> {
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
                Some(child) if child.inode.kind == Kind::Dir && !child.inode.is_shared() => {
                    at = child.inode;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The index of a lower layer, built if need be.
    pub(in crate::union) fn index_of(&self, layer: Source) -> Option<Arc<LinkIndex>> {
        let Source::Lower(number) = layer else {
            return None;
        };
        let number = usize::from(number);
        let root = self.layers.lowers.get(number)?;
        let index = self.layers.link_index.get(number)?;
        let is_valid =
            |index: &LinkIndex| self.rules.cache == CacheMode::Static || index.is_fresh();
        Some(index.get(is_valid, || LinkIndex::build(root)))
    }

    /// The place of a layer's path in the merged view, if what stands there is that layer's file.
    /// Inode numbers alone would do within one file system, but a layer may hold mounts: `dev` is
    /// its device, or `None` where any will do.
    pub(in crate::union) fn visible_place(
        &self,
        path: &[Name],
        layer: Source,
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
        let here = state.lowers.iter().find(|dir| dir.source() == layer);
        let visible = visible
            && here.is_some_and(|dir| {
                dir.stat_entry(name)
                    .is_ok_and(|stat| stat.ino == ino && dev.is_none_or(|dev| dev == stat.dev))
            });
        drop(state);
        let name = Arc::clone(name);
        Ok(visible.then_some(Place { parent: at, name }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn an_index_is_built_once_and_not_under_its_lock() {
        let links = LayerLinks::default();
        let walks = AtomicUsize::new(0);
        let indexes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        links.get(
                            |_| true,
                            || {
                                walks.fetch_add(1, Ordering::SeqCst);
                                assert!(links.state.try_lock().is_ok());
                                std::thread::sleep(Duration::from_millis(50));
                                LinkIndex::default()
                            },
                        )
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(walks.load(Ordering::SeqCst), 1);
        assert!(indexes.iter().all(|index| Arc::ptr_eq(index, &indexes[0])));
        // One that is not valid any more is built again.
        let again = links.get(|_| false, LinkIndex::default);
        assert!(!Arc::ptr_eq(&again, &indexes[0]));
    }

    #[test]
    fn a_walk_that_panics_lets_the_next_one_try() {
        let links = LayerLinks::default();
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            links.get(|_| true, || panic!("the walk breaks off"))
        }));
        assert!(broken.is_err());
        links.get(|_| true, LinkIndex::default);
    }
}
