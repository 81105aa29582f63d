//! An object of the merged tree: what the kernel knows by a node id.
//!
//! # Lock order
//! rename mutex -> directory states (an ancestor first, else the smaller node id) -> file states
//! (the smaller node id first) -> a layer directory's place -> a descriptor slot. A file's copy-up
//! lock comes before all of these and is the only one that is held over a data copy or fsync.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::layer::dir::{Name, Source};
use crate::layer::object::WritableObject;
use crate::layer::stat::{BirthTime, Kind, Protection};
use crate::layer::{FdSlot, ReadOnlyDir, WritableDir};
use crate::sync::lock;
use crate::union::node::followers::LiveDir;
use crate::union::node::ids::{NodeId, VolumeNo};
use crate::union::node::listing::Listing;
use crate::union::node::removed_dir::RemovedDir;

/// A directory entry: a name in a directory.
#[derive(Clone, Debug)]
pub(in crate::union) struct Place {
    /// The directory.
    pub parent: Arc<Inode>,
    /// The name in it.
    pub name: Name,
}

impl Place {
    /// Whether this is `name` in `parent`.
    #[must_use]
    pub(in crate::union) fn is(&self, parent: &Arc<Inode>, name: &[u8]) -> bool {
        Arc::ptr_eq(&self.parent, parent) && &*self.name == name
    }
}

/// An object of the merged tree.
#[derive(Debug)]
pub(in crate::union) struct Inode {
    /// Its node id.
    pub id: NodeId,
    /// Its `st_ino`; constant.
    pub st_ino: u64,
    /// Its type; constant.
    pub kind: Kind,
    /// The volume that it is in; `None` in the merged tree.
    pub(super) volume: Option<VolumeNo>,
    /// When it was made, in a volume or a layer that others edit, where its disk knows that.
    pub(in crate::union) birth: BirthTime,
    pub(in crate::union) lookups: AtomicU64,
    /// Bit 0: it is known to have no xattrs that are shown. The rest counts how often one was set,
    /// so that what was found before is not noted after.
    pub(in crate::union) xattrs: AtomicU64,
    pub(in crate::union) node: Node,
}

#[derive(Debug)]
pub(in crate::union) enum Node {
    Dir(Box<DirNode>),
    File(FileNode),
}

/// A merged directory.
#[derive(Debug)]
pub(in crate::union) struct DirNode {
    /// Where it is; `None` for the root. Changed only under the rename mutex and the parents'
    /// states. Lock order: locked for a statement, after the states; no other lock is taken under
    /// it.
    pub(in crate::union) place: Mutex<Option<Place>>,
    /// Lock order: see the module: after the rename mutex, an ancestor first, before file states.
    pub(in crate::union) state: Mutex<DirState>,
    /// Every change in its lower directories is notified (`live/watching.rs`).
    pub(in crate::union) watched: AtomicBool,
}

/// What a merged directory consists of.
#[derive(Debug, Default)]
pub(in crate::union) struct DirState {
    /// Its own node id, for change notifications (`changes.rs`).
    pub(in crate::union) id: Option<NodeId>,
    pub(in crate::union) upper: Option<WritableDir>,
    /// Contributing lower directories, newest first. Before the first listing they are what the
    /// parent's layers have under the name; the listing stops at the first opaque one.
    pub(in crate::union) lowers: Vec<ReadOnlyDir>,
    /// The one that says what it looks like, where the newest does not: that was made since
    /// something is in it.
    pub(in crate::union) described_by: Option<ReadOnlyDir>,
    pub(in crate::union) listing: Option<Listing>,
    /// Although it was not read yet, its newest layer is known not to cover the others.
    pub(in crate::union) known_merged: bool,
    /// A layer does not let it be read: the listing has the names that were asked for
    /// (`unlisted.rs`).
    pub(in crate::union) unlisted: bool,
    /// The removed directory that is kept, once it was removed.
    pub(in crate::union) removed: Option<Box<RemovedDir>>,
    /// The upper's directory is marked as holding entries with an origin.
    pub(in crate::union) impure: bool,
    /// The lower layers whose directories say that of themselves.
    pub(in crate::union) impure_lowers: Vec<Source>,
    /// What keeps its names from being changed; `None` when not known.
    pub(in crate::union) protection: Option<Protection>,
    /// How entries made here inherit; `None` when not known.
    pub(in crate::union) inheritance: Option<Inheritance>,
    /// What is kept when its layers are edited.
    pub(in crate::union) live: Option<Box<LiveDir>>,
}

impl DirState {
    /// As [`Inode::is_shared`]: its disk lists it each time, and its listing has what was looked up
    /// only.
    pub(in crate::union) fn is_shared(&self) -> bool {
        let source = self.upper.as_ref().map(|dir| dir.source());
        matches!(source, Some(Source::Volume(_)))
    }

    /// The lower directory whose attributes it shows, as long as it was not copied up.
    pub(in crate::union) fn looks_like(&self) -> Option<&ReadOnlyDir> {
        self.described_by.as_ref().or(self.lowers.first())
    }

    /// The directory was removed: nothing of it is on the disk any more.
    pub(in crate::union) fn set_removed(&mut self, removed: RemovedDir) {
        self.removed = Some(Box::new(removed));
        if let Some(upper) = self.upper.take() {
            upper.set_gone();
        }
        self.lowers.clear();
        self.described_by = None;
        self.live = None;
        self.listing = Some(Listing::default());
    }
}

/// The first directory that says what it looks like, when that is not the newest. For anything that
/// this hides, its layer says nothing about it.
pub(in crate::union) fn described_by(
    lowers: &[ReadOnlyDir],
) -> rustix::io::Result<Option<ReadOnlyDir>> {
    let Some((newest, below)) = lowers.split_first() else {
        return Ok(None);
    };
    if below.is_empty() || !newest.is_implied()? {
        return Ok(None);
    }
    for lower in below {
        if !lower.is_implied()? {
            return Ok(Some(lower.clone()));
        }
    }
    Ok(None)
}

/// What a new entry takes over from its directory.
#[derive(Clone, Debug, Default)]
pub(in crate::union) struct Inheritance {
    /// The directory is setgid: the group (on disk) of everything made in it.
    pub(in crate::union) group: Option<u32>,
    /// Its default ACL.
    pub(in crate::union) default_acl: Option<Vec<u8>>,
}

/// Where the bytes of a file are that has only its attributes.
#[derive(Clone, Debug)]
pub(in crate::union) enum Bytes {
    /// In a file of a layer below.
    At(ReadOnlyDir, Name),
    /// Nowhere: reading it fails with EIO.
    Missing,
}

/// A name in a directory of the merged tree.
#[derive(Clone, Copy)]
pub(in crate::union) struct EntryName<'a> {
    pub(in crate::union) parent: &'a Arc<Inode>,
    pub(in crate::union) name: &'a [u8],
}

/// Anything but a directory.
#[derive(Debug)]
pub(in crate::union) struct FileNode {
    /// Lock order: see the module: after directory states and `copy_up`, the smaller node id first.
    pub(in crate::union) state: Mutex<FileState>,
    /// Held while the inode is copied up, and while its data or times are changed in more than one
    /// step. Lock order: before the rename mutex and all states; the only lock that is held over a
    /// data copy or fsync.
    pub(in crate::union) copy_up: Mutex<()>,
    /// It was found in a lower layer with several names.
    pub(in crate::union) shared_lower: AtomicBool,
    /// The open backing file: the lower's for reading, or the upper's for reading and writing.
    pub(in crate::union) data: Arc<FdSlot>,
}

/// Where the bytes of a file are, and its names.
#[derive(Debug)]
pub(in crate::union) struct FileState {
    pub(in crate::union) real: Real,
    /// Where its bytes are, if not there.
    pub(in crate::union) bytes: Option<Bytes>,
    /// The visible names that are known. All of them for a lower file; for an upper file the ones
    /// that were looked up (its disk knows the true count).
    pub(in crate::union) links: Vec<Link>,
}

/// A name of a file, and the upper's directory it is in once it is there.
#[derive(Clone, Debug)]
pub(in crate::union) struct Link {
    pub(in crate::union) place: Place,
    pub(in crate::union) upper: Option<WritableDir>,
}

/// The real object behind a file.
#[derive(Debug)]
pub(in crate::union) enum Real {
    /// An entry of a lower layer.
    Lower { dir: ReadOnlyDir, name: Name },
    /// An entry of the upper.
    Upper { dir: WritableDir, name: Name },
    /// An object of the upper that has no name any more, or none that is known.
    Orphan(WritableObject),
}

impl FileState {
    pub(in crate::union) fn is_upper(&self) -> bool {
        !matches!(self.real, Real::Lower { .. })
    }

    /// Adds a name unless it is known.
    pub(in crate::union) fn add_link(
        &mut self,
        parent: &Arc<Inode>,
        name: &Name,
        upper: Option<WritableDir>,
    ) {
        if let Some(link) = self
            .links
            .iter_mut()
            .find(|link| link.place.is(parent, name))
        {
            link.upper = upper.or(link.upper.take());
            return;
        }
        self.links.push(Link {
            place: Place {
                parent: Arc::clone(parent),
                name: Arc::clone(name),
            },
            upper,
        });
    }

    /// Forgets a name.
    pub(in crate::union) fn drop_link(&mut self, parent: &Arc<Inode>, name: &[u8]) {
        self.links.retain(|link| !link.place.is(parent, name));
    }
}

impl Inode {
    pub(in crate::union) fn dir(&self) -> Option<&DirNode> {
        match &self.node {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    pub(in crate::union) fn file(&self) -> Option<&FileNode> {
        match &self.node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    /// The state of a directory; `None` for anything else.
    pub(in crate::union) fn lock_dir(&self) -> Option<MutexGuard<'_, DirState>> {
        self.dir().map(|dir| lock(&dir.state))
    }

    /// The state of anything but a directory.
    pub(in crate::union) fn lock_file(&self) -> Option<MutexGuard<'_, FileState>> {
        self.file().map(|file| lock(&file.state))
    }

    /// Where a directory is; `None` for the root and for other types.
    pub(in crate::union) fn place(&self) -> Option<Place> {
        self.dir().and_then(|dir| lock(&dir.place).clone())
    }

    /// How many lookups the transport counts on it.
    #[must_use]
    pub(in crate::union) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// An object of the merged tree, without lookups.
    pub(in crate::union) fn new(id: NodeId, st_ino: u64, kind: Kind, node: Node) -> Self {
        Self {
            id,
            st_ino,
            kind,
            volume: None,
            birth: BirthTime::UNKNOWN,
            lookups: AtomicU64::new(0),
            xattrs: AtomicU64::new(0),
            node,
        }
    }

    /// The same as part of a volume.
    pub(in crate::union) fn in_volume(mut self, volume: Option<VolumeNo>) -> Self {
        self.volume = volume;
        self
    }

    /// The same, made at a time that is known.
    pub(in crate::union) fn born(mut self, birth: BirthTime) -> Self {
        self.birth = birth;
        self
    }

    /// Whether others change it at any time, beside this mount, as the objects of volumes are:
    /// nothing of it is remembered, what is found under its name is compared with what it was, and
    /// it is written where it is.
    #[must_use]
    pub(in crate::union) fn is_shared(&self) -> bool {
        self.volume.is_some()
    }

    /// Whether both are on one file system, as far as rename(2) and link(2) are concerned.
    #[must_use]
    pub(in crate::union) fn is_on_file_system_of(&self, other: &Self) -> bool {
        self.volume == other.volume
    }

    /// The volume that it is in: for the facade and for the room of volumes. What the merged tree
    /// does asks [`Inode::is_shared`].
    #[must_use]
    pub(in crate::union) fn volume(&self) -> Option<VolumeNo> {
        self.volume
    }

    /// Whether `self` is `other` or lies above it. Only meaningful while the rename mutex is held.
    pub(in crate::union) fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Arc::clone(other);
        loop {
            if Arc::ptr_eq(self, &at) {
                return true;
            }
            match at.place() {
                Some(place) => at = place.parent,
                None => return false,
            }
        }
    }
}

impl DirNode {
    fn take_parent(&mut self) -> Option<Arc<Inode>> {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner);
        place.take().map(|place| place.parent)
    }
}

/// Parents that have no other holder are released as well: one after the other, however deep the
/// tree is.
impl Drop for Inode {
    fn drop(&mut self) {
        match &mut self.node {
            Node::Dir(dir) => drop_upwards(dir.take_parent()),
            Node::File(file) => {
                let state = file.state.get_mut().unwrap_or_else(PoisonError::into_inner);
                for link in state.links.drain(..) {
                    drop_upwards(Some(link.place.parent));
                }
            }
        }
    }
}

fn drop_upwards(mut next: Option<Arc<Inode>>) {
    while let Some(mut inode) = next.and_then(Arc::into_inner) {
        next = match &mut inode.node {
            Node::Dir(dir) => dir.take_parent(),
            Node::File(_) => None,
        };
    }
}
