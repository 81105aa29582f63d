//! Node ids and lookup counts.
//!
//! The table holds exactly the inodes that the transport has received and has not forgotten. Each
//! reply that names an inode adds one lookup; a forget takes any number away; at zero the inode
//! leaves the table and goes away with its last other user.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use rustix::io::Errno;

use crate::union::error::{Result, fail};
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;

#[derive(Debug)]
pub(in crate::union) struct Table {
    /// Lock order: a shard is locked for a few statements; no other lock is taken under it.
    nodes: DashMap<NodeId, Arc<Inode>>,
    next: AtomicU64,
}

impl Table {
    pub(in crate::union) fn new() -> Self {
        Self {
            nodes: DashMap::new(),
            next: AtomicU64::new(NodeId::ROOT.0 + 1),
        }
    }

    /// A node id that was never used before.
    pub(in crate::union) fn fresh_id(&self) -> NodeId {
        NodeId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(in crate::union) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The inode of a node id; ESTALE when the transport has no lookup on it.
    pub(in crate::union) fn get(&self, id: NodeId) -> Result<Arc<Inode>> {
        match self.nodes.get(&id).map(|node| Arc::clone(&node)) {
            Some(inode) => Ok(inode),
            None => fail(Errno::STALE),
        }
    }

    /// Releases the memory that was needed when more inodes were known.
    pub(in crate::union) fn shrink(&self) {
        shrink(&self.nodes);
    }

    /// All inodes.
    pub(in crate::union) fn all(&self) -> Vec<Arc<Inode>> {
        self.nodes.iter().map(|node| Arc::clone(&node)).collect()
    }

    /// Counts one lookup. Table and count change together, under the shard's guard.
    pub(in crate::union) fn add_lookup(&self, inode: &Arc<Inode>) {
        self.nodes
            .entry(inode.id)
            .or_insert_with(|| Arc::clone(inode))
            .lookups
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts another lookup on a node that has some; nothing happens where it has none.
    pub(in crate::union) fn add_lookup_by_id(&self, id: NodeId) {
        if let Some(inode) = self.nodes.get(&id) {
            inode.lookups.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes `count` lookups away; the inode when these were the last. Taking more than there are,
    /// a fault of the transport, counts as taking all.
    pub(in crate::union) fn forget(&self, id: NodeId, count: u64) -> Option<Arc<Inode>> {
        self.nodes
            .remove_if(&id, |_, inode| {
                let left = inode.lookups.load(Ordering::Relaxed).saturating_sub(count);
                inode.lookups.store(left, Ordering::Relaxed);
                left == 0
            })
            .map(|(_, inode)| inode)
    }
}

/// Releases a map's memory if it has room for much more than is in it.
pub(in crate::union) fn shrink<K: Eq + std::hash::Hash, V>(map: &DashMap<K, V>) {
    const SMALL: usize = 4096;
    if map.capacity() > SMALL.max(4 * map.len()) {
        map.shrink_to_fit();
    }
}
