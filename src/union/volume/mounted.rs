//! Volumes and bind mounts: directories and files of the host that appear inside the merged tree without a mount of
//! their own.
//!
//! A directory of a volume is one writable directory of the host's disk and nothing else: there is no layer below it, no
//! copy-up and no mark, and every name, `.wh.` ones as well, is an ordinary name. What is done in it is done on that disk
//! at once (`volume_ops.rs`).
//!
//! A volume is shared, with the host and with other mounts. So nothing of it is remembered: each lookup asks the disk, a
//! directory is listed anew each time, and [`crate::union::Attr::shared`] tells the transport that it must not let anything
//! be cached for long. What is held, a place in the tree or an open descriptor, is only used when what is found there is
//! still the same inode (number, and when it was made, where the disk says that); else the answer is ESTALE, as on a network disk. A file that somebody else removed can be used
//! on for as long as its descriptor stays in the cache.
//!
//! Owners, modes and types are the disk's. The xattrs that keep them in a layer (`record.rs`) say nothing here: whoever
//! owns the directory could write them, and so make setuid programs of root and devices.
//!
//! `st_ino` is a number of the disk's own ([`crate::union::node::identity::of_volume`]). The mappings of owners are the layers', for
//! they say how those were unpacked; only what squashes all owners into one holds here, too.

use crate::union::node::mount_point::VolumeNo;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use crate::layer::UpperDir;
use crate::layer::dir::Name;
use crate::layer::stat::{Birth, Kind, Stat};
use crate::layer::upper::UpperObject;
use crate::layer::xattr_name::Keeping;
use crate::sync::read;
use crate::union::Union;
use crate::union::error::{During, Result, refuse};
use crate::union::file::idmap::IdMaps;
use crate::union::node::identity::of_volume;
use crate::union::node::inode::{DirState, FileState, Inode, Node, NodeId, Real};
use crate::union::node::stack::Found;

/// A volume.
#[derive(Debug)]
pub(in crate::union) struct Volume {
    /// What is shown: the directory, or the file (`O_PATH`).
    pub(in crate::union) fd: Arc<OwnedFd>,
    /// The device it is on; other ones are mounted in it.
    pub(super) dev: u64,
    pub(in crate::union) read_only: bool,
    /// When an object was made says which one it is.
    pub(in crate::union) knows_births: bool,
}

impl Volume {
    /// When an object of the volume was made, where that counts.
    pub(super) fn birth_of(&self, stat: &Stat) -> Birth {
        if self.knows_births && stat.dev == self.dev {
            stat.birth()
        } else {
            Birth::UNKNOWN
        }
    }
}

impl Union {
    /// Whether the union has volumes.
    #[must_use]
    pub fn has_volumes(&self) -> bool {
        !self.volumes.list.is_empty()
    }

    /// Whether nothing at all can be changed, neither in the upper nor in a volume.
    #[must_use]
    pub fn is_wholly_read_only(&self) -> bool {
        self.is_read_only() && self.volumes.list.iter().all(|volume| volume.read_only)
    }

    /// Whether what is found in a directory, or is not, may change at any time (see [`crate::union::Belief`]).
    #[must_use]
    pub fn is_shared(&self, node: NodeId) -> bool {
        self.has_volumes()
            && self
                .nodes
                .table
                .get(node)
                .is_ok_and(|inode| inode.volume.is_some())
    }

    pub(in crate::union) fn volume_of(&self, inode: &Inode) -> Option<&Volume> {
        self.volumes.list.get(usize::from(inode.volume?))
    }

    /// Refuses a change of an object where nothing can be changed. Errors: EROFS.
    pub(in crate::union) fn check_writable(&self, inode: &Inode) -> Result<()> {
        match self.volume_of(inode) {
            Some(volume) if volume.read_only => refuse(Errno::ROFS),
            Some(_) => Ok(()),
            None => self.writable().map(drop),
        }
    }

    /// How the disk behind an inode keeps its xattrs; `None` where their names are what they are.
    pub(in crate::union) fn keeping_of(&self, inode: &Inode) -> Result<Option<Keeping>> {
        match self.volume_of(inode) {
            Some(_) => Ok(None),
            None => Ok(Some(self.writable()?.keeping)),
        }
    }

    /// The mappings of owners that hold for an object.
    pub(in crate::union) fn ids_of(&self, volume: Option<VolumeNo>) -> &IdMaps {
        match volume {
            Some(_) => &self.volumes.ids,
            None => &self.rules.ids,
        }
    }

    /// Whether a volume, or a part of one, is shown at this inode.
    pub(in crate::union) fn is_mount(&self, inode: &Arc<Inode>) -> bool {
        self.has_volumes()
            && read(&self.volumes.mounts)
                .iter()
                .any(|mount| Arc::ptr_eq(&mount.inode, inode))
    }

    /// Refuses to take away or move what a volume is shown at, and to move a directory above that. Errors: EBUSY.
    pub(in crate::union) fn check_no_mount(&self, inode: &Arc<Inode>, moves: bool) -> Result<()> {
        if !self.has_volumes() {
            return Ok(());
        }
        let busy = read(&self.volumes.mounts).iter().any(|mount| {
            Arc::ptr_eq(&mount.inode, inode)
                || (moves && inode.kind == Kind::Dir && inode.is_ancestor_of(&mount.parent))
        });
        if busy {
            return refuse(Errno::BUSY);
        }
        Ok(())
    }

    /// Puts volumes into the listing of a directory that was just read.
    pub(in crate::union) fn show_mounts(
        &self,
        id: Option<NodeId>,
        listing: &mut crate::union::node::listing::Listing,
    ) {
        if !self.has_volumes() {
            return;
        }
        for mount in read(&self.volumes.mounts).iter() {
            if Some(mount.parent.id) == id {
                listing.update(&mount.name, |slot| {
                    slot.mount = Some(Box::new(mount.mounted()));
                    slot.st_ino = mount.inode.st_ino;
                });
            }
        }
    }

    /// The `st_ino` of an object of a volume.
    pub(super) fn volume_ino(&self, stat: &Stat) -> u64 {
        self.ino_on(stat.dev, stat.ino)
    }

    /// The `st_ino` of an object of a disk that volumes are on. Where one disk is shown at several places, what is at several
    /// of them is one object to programs, as with bind mounts: mv(1) of a file onto itself would remove it.
    pub(super) fn ino_on(&self, dev: u64, ino: u64) -> u64 {
        let first = self
            .volumes
            .list
            .iter()
            .position(|volume| volume.dev == dev);
        match first.and_then(|first| VolumeNo::try_from(first).ok()) {
            Some(first) => self.nodes.numbers.fit(of_volume(first, 0, ino)),
            None => self.nodes.numbers.fit(of_volume(0, dev, ino)),
        }
    }

    /// The same of an object on the disk of a volume's root.
    pub(super) fn ino_in(&self, volume: VolumeNo, ino: u64) -> u64 {
        let root = self.volumes.list.get(usize::from(volume));
        self.ino_on(root.map_or(0, |root| root.dev), ino)
    }

    /// When an object of a volume was made, where that says which one it is.
    pub(in crate::union) fn birth_of(&self, volume: VolumeNo, stat: &Stat) -> Birth {
        let volume = self.volumes.list.get(usize::from(volume));
        volume.map_or(Birth::UNKNOWN, |volume| volume.birth_of(stat))
    }

    /// Whether what the disk has now is what an inode of a volume stands for.
    pub(super) fn stands_for(&self, inode: &Inode, stat: &Stat) -> bool {
        inode.volume.is_some_and(|volume| {
            self.volume_ino(stat) == inode.st_ino && inode.birth.agrees(self.birth_of(volume, stat))
        })
    }

    /// Asks the disk what a name of a volume's directory is now, and notes that in its slot.
    pub(in crate::union) fn refresh(
        &self,
        state: &mut DirState,
        name: &[u8],
    ) -> Result<Option<Stat>> {
        let Some(dir) = state.upper.clone() else {
            return Ok(None);
        };
        let found = match dir.stat_entry(name) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).during("stat", name),
        };
        let Some(listing) = &mut state.listing else {
            return refuse(Errno::STALE);
        };
        if found.is_none() && listing.get(name).is_none() {
            return Ok(None);
        }
        listing.sweep();
        listing.update(&Name::from(name), |slot| {
            if slot.mount.is_some() {
                return;
            }
            let now = found.map(|stat| Found {
                kind: stat.kind(),
                ino: stat.ino,
            });
            let is_another = || {
                let known = found.zip(slot.child.upgrade());
                known.is_some_and(|(stat, inode)| !self.stands_for(&inode, &stat))
            };
            if slot.merged.upper != now || is_another() {
                slot.child = Weak::new();
            }
            slot.merged.upper = now;
            slot.st_ino = found.map_or(0, |stat| self.volume_ino(&stat));
        });
        Ok(found)
    }

    /// The object behind a file, to be changed. In a volume it must still be the one that it was. Errors: ESTALE.
    pub(in crate::union) fn object_of(
        &self,
        inode: &Inode,
        state: &FileState,
    ) -> Result<UpperObject> {
        match &state.real {
            Real::Orphan(object) => Ok(object.clone()),
            Real::Lower { .. } => refuse(Errno::STALE),
            Real::Upper { dir, name } if inode.volume.is_none() => {
                dir.object(name).during("open", name)
            }
            Real::Upper { .. } => self.find_again(inode, state).map(|(_, object)| object),
        }
    }

    /// The object of a file of a volume, and what stat(2) says about it: by its open descriptor, else under any name
    /// that is known.
    fn find_again(&self, inode: &Inode, state: &FileState) -> Result<(Stat, UpperObject)> {
        let Real::Upper { dir, name } = &state.real else {
            return refuse(Errno::STALE);
        };
        let open = inode.file().and_then(|file| file.data.get());
        if let Some(fd) = open {
            let object = dir.wrap(fd);
            return Ok((object.stat().during("fstat", b".")?, object));
        }
        let others = state
            .links
            .iter()
            .filter_map(|link| Some((link.upper.as_ref()?, &link.place.name)));
        for (dir, name) in std::iter::once((dir, name)).chain(others) {
            let object = match dir.object(name) {
                Ok(object) => object,
                Err(Errno::NOENT | Errno::STALE | Errno::NOTDIR) => continue,
                Err(errno) => return Err(errno).during("open", name),
            };
            let stat = object.stat().during("fstat", name)?;
            if self.stands_for(inode, &stat) && stat.kind() == inode.kind {
                return Ok((stat, object));
            }
        }
        refuse(Errno::STALE)
    }

    /// What the disk says about the object behind a file.
    pub(in crate::union) fn stat_of(&self, inode: &Inode, state: &FileState) -> Result<Stat> {
        match &state.real {
            Real::Upper { .. } if inode.volume.is_some() => {
                self.find_again(inode, state).map(|(stat, _)| stat)
            }
            real => crate::union::file::attr::real_stat(real),
        }
    }

    /// What the disk says about a directory of a volume, which must still be the one that it was. Errors: ESTALE.
    pub(in crate::union) fn stat_of_dir(&self, inode: &Inode, dir: &UpperDir) -> Result<Stat> {
        match dir.stat() {
            Ok(stat) if inode.volume.is_none() || self.stands_for(inode, &stat) => Ok(stat),
            Ok(_) => refuse(Errno::STALE),
            Err(Errno::NOENT) if inode.volume.is_some() => refuse(Errno::STALE),
            Err(errno) => Err(errno).during("stat", b"."),
        }
    }

    /// The disk that a node is on, where that is a volume's.
    pub(in crate::union) fn volume_disk(&self, node: NodeId) -> Option<Arc<OwnedFd>> {
        let inode = self.nodes.table.get(node).ok()?;
        let volume = self.volume_of(&inode)?;
        match &inode.node {
            Node::Dir(_) => {
                let dir = inode.lock_dir()?.upper.clone()?;
                dir.fd().ok()
            }
            Node::File(_) => Some(Arc::clone(&volume.fd)),
        }
    }
}
