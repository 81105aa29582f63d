//! What a volume is, and which objects are of one.

use crate::layer::stat::BirthTime;
use crate::layer::stat::Stat;
use crate::union::Union;
use crate::union::idmap::IdMaps;
use crate::union::node::identity::of_volume;
use crate::union::node::ids::NodeId;
use crate::union::node::ids::VolumeNo;
use crate::union::node::inode::{Inode, Node};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A volume.
#[derive(Debug)]
pub(in crate::union) struct Volume {
    /// What is shown: the directory, or the file (`O_PATH`).
    pub(in crate::union) fd: Arc<OwnedFd>,
    /// The device it is on; other ones are mounted in it.
    pub(in crate::union) dev: u64,
    pub(in crate::union) read_only: bool,
    /// When an object was made says which one it is.
    pub(in crate::union) knows_births: bool,
}

impl Volume {
    /// When an object of the volume was made, where that counts.
    pub(in crate::union) fn birth_of(&self, stat: &Stat) -> BirthTime {
        if self.knows_births && stat.dev == self.dev {
            stat.birth()
        } else {
            BirthTime::UNKNOWN
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

    /// Whether what is found in a directory, or is not, may change at any time (see
    /// [`crate::union::Validity`]).
    #[must_use]
    pub fn is_shared(&self, node: NodeId) -> bool {
        self.has_volumes()
            && self
                .nodes
                .table
                .get(node)
                .is_ok_and(|inode| inode.is_shared())
    }

    pub(in crate::union) fn volume_of(&self, inode: &Inode) -> Option<&Volume> {
        self.volumes.list.get(usize::from(inode.volume()?))
    }

    /// The mappings of owners that hold for an object.
    pub(in crate::union) fn ids_of(&self, inode: &Inode) -> &IdMaps {
        match inode.volume() {
            Some(_) => &self.volumes.ids,
            None => &self.rules.ids,
        }
    }

    /// The `st_ino` of an object of a volume.
    pub(in crate::union) fn volume_ino(&self, stat: &Stat) -> u64 {
        self.ino_on(stat.dev, stat.ino)
    }

    /// The `st_ino` of an object of a disk that volumes are on. Where one disk is shown at several
    /// places, what is at several of them is one object to programs, as with bind mounts: mv(1) of
    /// a file onto itself would remove it.
    pub(in crate::union) fn ino_on(&self, dev: u64, ino: u64) -> u64 {
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
    pub(in crate::union) fn ino_in(&self, volume: VolumeNo, ino: u64) -> u64 {
        let root = self.volumes.list.get(usize::from(volume));
        self.ino_on(root.map_or(0, |root| root.dev), ino)
    }

    /// When an object of a volume was made, where that says which one it is.
    pub(in crate::union) fn birth_of(&self, volume: VolumeNo, stat: &Stat) -> BirthTime {
        let volume = self.volumes.list.get(usize::from(volume));
        volume.map_or(BirthTime::UNKNOWN, |volume| volume.birth_of(stat))
    }

    /// What an object in a directory belongs to, with when it was made: to what the directory
    /// belongs to.
    pub(in crate::union) fn membership_of(
        &self,
        parent: &Inode,
        stat: &Stat,
    ) -> Option<(VolumeNo, BirthTime)> {
        parent.volume().map(|no| (no, self.birth_of(no, stat)))
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
