//! From what the layers have under a name to a new inode.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::mapref::entry::Entry as MapEntry;

use crate::layer::dir::Name;
use crate::layer::stat::{BirthTime, Kind, ObjectId, Stat};
use crate::layer::{FdSlot, ReadOnlyDir, WritableDir};
use crate::union::Union;
use crate::union::error::{Context, Result};
use crate::union::merge::lookup::Child;
use crate::union::node::ids::VolumeNo;
use crate::union::node::inode::{
    Bytes, DirNode, DirState, FileNode, FileState, Inode, Link, Node, Place, Real, described_by,
};
use crate::union::node::listing::Slot;
use crate::union::node::nodes::RealKey;

impl Union {
    pub(super) fn instantiate_dir(
        &self,
        parent: &Arc<Inode>,
        state: &DirState,
        slot: &Slot,
        name: &Name,
    ) -> Result<Arc<Inode>> {
        let mut volume = None;
        let upper = match (&slot.merged.upper, &state.upper) {
            (Some(found), Some(dir)) if parent.is_shared() => {
                let stat = dir.stat_entry(name).context("stat", name)?;
                volume = self.membership_of(parent, &stat);
                let birth = volume.map_or(BirthTime::UNKNOWN, |(_, birth)| birth);
                let ino = found.ino;
                Some(dir.child_with_id(name, ObjectId { ino, birth }))
            }
            (Some(_), Some(dir)) => Some(dir.child(name)),
            _ => None,
        };
        let lowers = self.lowers_of(state, slot, name)?;
        let place = Place {
            parent: Arc::clone(parent),
            name: Arc::clone(name),
        };
        let described_by = match upper {
            Some(_) => None,
            None => described_by(&lowers).context("getxattr", name)?,
        };
        let node = self.new_dir_node(Some(place), upper, lowers);
        if let Node::Dir(dir) = &node {
            crate::sync::lock(&dir.state).described_by = described_by;
        }
        Ok(self.new_inode(volume, slot.st_ino, Kind::Dir, node))
    }

    /// The lower directories of a directory in this one.
    pub(in crate::union) fn lowers_of(
        &self,
        state: &DirState,
        slot: &Slot,
        name: &Name,
    ) -> Result<Vec<ReadOnlyDir>> {
        let mut lowers = Vec::new();
        let merges = slot.merged.upper.is_none() || !slot.is_opaque_slot();
        if merges && let Some(redirect) = &slot.merged.upper_redirect {
            lowers = self.follow_redirect(state, redirect)?;
        } else if merges
            && let Some(lower) = &slot.merged.lower
            && lower.found.kind == Kind::Dir
        {
            lowers = state
                .lowers
                .iter()
                .filter(|dir| lower.layers().binary_search(&dir.source()).is_ok())
                .map(|dir| dir.child(name))
                .collect();
            if let Some(redirect) = lower.redirect() {
                lowers.extend(self.follow_redirect(state, redirect)?);
            }
        }
        Ok(lowers)
    }

    pub(super) fn instantiate_file(
        &self,
        parent: &Arc<Inode>,
        state: &DirState,
        slot: &Slot,
        name: &Name,
    ) -> Result<Instance> {
        let place = Place {
            parent: Arc::clone(parent),
            name: Arc::clone(name),
        };
        match (&slot.merged.upper, &state.upper) {
            (Some(_), Some(dir)) => self.instantiate_upper_file(place, state, slot, dir),
            _ => self.instantiate_lower_file(place, state, slot),
        }
    }

    fn instantiate_upper_file(
        &self,
        Place { parent, name }: Place,
        state: &DirState,
        slot: &Slot,
        dir: &WritableDir,
    ) -> Result<Instance> {
        let stat = dir.stat_entry(&name).context("stat", &name)?;
        let node = self.new_file_node(Real::Upper {
            dir: dir.clone(),
            name: Arc::clone(&name),
        });
        let kind = slot.kind().unwrap_or_else(|| stat.kind());
        let volume = self.membership_of(&parent, &stat);
        let mut inode = self.new_inode(volume, slot.st_ino, kind, node);
        if stat.nlink > 1 {
            inode = self.share((dir.source(), stat.dev, stat.ino), inode);
        }
        let bytes = match parent.is_shared() {
            true => None,
            false => self.bytes_of(dir, &name, &stat, state.impure, &state.lowers)?,
        };
        if let Some(mut file) = inode.lock_file() {
            if !Self::is_known(&inode) {
                file.bytes = bytes;
            }
            file.add_link(&parent, &name, Some(dir.clone()));
        }
        let stat = Some(stat);
        Ok(Instance::Ready(Child { inode, stat }))
    }

    fn instantiate_lower_file(
        &self,
        place: Place,
        state: &DirState,
        slot: &Slot,
    ) -> Result<Instance> {
        let name = &place.name;
        let Some(lower) = &slot.merged.lower else {
            return Ok(Instance::None);
        };
        let Some(dir) = state.lowers.iter().find(|dir| dir.source() == lower.top) else {
            return Ok(Instance::None);
        };
        let stat = dir.stat_entry(name).context("stat", name)?;
        let impure = state.impure_lowers.contains(&dir.source());
        let bytes = self.bytes_of(dir, name, &stat, impure, &state.lowers)?;
        if stat.nlink > 1 {
            return Ok(Instance::SharedLower(SharedLower {
                key: (lower.top, stat.dev, stat.ino),
                found_ino: lower.found.ino,
                kind: lower.found.kind,
                dir: dir.clone(),
                name: Arc::clone(name),
                stat,
                st_ino: slot.st_ino,
                bytes,
                place,
            }));
        }
        let node = self.new_file_node(Real::Lower {
            dir: dir.clone(),
            name: Arc::clone(name),
        });
        let birth = self.birth_below(&stat);
        let inode = self.new_inode_born(None, birth, slot.st_ino, lower.found.kind, node);
        if let Some(mut file) = inode.lock_file() {
            file.bytes = bytes;
            file.add_link(&place.parent, name, None);
        }
        let stat = Some(stat);
        Ok(Instance::Ready(Child { inode, stat }))
    }

    /// The inode of a lower file with several names, with all of them that are visible. `None` when
    /// names changed while they were looked for: the caller starts over.
    pub(super) fn instantiate_shared(&self, shared: &SharedLower) -> Result<Option<Arc<Inode>>> {
        if let Some(inode) = self
            .nodes
            .shared
            .get(&shared.key)
            .and_then(|weak| weak.upgrade())
        {
            return Ok(Some(inode));
        }
        let before = self.nodes.name_changes.load(Ordering::Acquire);
        let mut places = self.visible_places(&shared.dir, &shared.name, shared.key)?;
        if !places
            .iter()
            .any(|p| p.is(&shared.place.parent, &shared.place.name))
        {
            places.push(shared.place.clone());
        }
        if self.nodes.name_changes.load(Ordering::Acquire) != before {
            return Ok(None);
        }
        let node = self.new_file_node(Real::Lower {
            dir: shared.dir.clone(),
            name: Arc::clone(&shared.name),
        });
        if let Node::File(file) = &node {
            let mut state = crate::sync::lock(&file.state);
            state.bytes.clone_from(&shared.bytes);
            state.links = places
                .into_iter()
                .map(|place| Link { place, upper: None })
                .collect();
        }
        let birth = self.birth_below(&shared.stat);
        let inode = self.new_inode_born(None, birth, shared.st_ino, shared.kind, node);
        if let Some(file) = inode.file() {
            file.shared_lower.store(true, Ordering::Relaxed);
        }
        Ok(Some(self.share(shared.key, inode)))
    }

    /// Makes an inode the one that a real file is known by.
    pub(in crate::union) fn remember_shared(&self, key: RealKey, inode: &Arc<Inode>) {
        self.sweep_shared();
        self.nodes.shared.insert(key, Arc::downgrade(inode));
    }

    fn sweep_shared(&self) {
        if self.nodes.shared.len() > 2 * self.nodes.table.len() + 1024 {
            self.nodes.shared.retain(|_, weak| weak.strong_count() > 0);
        }
    }

    /// The one inode of a real file with several names: the one that is there, or `fresh`.
    pub(super) fn share(&self, key: RealKey, fresh: Arc<Inode>) -> Arc<Inode> {
        self.sweep_shared();
        match self.nodes.shared.entry(key) {
            MapEntry::Occupied(mut held) => match held.get().upgrade() {
                Some(inode) if inode.birth.agrees(fresh.birth) => inode,
                _ => {
                    held.insert(Arc::downgrade(&fresh));
                    fresh
                }
            },
            MapEntry::Vacant(vacant) => {
                vacant.insert(Arc::downgrade(&fresh));
                fresh
            }
        }
    }

    pub(in crate::union) fn new_inode(
        &self,
        volume: Option<(VolumeNo, BirthTime)>,
        st_ino: u64,
        kind: Kind,
        node: Node,
    ) -> Arc<Inode> {
        let birth = volume.map_or(BirthTime::UNKNOWN, |(_, birth)| birth);
        let volume = volume.map(|(volume, _)| volume);
        self.new_inode_born(volume, birth, st_ino, kind, node)
    }

    /// When a file of a lower layer was made, where another process may put another one in its
    /// place. Disks that are not this machine's may say another time whenever they like: another
    /// union does after a copy-up.
    fn birth_below(&self, stat: &Stat) -> BirthTime {
        match &self.others.live {
            Some(live) if live.trusted => stat.birth(),
            _ => BirthTime::UNKNOWN,
        }
    }

    fn new_inode_born(
        &self,
        volume: Option<VolumeNo>,
        birth: BirthTime,
        st_ino: u64,
        kind: Kind,
        node: Node,
    ) -> Arc<Inode> {
        let id = self.id_for(st_ino, kind, birth);
        if let Node::Dir(dir) = &node {
            crate::sync::lock(&dir.state).id = Some(id);
        }
        let inode = Inode::new(id, st_ino, kind, node);
        let inode = Arc::new(inode.in_volume(volume).born(birth));
        if let (Some(live), Node::Dir(dir), false) =
            (&self.others.live, &inode.node, inode.is_shared())
        {
            crate::sync::lock(&dir.state).live = Some(live.dir(Arc::downgrade(&inode)));
        }
        inode
    }

    pub(in crate::union) fn new_dir_node(
        &self,
        place: Option<Place>,
        upper: Option<WritableDir>,
        lowers: Vec<ReadOnlyDir>,
    ) -> Node {
        Node::Dir(Box::new(DirNode {
            place: Mutex::new(place),
            watched: AtomicBool::new(false),
            state: Mutex::new(DirState {
                upper,
                lowers,
                ..DirState::default()
            }),
        }))
    }

    pub(in crate::union) fn new_file_node(&self, real: Real) -> Node {
        Node::File(FileNode {
            state: Mutex::new(FileState {
                real,
                bytes: None,
                links: Vec::new(),
            }),
            copy_up: Mutex::new(()),
            shared_lower: AtomicBool::new(false),
            data: FdSlot::new(&self.layers.fds),
        })
    }
}

/// The result of looking for an inode while a directory is locked.
pub(in crate::union) enum Instance {
    None,
    Ready(Child),
    /// A lower file with several names: they must be found without the lock.
    SharedLower(SharedLower),
}

/// A lower file whose disk says that it has several names.
pub(in crate::union) struct SharedLower {
    pub(super) key: RealKey,
    /// Its inode number as getdents(2) returned it, which is another one for a mounted file.
    pub(super) found_ino: u64,
    kind: Kind,
    dir: ReadOnlyDir,
    name: Name,
    pub(super) stat: Stat,
    st_ino: u64,
    bytes: Option<Bytes>,
    pub(super) place: Place,
}
