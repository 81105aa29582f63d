//! The merged tree: lookup, listing, copy-up, whiteouts, rename, identity. It knows no transport and no
//! command line; every operation is addressed by node id and needs no state per open file.

pub mod audit;
pub mod config;
mod copyup;
mod ending;
pub mod error;
mod file;
mod import;
mod live;
mod location;
mod merge;
mod namespace;
mod node;
mod open;
mod rules;
#[cfg(test)]
mod tests;
mod volume;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::io::Errno;

pub use config::{Config, SetupError};
pub use copyup::stage::Recovery;
pub use error::{Error, Result};
pub use file::attr::{self, Attr, SetAttr};
pub use live::changes::Change;
pub use live::watching::Belief;
pub use location::{LayerKind, Location, RealLocation};
pub use merge::lookup::Entry;
pub use merge::readdir::DirEntry;
pub(crate) use namespace::create::DEVICE_XATTR;
pub use namespace::create::{Caller, New};
pub use namespace::rename::RenameMode;
pub use node::inode::NodeId;
pub(crate) use open::reads_plain_names;

use crate::layer::dir::{LayerNo, UPPER};
use crate::layer::mark::WH_PREFIX;
use crate::layer::probe::UpperAbilities;
use crate::layer::xattr_name::Keeping;
pub(crate) use merge::lookup::open_root;
pub(crate) use open::{FORM_XATTR, KERNEL_ROOT_XATTRS, has_device_marks};

use config::CacheMode;
use copyup::stage::Stage;
use error::refuse;
use live::others::Others;
use merge::layers::Layers;
use node::nodes::Nodes;
use rules::Rules;
use volume::volumes::Volumes;

/// Longest name (NAME_MAX of every Linux file system a layer may be on).
pub const NAME_MAX: usize = crate::layer::mark::NAME_MAX;

/// What names one file on the disks: layer, device, inode number.
type RealKey = (LayerNo, u64, u64);

/// What only a writable union has.
#[derive(Debug)]
struct Writable {
    stage: Stage,
    abilities: UpperAbilities,
    /// Whiteouts are 0/0 devices and opaque marks are xattrs, else `.wh.` files.
    char_marks: bool,
    /// How the upper keeps xattrs that mean something to disks.
    keeping: Keeping,
}

/// A merged tree.
#[derive(Debug)]
pub struct Union {
    layers: Layers,
    nodes: Nodes,
    volumes: Volumes,
    rules: Rules,
    others: Others,
    writable: Option<Writable>,
    /// The errno of a sync that failed; 0 for none.
    lost: AtomicI32,
    kernel_keeps_mtime: AtomicBool,
    /// Held by every rename: the shape of the tree does not change under it.
    renames: Mutex<()>,
}

impl Union {
    /// The writable side, or EROFS.
    fn writable(&self) -> Result<&Writable> {
        match &self.writable {
            Some(writable) => Ok(writable),
            None => refuse(Errno::ROFS),
        }
    }

    /// Whether nothing can be changed but in volumes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writable.is_none()
    }

    /// Whether somebody else may change the layers meanwhile, so that caches must be short-lived.
    #[must_use]
    pub fn may_change_below(&self) -> bool {
        self.rules.cache == CacheMode::Auto
    }

    /// Whether POSIX ACLs are to be offered.
    #[must_use]
    pub fn offers_acls(&self) -> bool {
        !self.rules.no_acl && !self.rules.no_xattrs
    }

    /// Whether extended attributes are to be offered.
    #[must_use]
    pub fn offers_xattrs(&self) -> bool {
        !self.rules.no_xattrs
    }

    /// Open descriptors in the cache, and its bound.
    #[must_use]
    pub fn descriptors(&self) -> (usize, usize) {
        (self.layers.fds.open(), self.layers.fds.limit())
    }

    /// Inodes that the transport knows.
    #[must_use]
    pub fn inodes(&self) -> usize {
        self.nodes.table.len()
    }

    /// Gives back memory that was needed for more than there is now. For when there is nothing to do.
    pub fn rest(&self) {
        // A weak reference keeps the memory of what it refers to.
        self.nodes.shared.retain(|_, weak| weak.strong_count() > 0);
        self.layers.fds.rest();
        self.nodes.table.shrink();
        node::table::shrink(&self.nodes.shared);
    }

    /// The `st_ino` of a node that the transport knows.
    #[must_use]
    pub fn st_ino(&self, node: NodeId) -> Option<u64> {
        self.nodes.table.get(node).ok().map(|inode| inode.st_ino)
    }

    /// Refuses names that cannot be stored. Errors: ENAMETOOLONG, EPERM for a name that would be a mark.
    fn check_new_name(&self, name: &[u8]) -> Result<()> {
        if name.len() > NAME_MAX {
            return refuse(Errno::NAMETOOLONG);
        }
        if name.starts_with(WH_PREFIX) && !self.layers.plain_wh_names {
            return refuse(Errno::PERM);
        }
        Ok(())
    }

    /// Whether a name of this layer can be a mark.
    fn reads_wh_names(&self, layer: LayerNo) -> bool {
        layer != UPPER || !self.layers.plain_wh_names
    }

    fn note_name_change(&self) {
        self.nodes.name_changes.fetch_add(1, Ordering::AcqRel);
    }
}
