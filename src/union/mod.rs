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
mod merge;
mod namespace;
mod node;
mod open;
#[cfg(test)]
mod tests;
mod volume;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use dashmap::DashMap;
use rustix::io::Errno;

pub use config::{Config, SetupError};
pub use copyup::stage::Recovery;
pub use error::{Error, Result};
pub use file::attr::{self, Attr, SetAttr};
pub use live::changes::Change;
pub use live::watching::Belief;
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
use crate::layer::{FdCache, LowerDir, UpperDir};
pub(crate) use merge::lookup::open_root;
pub(crate) use open::{FORM_XATTR, KERNEL_ROOT_XATTRS, has_device_marks};

use config::CacheMode;
use copyup::stage::Stage;
use error::refuse;
use file::idmap::IdMaps;
use live::watching::Live;
use merge::export::Notes;
use merge::hardlink::LinkIndex;
use node::identity::Numbering;
use node::inode::Inode;
use node::table::Table;
use volume::mounted::{MountPoint, Volume};

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
    lowers: Vec<LowerDir>,
    /// Layers that are there for the bytes of files only (`metacopy.rs`).
    data_only: Vec<LowerDir>,
    /// Where absolute redirects start.
    redirect_roots: Vec<LowerDir>,
    upper: Option<UpperDir>,
    writable: Option<Writable>,
    /// Names that begin with `.wh.` are ordinary names in the upper.
    plain_wh_names: bool,
    ids: IdMaps,
    volatile: bool,
    /// The errno of a sync that failed; 0 for none.
    lost: AtomicI32,
    kernel_keeps_mtime: AtomicBool,
    noatime: bool,
    redirect_dir: bool,
    no_acl: bool,
    no_xattrs: bool,
    static_nlink: bool,
    cache: CacheMode,
    /// Layers are edited, and that was said.
    live: Option<Arc<Live>>,
    /// Nodes that were forgotten, where they can be asked for again.
    notes: Option<Notes>,
    /// Owner and group that the daemon's own creations get on disk.
    daemon: (u32, u32),
    numbers: Numbering,
    table: Table,
    /// Files that have several names on their disk.
    shared: DashMap<RealKey, Weak<Inode>>,
    link_index: Vec<Mutex<Option<Arc<LinkIndex>>>>,
    /// Counts removals of names of such files and renames of directories, so that a list of names made meanwhile is
    /// known to be old.
    name_changes: AtomicU64,
    /// Held by every rename: the shape of the tree does not change under it.
    renames: Mutex<()>,
    /// Who wants to hear of changes that others made to the layers.
    changes: OnceLock<std::sync::mpsc::Sender<Change>>,
    /// Who tells the kernel of attributes that changed beside a request.
    attributes: live::changes::Attributes,
    volumes: Vec<Volume>,
    /// Directories of volumes that are being read.
    streams: volume::list::Streams,
    /// Owners in volumes, which no mapping of the layers is about.
    volume_ids: IdMaps,
    /// Where volumes are shown; written while the union is opened only.
    mounts: RwLock<Vec<MountPoint>>,
    fds: Arc<FdCache>,
    root: Arc<Inode>,
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
        self.cache == CacheMode::Auto
    }

    /// Whether POSIX ACLs are to be offered.
    #[must_use]
    pub fn offers_acls(&self) -> bool {
        !self.no_acl && !self.no_xattrs
    }

    /// Whether extended attributes are to be offered.
    #[must_use]
    pub fn offers_xattrs(&self) -> bool {
        !self.no_xattrs
    }

    /// Open descriptors in the cache, and its bound.
    #[must_use]
    pub fn descriptors(&self) -> (usize, usize) {
        (self.fds.open(), self.fds.limit())
    }

    /// Inodes that the transport knows.
    #[must_use]
    pub fn inodes(&self) -> usize {
        self.table.len()
    }

    /// Gives back memory that was needed for more than there is now. For when there is nothing to do.
    pub fn rest(&self) {
        // A weak reference keeps the memory of what it refers to.
        self.shared.retain(|_, weak| weak.strong_count() > 0);
        self.fds.rest();
        self.table.shrink();
        node::table::shrink(&self.shared);
    }

    /// The `st_ino` of a node that the transport knows.
    #[must_use]
    pub fn st_ino(&self, node: NodeId) -> Option<u64> {
        self.table.get(node).ok().map(|inode| inode.st_ino)
    }

    /// Refuses names that cannot be stored. Errors: ENAMETOOLONG, EPERM for a name that would be a mark.
    fn check_new_name(&self, name: &[u8]) -> Result<()> {
        if name.len() > NAME_MAX {
            return refuse(Errno::NAMETOOLONG);
        }
        if name.starts_with(WH_PREFIX) && !self.plain_wh_names {
            return refuse(Errno::PERM);
        }
        Ok(())
    }

    /// Whether a name of this layer can be a mark.
    fn reads_wh_names(&self, layer: LayerNo) -> bool {
        layer != UPPER || !self.plain_wh_names
    }

    fn note_name_change(&self) {
        self.name_changes.fetch_add(1, Ordering::AcqRel);
    }
}
