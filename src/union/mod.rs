//! The merged tree: lookup, listing, copy-up, whiteouts, rename, identity. It knows no transport
//! and no command line; every operation is addressed by node id and needs no state per open file.

pub(crate) mod audit;
pub mod config;
mod copyup;
mod ending;
pub(crate) mod error;
mod file;
mod idmap;
mod live;
mod location;
mod merge;
mod namespace;
mod node;
mod node_ref;
mod open;
mod operations;
mod rules;
#[cfg(test)]
mod tests;
mod types;
mod volume;
mod work;

use crate::union::work::writable::Writable;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::io::Errno;

pub use config::{Config, SetupError, SetupErrorKind};
pub use copyup::recovery::Recovery;
pub use error::{Error, Result};
pub use file::privileges::{Asker, Privileged};
pub use location::{LayerKind, Location, RealLocation};
pub use node::ids::NodeId;
pub use node_ref::{EntryRef, NodeRef};
pub use types::{Attr, Caller, Change, DirEntry, Entry, New, RenameMode, SetAttr, Validity};

use crate::layer::dir::Source;
use crate::layer::marks::WH_PREFIX;
pub(crate) use crate::layer::marks::root::reads_plain_names;
pub(crate) use merge::lookup::open_root;

use config::CacheMode;
use error::fail;
use merge::layers::Layers;
use node::nodes::Nodes;
use node::others::Others;
use node::volumes::Volumes;
use rules::Rules;
use volume::list::Streams;

/// Longest name (NAME_MAX of every Linux file system a layer may be on).
pub const NAME_MAX: usize = crate::layer::marks::NAME_MAX;

/// A merged tree.
#[derive(Debug)]
pub struct Union {
    layers: Layers,
    nodes: Nodes,
    volumes: Volumes,
    rules: Rules,
    others: Others,
    /// Directories of volumes that are being read.
    streams: Streams,
    writable: Option<Writable>,
    /// The errno of a sync that failed; 0 for none.
    lost: AtomicI32,
    kernel_keeps_mtime: AtomicBool,
    /// Held by every rename: the shape of the tree does not change under it.
    /// Lock order: before all directory and file states (see `node/inode.rs`).
    renames: Mutex<()>,
}

impl Union {
    /// Whether nothing can be changed but in volumes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writable.is_none()
    }

    /// Whether others may change the layers meanwhile, so that caches must be short-lived.
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

    /// Releases memory that was needed for more than there is now. For when there is nothing to do.
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

    /// Refuses names that cannot be stored. Errors: ENAMETOOLONG, EPERM for a name that would be a
    /// mark.
    fn check_new_name(&self, name: &[u8]) -> Result<()> {
        if name.len() > NAME_MAX {
            return fail(Errno::NAMETOOLONG);
        }
        if name.starts_with(WH_PREFIX) && !self.layers.plain_wh_names {
            return fail(Errno::PERM);
        }
        Ok(())
    }

    /// Whether a name of this layer can be a mark.
    fn reads_wh_names(&self, layer: Source) -> bool {
        layer != Source::Upper || !self.layers.plain_wh_names
    }

    fn count_name_change(&self) {
        self.nodes.name_changes.fetch_add(1, Ordering::AcqRel);
    }
}
