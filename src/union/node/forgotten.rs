//! Where nodes were when they were forgotten.

use crate::layer::dir::Name;
use crate::layer::stat::BirthTime;
use crate::layer::stat::Kind;
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;
use dashmap::DashMap;

/// Where a node was when it was forgotten.
#[derive(Clone, Debug)]
pub(in crate::union) struct ForgottenNode {
    /// Directories and names; several of a file that has several. Some may be of before.
    pub(in crate::union) places: Vec<(NodeId, Name)>,
    kind: Kind,
    birth: BirthTime,
}

/// How many names of one file are noted at most.
const MOST_PLACES: usize = 8;

/// Notes of nodes that were forgotten.
#[derive(Debug, Default)]
pub(in crate::union) struct ForgottenNodes {
    /// Lock order: a shard is locked for a few statements, never together with one of `by_st_ino`.
    pub(in crate::union) nodes: DashMap<NodeId, ForgottenNode>,
    /// Lock order: a shard is locked for a statement; no other lock is taken under it.
    pub(in crate::union) by_st_ino: DashMap<u64, NodeId>,
}

impl ForgottenNodes {
    /// The node id that an object had.
    pub(in crate::union) fn id_of(
        &self,
        st_ino: u64,
        kind: Kind,
        birth: BirthTime,
    ) -> Option<NodeId> {
        let id = *self.by_st_ino.get(&st_ino)?;
        let note = self.nodes.get(&id)?;
        (note.kind == kind && note.birth.agrees(birth)).then_some(id)
    }

    /// Notes where a node is that is forgotten; nothing if it has no name any more.
    pub(in crate::union) fn note(
        &self,
        inode: &Inode,
        mut places: Vec<(NodeId, Name)>,
        others: bool,
    ) {
        let (id, st_ino) = (inode.id, inode.st_ino);
        if others && let Some(before) = self.nodes.get(&id) {
            for place in &before.places {
                if places.len() < MOST_PLACES && !places.contains(place) {
                    places.push(place.clone());
                }
            }
        }
        if places.is_empty() {
            self.nodes.remove(&id);
            // Its number may be that of a new object by now.
            self.by_st_ino.remove_if(&st_ino, |_, known| *known == id);
            return;
        }
        let note = ForgottenNode {
            places,
            kind: inode.kind,
            birth: inode.birth,
        };
        self.nodes.insert(id, note);
        self.by_st_ino.insert(st_ino, id);
    }
}
