//! From a name in a directory to an inode.

use crate::union::types::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Weak};

use dashmap::mapref::entry::Entry as MapEntry;
use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::stat::{BirthTime, Kind, ObjectId, Stat};
use crate::layer::{FdSlot, ReadOnlyDir, WritableDir};
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{
    Bytes, DirNode, DirState, FileNode, FileState, Inode, Link, Node, Place, Real, described_by,
};
use crate::union::node::listing::Slot;
use crate::union::node::mount_point::VolumeNo;
use crate::union::node::nodes::RealKey;
use crate::union::{NAME_MAX, Union};

/// An inode, and what stat(2) said if it had to be asked on the way.
pub(in crate::union) struct Child {
    pub(in crate::union) inode: Arc<Inode>,
    pub(in crate::union) stat: Option<Stat>,
}

impl Child {
    pub(in crate::union) fn known(inode: Arc<Inode>) -> Self {
        Self { inode, stat: None }
    }
}

impl Union {
    /// Frees what is kept for an inode that the transport does not know any more.
    pub(in crate::union) fn forget_inode(&self, inode: Arc<Inode>) {
        // The parents' slots hold weak references, which keep the memory: clear them too.
        let places: Vec<Place> = match &inode.node {
            Node::Dir(_) => inode.place().into_iter().collect(),
            Node::File(file) => crate::sync::lock(&file.state)
                .links
                .iter()
                .map(|link| link.place.clone())
                .collect(),
        };
        self.remember_forgotten(&inode);
        if inode.volume.is_some() && inode.kind == Kind::Dir {
            self.streams.forget(inode.id);
        }
        let node = inode.id;
        drop(inode);
        if let Some(live) = &self.others.live {
            live.forget(node);
        }
        for place in places {
            if let Some(mut state) = place.parent.lock_dir()
                && let Some(listing) = &mut state.listing
                && let Some(slot) = listing.get_mut(&place.name)
                && slot.child.strong_count() == 0
            {
                slot.child = Weak::new();
                if place.parent.volume.is_some() && slot.mount.is_none() {
                    listing.update(&place.name, |slot| slot.merged.upper = None);
                }
            }
        }
    }

    /// Counts a lookup and gathers the reply.
    pub(in crate::union) fn entry(&self, child: &Child) -> Result<Entry> {
        let attr = self.attr_with(&child.inode, child.stat.as_ref())?;
        self.nodes.table.add_lookup(&child.inode);
        Ok(Entry {
            node: child.inode.id,
            attr,
        })
    }

    /// The inode of a name, without counting a lookup.
    pub(in crate::union) fn child(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Option<Child>> {
        if name.len() > NAME_MAX {
            return fail(Errno::NAMETOOLONG);
        }
        loop {
            let shared = {
                let Some(mut state) = parent.lock_dir() else {
                    return fail(Errno::NOTDIR);
                };
                self.load_name(&mut state, name)?;
                let found = match parent.volume {
                    Some(_) => self.refresh(&mut state, name)?,
                    None => None,
                };
                match self.child_locked(parent, &mut state, name)? {
                    Instance::None => return Ok(None),
                    Instance::Ready(mut child) => {
                        if child.inode.volume == parent.volume {
                            child.stat = found.or(child.stat);
                        }
                        return Ok(Some(child));
                    }
                    Instance::SharedLower(shared) => shared,
                }
            };
            // Its other names lie in other directories: they are looked for without holding this
            // one's lock.
            if let Some(inode) = self.instantiate_shared(&shared)? {
                let mut state = match parent.lock_dir() {
                    Some(state) => state,
                    None => return fail(Errno::NOTDIR),
                };
                if let Some(slot) = self.slot_mut(&mut state, name)?
                    && slot.merged.upper.is_none()
                    && slot.merged.lower.as_ref().is_some_and(|lower| {
                        lower.top == shared.key.0 && lower.found.ino == shared.found_ino
                    })
                {
                    slot.child = Arc::downgrade(&inode);
                    // The index may not know this name: below another mount's redirect, for
                    // instance.
                    if let Some(mut file) = inode.lock_file()
                        && !file.is_upper()
                    {
                        file.add_link(parent, &shared.place.name, None);
                    }
                    return Ok(Some(Child {
                        inode,
                        stat: Some(shared.stat),
                    }));
                }
            }
        }
    }

    /// The slot of a visible name.
    pub(in crate::union) fn slot_mut<'a>(
        &self,
        state: &'a mut DirState,
        name: &[u8],
    ) -> Result<Option<&'a mut Slot>> {
        self.load_name(state, name)?;
        Ok(state
            .listing
            .as_mut()
            .and_then(|listing| listing.get_mut(name))
            .filter(|slot| slot.is_visible()))
    }

    /// As [`Union::child`], for a directory whose state is locked and loaded.
    pub(in crate::union) fn child_locked(
        &self,
        parent: &Arc<Inode>,
        state: &mut DirState,
        name: &[u8],
    ) -> Result<Instance> {
        let Some((key, slot)) = state
            .listing
            .as_ref()
            .and_then(|listing| listing.visible_entry(name))
        else {
            return Ok(Instance::None);
        };
        if let Some(mount) = &slot.mount {
            let inode = mount.inode.upgrade();
            return Ok(inode.map_or(Instance::None, |inode| Instance::Ready(Child::known(inode))));
        }
        if let Some(inode) = slot.child.upgrade() {
            return Ok(Instance::Ready(Child::known(inode)));
        }
        let name = Name::clone(key);
        let kind = slot.kind().unwrap_or(Kind::File);
        let instance = if kind == Kind::Dir {
            let inode = self.instantiate_dir(parent, state, slot, &name)?;
            Instance::Ready(Child::known(inode))
        } else {
            self.instantiate_file(parent, state, slot, &name)?
        };
        if let Instance::Ready(child) = &instance
            && let Some(slot) = state.listing.as_mut().and_then(|l| l.get_mut(&name))
        {
            slot.child = Arc::downgrade(&child.inode);
        }
        Ok(instance)
    }

    fn instantiate_dir(
        &self,
        parent: &Arc<Inode>,
        state: &DirState,
        slot: &Slot,
        name: &Name,
    ) -> Result<Arc<Inode>> {
        let mut volume = None;
        let upper = match (&slot.merged.upper, &state.upper, parent.volume) {
            (Some(found), Some(dir), Some(no)) => {
                let stat = dir.stat_entry(name).context("stat", name)?;
                let birth = self.birth_of(no, &stat);
                volume = Some((no, birth));
                let ino = found.ino;
                Some(dir.child_with_id(name, ObjectId { ino, birth }))
            }
            (Some(_), Some(dir), None) => Some(dir.child(name)),
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

    fn instantiate_file(
        &self,
        parent: &Arc<Inode>,
        state: &DirState,
        slot: &Slot,
        name: &Name,
    ) -> Result<Instance> {
        if let (Some(_), Some(dir)) = (&slot.merged.upper, &state.upper) {
            let stat = dir.stat_entry(name).context("stat", name)?;
            let node = self.new_file_node(Real::Upper {
                dir: dir.clone(),
                name: Arc::clone(name),
            });
            let kind = slot.kind().unwrap_or_else(|| stat.kind());
            let volume = parent.volume.map(|no| (no, self.birth_of(no, &stat)));
            let mut inode = self.new_inode(volume, slot.st_ino, kind, node);
            if stat.nlink > 1 {
                inode = self.share((dir.source(), stat.dev, stat.ino), inode);
            }
            let bytes = match parent.volume {
                Some(_) => None,
                None => self.bytes_of(dir, name, &stat, state.impure, &state.lowers)?,
            };
            if let Some(mut file) = inode.lock_file() {
                if !Self::is_known(&inode) {
                    file.bytes = bytes;
                }
                file.add_link(parent, name, Some(dir.clone()));
            }
            let stat = Some(stat);
            return Ok(Instance::Ready(Child { inode, stat }));
        }
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
                place: Place {
                    parent: Arc::clone(parent),
                    name: Arc::clone(name),
                },
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
            file.add_link(parent, name, None);
        }
        let stat = Some(stat);
        Ok(Instance::Ready(Child { inode, stat }))
    }

    /// The inode of a lower file with several names, with all of them that are visible. `None` when
    /// names changed while they were looked for: the caller starts over.
    fn instantiate_shared(&self, shared: &SharedLower) -> Result<Option<Arc<Inode>>> {
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
        let inode = Arc::new(Inode {
            id,
            st_ino,
            kind,
            volume,
            birth,
            lookups: AtomicU64::new(0),
            xattrs: AtomicU64::new(0),
            node,
        });
        if let (Some(live), Node::Dir(dir), None) = (&self.others.live, &inode.node, volume) {
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
    key: RealKey,
    /// Its inode number as getdents(2) returned it, which is another one for a mounted file.
    found_ino: u64,
    kind: Kind,
    dir: ReadOnlyDir,
    name: Name,
    stat: Stat,
    st_ino: u64,
    bytes: Option<Bytes>,
    place: Place,
}

/// Opens a layer's root directory.
pub(crate) fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => open(path, flags, Mode::empty()),
        other => other,
    }
}
