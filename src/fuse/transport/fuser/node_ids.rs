//! Node ids on the wire.
//!
//! fuser 0.18 sends one number as node id and as `st_ino`. So a node goes by its `st_ino` on the
//! wire, unless that number still names another node (a removed directory that a process is in,
//! while a new one got its inode number): then it gets a number of its own, and its attributes are
//! sent without a lifetime, so that the kernel asks for them in a request whose reply can hold the
//! true `st_ino`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;

use crate::union::{Entry, NodeId};

/// FUSE's number of the root (`FUSE_ROOT_ID`).
const ROOT: u64 = 1;
/// Numbers of nodes whose `st_ino` is taken. No `st_ino` has this bit.
const FIRST_ALIAS: u64 = 1 << 63;

#[derive(Debug)]
struct Named {
    node: NodeId,
    lookups: u64,
}

/// Which node a number on the wire means, and how often the kernel has looked it up.
#[derive(Debug)]
pub(super) struct NodeIds {
    /// Lock order: a shard is locked for one statement, with no other lock.
    nodes: DashMap<u64, Named>,
    /// Lock order: as `nodes`, never together.
    aliases: DashMap<NodeId, u64>,
    alias_count: AtomicUsize,
    next_alias: AtomicU64,
}

/// A node's number for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    /// The node id to send.
    pub(super) id: u64,
    /// It is the node's `st_ino` too.
    pub(super) is_st_ino: bool,
}

impl NodeIds {
    pub(super) fn new() -> Self {
        let ids = Self {
            nodes: DashMap::new(),
            aliases: DashMap::new(),
            alias_count: AtomicUsize::new(0),
            next_alias: AtomicU64::new(FIRST_ALIAS),
        };
        let root = Named {
            node: NodeId::ROOT,
            lookups: u64::MAX / 2,
        };
        ids.nodes.insert(ROOT, root);
        ids
    }

    /// What a number means; `None` for one that the kernel does not know.
    pub(super) fn node(&self, wire: u64) -> Option<NodeId> {
        self.nodes.get(&wire).map(|named| named.node)
    }

    /// The number by which the kernel knows a node of this `st_ino`.
    pub(super) fn known(&self, node: NodeId, st_ino: u64) -> Option<u64> {
        if node == NodeId::ROOT {
            return Some(ROOT);
        }
        let alias = self.aliases.get(&node).map(|alias| *alias);
        alias.or_else(|| (self.node(st_ino) == Some(node)).then_some(st_ino))
    }

    /// The number to send to the kernel for an entry; counts a lookup on it.
    pub(super) fn count_lookup(&self, entry: &Entry) -> Wire {
        let st_ino = entry.attr.ino;
        if self.alias_count.load(Ordering::Acquire) == 0 || !self.aliases.contains_key(&entry.node)
        {
            match self.nodes.entry(st_ino) {
                MapEntry::Vacant(free) => {
                    free.insert(Named {
                        node: entry.node,
                        lookups: 1,
                    });
                    return Wire {
                        id: st_ino,
                        is_st_ino: true,
                    };
                }
                MapEntry::Occupied(mut held) if held.get().node == entry.node => {
                    held.get_mut().lookups += 1;
                    return Wire {
                        id: st_ino,
                        is_st_ino: true,
                    };
                }
                MapEntry::Occupied(_) => {}
            }
        }
        let id = *self.aliases.entry(entry.node).or_insert_with(|| {
            self.alias_count.fetch_add(1, Ordering::AcqRel);
            self.next_alias.fetch_add(1, Ordering::Relaxed)
        });
        self.nodes
            .entry(id)
            .or_insert(Named {
                node: entry.node,
                lookups: 0,
            })
            .lookups += 1;
        Wire {
            id,
            is_st_ino: false,
        }
    }

    /// The kernel forgets `count` lookups; returns the node, if there is one.
    pub(super) fn forget(&self, wire: u64, count: u64) -> Option<NodeId> {
        let node = {
            let mut named = self.nodes.get_mut(&wire)?;
            named.lookups = named.lookups.saturating_sub(count);
            named.node
        };
        let gone = self.nodes.remove_if(&wire, |_, named| named.lookups == 0);
        if gone.is_some() && wire >= FIRST_ALIAS && self.aliases.remove(&node).is_some() {
            self.alias_count.fetch_sub(1, Ordering::AcqRel);
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::stat::Time;
    use crate::union::Attr;

    fn entry(node: u64, st_ino: u64) -> Entry {
        Entry {
            node: NodeId(node),
            attr: Attr {
                ino: st_ino,
                size: 0,
                blocks: 0,
                atime: Time::default(),
                mtime: Time::default(),
                ctime: Time::default(),
                btime: None,
                mode: 0,
                nlink: 1,
                uid: 0,
                gid: 0,
                rdev: 0,
                blksize: 4096,
                validity: crate::union::Validity::Kept,
            },
        }
    }

    #[test]
    fn a_number_in_use_is_not_given_to_another_node() {
        let ids = NodeIds::new();
        let first = ids.count_lookup(&entry(10, 500));
        let second = ids.count_lookup(&entry(11, 500));
        assert!(first.is_st_ino && !second.is_st_ino);
        assert_ne!(first.id, second.id);
        let known = |node| ids.known(NodeId(node), 500);
        assert_eq!((known(10), known(11)), (Some(first.id), Some(second.id)));
        assert_eq!(known(12), None);
        assert_eq!(ids.count_lookup(&entry(11, 500)), second);
        assert_eq!(ids.node(500), Some(NodeId(10)));
        assert_eq!(ids.node(second.id), Some(NodeId(11)));
        assert_eq!(ids.forget(500, 1), Some(NodeId(10)));
        assert_eq!(ids.node(500), None);
        // The second keeps its number while the kernel knows it by that.
        assert_eq!(ids.count_lookup(&entry(11, 500)), second);
        assert_eq!(ids.forget(second.id, 3), Some(NodeId(11)));
        assert!(ids.count_lookup(&entry(11, 500)).is_st_ino);
    }

    #[test]
    fn nothing_takes_the_roots_number() {
        let ids = NodeIds::new();
        assert!(!ids.count_lookup(&entry(12, ROOT)).is_st_ino);
        assert_eq!(ids.node(ROOT), Some(NodeId::ROOT));
    }
}
