//! The objects of a union that are known.

use crate::layer::dir::Source;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::union::node::forgotten::ForgottenNodes;
use crate::union::node::identity::Numbering;
use crate::union::node::inode::Inode;
use crate::union::node::table::Table;

/// The objects that are known.
#[derive(Debug)]
pub(in crate::union) struct Nodes {
    pub(in crate::union) numbers: Numbering,
    pub(in crate::union) table: Table,
    /// Files that have several names on their disk.
    /// Lock order: a shard is locked for a few statements; no state is locked under it.
    pub(in crate::union) shared: DashMap<RealKey, Weak<Inode>>,
    pub(in crate::union) root: Arc<Inode>,
    /// Nodes that were forgotten, where they can be asked for again.
    pub(in crate::union) notes: Option<ForgottenNodes>,
    /// Counts removals of names of such files and renames of directories, so that a list of names
    /// made meanwhile is known to be old.
    pub(in crate::union) name_changes: AtomicU64,
}

/// What names one file on the disks: layer, device, inode number.
pub(in crate::union) type RealKey = (Source, u64, u64);
