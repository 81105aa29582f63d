//! From a name in a directory to an inode.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Weak};
use std::time::{Duration, Instant};

use dashmap::mapref::entry::Entry as MapEntry;
use rustix::io::Errno;

use super::attr::Attr;
use super::config::CacheMode;
use super::create::DEVICE_XATTR;
use super::error::{During, Result, refuse};
use super::identity::{decode_origin, of_upper};
use super::inode::{
    DirNode, DirState, FileNode, FileState, Inode, Link, Node, NodeId, Place, Real,
};
use super::listing::{Listing, Slot, Stamp};
use super::stack::Merger;
use super::{NAME_MAX, RealKey, Union};
use crate::layer::dir::{Dir, Name, UPPER};
use crate::layer::mark::{
    DirMarks, Mark, NameMeaning, REDIRECT_XATTRS, TRUSTED_PREFIX, USER_PREFIX, WHITEOUT_XATTRS,
    dir_marks, meaning,
};
use crate::layer::stat::{Kind, Stat};
use crate::layer::xattr::XattrPath;
use crate::layer::{FdSlot, LowerDir, UpperDir};

/// How old a listing may be before its layers are looked at again, when they may change.
const RECHECK: Duration = Duration::from_millis(400);

/// What a lookup answers: the node, on which one lookup was counted, and its attributes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The node id.
    pub node: NodeId,
    /// Its attributes; `attr.ino` is `st_ino`, not the node id.
    pub attr: Attr,
}

/// An inode, and what stat(2) said if it had to be asked on the way.
pub(super) struct Child {
    pub(super) inode: Arc<Inode>,
    pub(super) stat: Option<Stat>,
}

impl Child {
    fn known(inode: Arc<Inode>) -> Self {
        Self { inode, stat: None }
    }
}

impl Union {
    /// Looks a name up and counts one lookup on what it finds; `None` when there is nothing.
    /// Errors: ENOTDIR, ENAMETOOLONG, ESTALE for a node id without lookups, and what the disk answers.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        let parent = self.table.get(parent)?;
        // Only a file server asks for these, to find a node again (open_by_handle_at(2)).
        let found = match name {
            b"." => Some(Child::known(parent)),
            b".." => Some(Child::known(
                parent.place().map_or(parent, |place| place.parent),
            )),
            _ => self.child(&parent, name)?,
        };
        found.map(|child| self.entry(&child)).transpose()
    }

    /// Counts a lookup and gathers the reply.
    pub(super) fn entry(&self, child: &Child) -> Result<Entry> {
        let attr = self.attr_with(&child.inode, child.stat.as_ref())?;
        self.table.add_lookup(&child.inode);
        Ok(Entry {
            node: child.inode.id,
            attr,
        })
    }

    /// Takes lookups away that [`Union::lookup`] and the like counted. At zero the node id becomes invalid and
    /// memory and descriptors are freed.
    pub fn forget(&self, node: NodeId, count: u64) {
        if node == NodeId::ROOT {
            return;
        }
        let Some(inode) = self.table.forget(node, count) else {
            return;
        };
        // The parents' slots hold weak references, which keep the memory: clear them too.
        let places: Vec<Place> = match &inode.node {
            Node::Dir(_) => inode.place().into_iter().collect(),
            Node::File(file) => crate::sync::lock(&file.state)
                .links
                .iter()
                .map(|link| link.place.clone())
                .collect(),
        };
        drop(inode);
        for place in places {
            if let Some(mut state) = place.parent.lock_dir()
                && let Some(listing) = &mut state.listing
                && let Some(slot) = listing.get_mut(&place.name)
                && slot.child.strong_count() == 0
            {
                slot.child = Weak::new();
            }
        }
    }

    /// The inode of a name, without counting a lookup.
    pub(super) fn child(&self, parent: &Arc<Inode>, name: &[u8]) -> Result<Option<Child>> {
        if name.len() > NAME_MAX {
            return refuse(Errno::NAMETOOLONG);
        }
        loop {
            let shared = {
                let Some(mut state) = parent.lock_dir() else {
                    return refuse(Errno::NOTDIR);
                };
                self.load(&mut state)?;
                match self.child_locked(parent, &mut state, name)? {
                    Instance::None => return Ok(None),
                    Instance::Ready(child) => return Ok(Some(child)),
                    Instance::SharedLower(shared) => shared,
                }
            };
            // Its other names lie in other directories: they are looked for without holding this one's lock.
            if let Some(inode) = self.instantiate_shared(&shared)? {
                let mut state = match parent.lock_dir() {
                    Some(state) => state,
                    None => return refuse(Errno::NOTDIR),
                };
                if let Some(slot) = self.slot_mut(&mut state, name)?
                    && slot.upper.is_none()
                    && slot.lower.as_ref().is_some_and(|lower| {
                        lower.top == shared.key.0 && lower.found.ino == shared.key.2
                    })
                {
                    slot.child = Arc::downgrade(&inode);
                    return Ok(Some(Child {
                        inode,
                        stat: Some(shared.stat),
                    }));
                }
            }
        }
    }

    /// The slot of a visible name.
    pub(super) fn slot_mut<'a>(
        &self,
        state: &'a mut DirState,
        name: &[u8],
    ) -> Result<Option<&'a mut Slot>> {
        self.load(state)?;
        Ok(state
            .listing
            .as_mut()
            .and_then(|listing| listing.get_mut(name))
            .filter(|slot| slot.is_visible()))
    }

    /// As [`Union::child`], for a directory whose state is locked and loaded.
    pub(super) fn child_locked(
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
        let upper = match (&slot.upper, &state.upper) {
            (Some(_), Some(dir)) => Some(dir.child(name)),
            _ => None,
        };
        let mut lowers = Vec::new();
        let merges = slot.upper.is_none() || !slot.is_cut();
        if merges && let Some(redirect) = &slot.upper_redirect {
            lowers = self.follow_redirect(state, redirect)?;
        } else if merges
            && let Some(lower) = &slot.lower
            && lower.found.kind == Kind::Dir
        {
            lowers = state
                .lowers
                .iter()
                .filter(|dir| lower.layers.binary_search(&dir.layer()).is_ok())
                .map(|dir| dir.child(name))
                .collect();
            if let Some(redirect) = &lower.redirect {
                lowers.extend(self.follow_redirect(state, redirect)?);
            }
        }
        let place = Place {
            parent: Arc::clone(parent),
            name: Arc::clone(name),
        };
        let node = self.new_dir_node(Some(place), upper, lowers);
        Ok(self.new_inode(slot.st_ino, Kind::Dir, node))
    }

    fn instantiate_file(
        &self,
        parent: &Arc<Inode>,
        state: &DirState,
        slot: &Slot,
        name: &Name,
    ) -> Result<Instance> {
        if let (Some(_), Some(dir)) = (&slot.upper, &state.upper) {
            let stat = dir.stat_entry(name).during("stat", name)?;
            let node = self.new_file_node(Real::Upper {
                dir: dir.clone(),
                name: Arc::clone(name),
            });
            let kind = slot.kind().unwrap_or_else(|| stat.kind());
            let mut inode = self.new_inode(slot.st_ino, kind, node);
            if stat.nlink > 1 {
                inode = self.share((UPPER, stat.dev, stat.ino), inode);
            }
            if let Some(mut file) = inode.lock_file() {
                file.add_link(parent, name, Some(dir.clone()));
            }
            let stat = Some(stat);
            return Ok(Instance::Ready(Child { inode, stat }));
        }
        let Some(lower) = &slot.lower else {
            return Ok(Instance::None);
        };
        let Some(dir) = state.lowers.iter().find(|dir| dir.layer() == lower.top) else {
            return Ok(Instance::None);
        };
        let stat = dir.stat_entry(name).during("stat", name)?;
        if stat.nlink > 1 {
            return Ok(Instance::SharedLower(SharedLower {
                key: (lower.top, stat.dev, stat.ino),
                dir: dir.clone(),
                name: Arc::clone(name),
                stat,
                st_ino: slot.st_ino,
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
        let inode = self.new_inode(slot.st_ino, stat.kind(), node);
        if let Some(mut file) = inode.lock_file() {
            file.add_link(parent, name, None);
        }
        let stat = Some(stat);
        Ok(Instance::Ready(Child { inode, stat }))
    }

    /// The inode of a lower file with several names, with all of them that are visible. `None` when names
    /// changed while they were looked for: the caller starts over.
    fn instantiate_shared(&self, shared: &SharedLower) -> Result<Option<Arc<Inode>>> {
        if let Some(inode) = self.shared.get(&shared.key).and_then(|weak| weak.upgrade()) {
            return Ok(Some(inode));
        }
        let before = self.name_changes.load(Ordering::Acquire);
        let mut places = self.visible_places(&shared.dir, &shared.name, shared.key)?;
        if !places
            .iter()
            .any(|p| p.is(&shared.place.parent, &shared.place.name))
        {
            places.push(shared.place.clone());
        }
        if self.name_changes.load(Ordering::Acquire) != before {
            return Ok(None);
        }
        let node = self.new_file_node(Real::Lower {
            dir: shared.dir.clone(),
            name: Arc::clone(&shared.name),
        });
        if let Node::File(file) = &node {
            crate::sync::lock(&file.state).links = places
                .into_iter()
                .map(|place| Link { place, upper: None })
                .collect();
        }
        let inode = self.new_inode(shared.st_ino, shared.stat.kind(), node);
        Ok(Some(self.share(shared.key, inode)))
    }

    /// The one inode of a real file with several names: the one that is there, or `fresh`.
    pub(super) fn share(&self, key: RealKey, fresh: Arc<Inode>) -> Arc<Inode> {
        if self.shared.len() > 2 * self.table.len() + 1024 {
            self.shared.retain(|_, weak| weak.strong_count() > 0);
        }
        match self.shared.entry(key) {
            MapEntry::Occupied(mut held) => match held.get().upgrade() {
                Some(inode) => inode,
                None => {
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

    pub(super) fn new_inode(&self, st_ino: u64, kind: Kind, node: Node) -> Arc<Inode> {
        Arc::new(Inode {
            id: self.table.fresh_id(),
            st_ino,
            kind,
            lookups: AtomicU64::new(0),
            no_xattrs: AtomicBool::new(false),
            node,
        })
    }

    pub(super) fn new_dir_node(
        &self,
        place: Option<Place>,
        upper: Option<UpperDir>,
        lowers: Vec<LowerDir>,
    ) -> Node {
        Node::Dir(Box::new(DirNode {
            place: Mutex::new(place),
            state: Mutex::new(DirState {
                upper,
                lowers,
                ..DirState::default()
            }),
        }))
    }

    pub(super) fn new_file_node(&self, real: Real) -> Node {
        Node::File(FileNode {
            state: Mutex::new(FileState {
                real,
                links: Vec::new(),
            }),
            copy_up: Mutex::new(()),
            data: FdSlot::new(&self.fds),
            dirty: AtomicBool::new(false),
        })
    }

    /// Reads the directory's layers if that was not done yet, or, where they may change, again if they did.
    pub(super) fn load(&self, state: &mut DirState) -> Result<()> {
        if state.removed.is_some() {
            state.listing.get_or_insert_with(Listing::default);
            return Ok(());
        }
        if let Some(listing) = &mut state.listing {
            if self.cache == CacheMode::Static || listing.checked.elapsed() < RECHECK {
                return Ok(());
            }
            listing.checked = Instant::now();
            let before = std::mem::take(&mut listing.stamps);
            let now = stamps(state)?;
            if let Some(listing) = &mut state.listing
                && before == now
            {
                listing.stamps = now;
                return Ok(());
            }
        }
        let mut fresh = self.read_layers(state)?;
        if self.cache == CacheMode::Auto {
            fresh.stamps = stamps(state)?;
        }
        if let Some(older) = state.listing.take() {
            fresh.inherit(older);
        }
        state.listing = Some(fresh);
        Ok(())
    }

    fn read_layers(&self, state: &mut DirState) -> Result<Listing> {
        let mut merger = Merger::default();
        let mut origins = HashMap::new();
        let mut opaque = false;
        if let Some(upper) = &state.upper {
            let marks = self.read_layer(upper, &mut merger, &mut origins)?;
            opaque = marks.opaque;
            state.impure = marks.impure;
        }
        let mut contributing = 0;
        for lower in &state.lowers {
            if opaque {
                break;
            }
            opaque = self
                .read_layer(lower, &mut merger, &mut HashMap::new())?
                .opaque;
            contributing += 1;
        }
        state.lowers.truncate(contributing);
        let mut listing = Listing::default();
        for (name, merged) in merger.finish() {
            listing.update(&name, |slot| {
                *slot = Slot::from(merged);
                slot.st_ino = match (&slot.upper, &slot.lower) {
                    (Some(upper), _) => origins
                        .get(&name)
                        .copied()
                        .unwrap_or_else(|| of_upper(upper.ino)),
                    (None, Some(lower)) => self.lower_ino(lower.top, lower.found.ino),
                    (None, None) => 0,
                };
            });
        }
        Ok(listing)
    }

    /// Feeds one layer's directory to the merger. Costs no call per name, except where a name may be more
    /// than it seems: of unknown type, a device, in a directory with xattr whiteouts, or copied up.
    fn read_layer(
        &self,
        dir: &Dir,
        merger: &mut Merger,
        origins: &mut HashMap<Name, u64>,
    ) -> Result<DirMarks> {
        let layer = dir.layer();
        let xattrs = dir.xattrs().during("open directory", b".")?;
        let list = if self.no_xattrs {
            Vec::new()
        } else {
            xattrs.list().during("listxattr", b".")?
        };
        let mut marks = dir_marks(&list, |name| xattrs.get(name).unwrap_or_default());
        merger.begin(layer);
        let mut failure = None;
        dir.for_each(|name, kind, ino| {
            let meaning = if self.reads_wh_names(layer) {
                meaning(name)
            } else {
                NameMeaning::Plain
            };
            match meaning {
                NameMeaning::Whiteout(hidden) => return merger.whiteout(hidden, Mark::Beside),
                NameMeaning::Opaque => return marks.opaque = true,
                NameMeaning::Leftover => return,
                NameMeaning::Plain => {}
            }
            match self.look_closer(dir, name, kind, ino, marks) {
                Ok(Closer::Whiteout) => merger.whiteout(name, Mark::InPlace),
                Ok(Closer::Entry {
                    kind,
                    origin,
                    redirect,
                }) => {
                    if let Some(origin) = origin {
                        origins.insert(Name::from(name), origin);
                    }
                    merger.entry(name, kind, ino, redirect);
                }
                Ok(Closer::Nothing) => {}
                Err(error) => failure = Some(error),
            }
        })
        .during("getdents", b".")?;
        merger.end();
        match failure {
            Some(error) => Err(error),
            None => Ok(marks),
        }
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
            _ => match dir.stat_entry(name) {
                Ok(stat) if stat.is_whiteout_device() => return Ok(Closer::Whiteout),
                Ok(stat) => stat.kind(),
                Err(Errno::NOENT) => return Ok(Closer::Nothing),
                Err(errno) => return Err(errno).during("stat", name),
            },
        };
        let mut origin = None;
        let mut redirect = None;
        if marks.xattr_whiteouts && kind == Kind::File {
            let xattrs = dir.xattrs_of(name).during("open directory", b".")?;
            if WHITEOUT_XATTRS
                .iter()
                .any(|xattr| matches!(xattrs.get_opt(xattr.as_bytes()), Ok(Some(_))))
            {
                return Ok(Closer::Whiteout);
            }
        }
        if marks.impure {
            let xattrs = dir.xattrs_of(name).during("open directory", b".")?;
            if dir.layer() == UPPER {
                origin = own_xattr(&xattrs, "origin").and_then(|value| decode_origin(&value, ino));
                if kind == Kind::File && own_xattr(&xattrs, DEVICE_XATTR).is_some() {
                    kind = Kind::Char;
                }
            }
            if kind == Kind::Dir {
                redirect = REDIRECT_XATTRS
                    .iter()
                    .find_map(|xattr| xattrs.get_opt(xattr.as_bytes()).ok().flatten())
                    .map(Name::from);
            }
        }
        Ok(Closer::Entry {
            kind,
            origin,
            redirect,
        })
    }
}

/// One of our own xattrs, under either prefix.
fn own_xattr(xattrs: &XattrPath, name: &str) -> Option<Vec<u8>> {
    [TRUSTED_PREFIX, USER_PREFIX].iter().find_map(|prefix| {
        let name = format!("{prefix}{name}");
        xattrs.get_opt(name.as_bytes()).ok().flatten()
    })
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

/// What became of the wish for an inode while a directory is locked.
pub(super) enum Instance {
    None,
    Ready(Child),
    /// A lower file with several names: they must be found without the lock.
    SharedLower(SharedLower),
}

/// A lower file whose disk says that it has several names.
pub(super) struct SharedLower {
    key: RealKey,
    dir: LowerDir,
    name: Name,
    stat: Stat,
    st_ino: u64,
    place: Place,
}

fn stamps(state: &DirState) -> Result<Vec<Stamp>> {
    let upper = state.upper.iter().map(|dir| -> &Dir { dir });
    let lowers = state.lowers.iter().map(|dir| -> &Dir { dir });
    upper
        .chain(lowers)
        .map(|dir| {
            let stat = dir.stat().during("stat", b".")?;
            Ok(Stamp {
                ino: stat.ino,
                mtime: stat.mtime,
                ctime: stat.ctime,
            })
        })
        .collect()
}

/// Opens a layer's root directory.
pub(super) fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => open(path, flags, Mode::empty()),
        other => other,
    }
}
