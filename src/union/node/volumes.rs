//! The volumes of a union.

use std::sync::RwLock;

use crate::union::idmap::IdMaps;
use crate::union::node::mount_point::MountPoint;
use crate::union::node::volume::Volume;

/// Directories of the host that are shown inside the tree.
#[derive(Debug)]
pub(in crate::union) struct Volumes {
    pub(in crate::union) list: Vec<Volume>,
    /// Owners in volumes, which no mapping of the layers is about.
    pub(in crate::union) ids: IdMaps,
    /// Where volumes are shown; written while the union is opened only.
    /// Lock order: after a directory's state; the place of a merged directory is locked under it.
    pub(in crate::union) mounts: RwLock<Vec<MountPoint>>,
}
