//! Places of the merged tree that show something else than the layers have there.

use crate::layer::stat::Kind;
use crate::union::node::inode::{DirState, Inode};
use std::sync::{Arc, Weak};

use crate::layer::dir::{LayerNo, Name, UPPER};

/// The number of a volume of the union, from 0.
pub(in crate::union) type VolumeNo = u16;

/// The layer number of a volume's directories: counted from the end, where no layer is.
pub(in crate::union) fn layer_of(volume: VolumeNo) -> LayerNo {
    LayerNo::MAX - volume
}

/// A place in the merged tree that shows something else than the layers have there.
#[derive(Debug)]
pub(in crate::union) struct MountPoint {
    pub(in crate::union) parent: Arc<Inode>,
    pub(in crate::union) name: Name,
    pub(in crate::union) inode: Arc<Inode>,
}

/// What the slot of such a name remembers.
#[derive(Clone, Debug)]
pub(in crate::union) struct Mounted {
    pub(in crate::union) kind: Kind,
    pub(in crate::union) inode: Weak<Inode>,
}

impl MountPoint {
    pub(in crate::union) fn mounted(&self) -> Mounted {
        Mounted {
            kind: self.inode.kind,
            inode: Arc::downgrade(&self.inode),
        }
    }
}

/// Whether a directory is one of a volume.
pub(in crate::union) fn is_volume_dir(state: &DirState) -> bool {
    state.upper.as_ref().is_some_and(|dir| dir.layer() != UPPER)
}
