//! Finding nodes again without a name: what a file server and open_by_handle_at(2) ask for.
//!
//! A handle holds a node id, and stays valid for as long as its holder likes: nothing says when it
//! is dropped. The kernel forgets the node long before, and with it goes all that is known of it.
//! So with `nfs_export=on` a note is kept of each node that is forgotten: its directory's node id,
//! its name there, and the `st_ino` by which it is known again, so that it gets the node id that it
//! had. That is up to a kilobyte for each object that the mount was ever asked for, until it is
//! removed: the reason why it is an option.

use crate::union::node::forgotten::ForgottenNodes;
use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::stat::{BirthTime, Kind};
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Result, fail};
use crate::union::node::ids::NodeId;
use crate::union::node::inode::{Inode, Node, Place};

/// How many directories are gone up through: more than any tree has, so that a loop ends.
const DEEPEST: usize = 1 << 16;

fn named(place: Place) -> (NodeId, Name) {
    (place.parent.id, place.name)
}

impl Union {
    /// Notes where a node is that is being forgotten, if it may be asked for.
    pub(super) fn remember_forgotten(&self, inode: &Inode) {
        let Some(notes) = &self.nodes.notes else {
            return;
        };
        match &inode.node {
            Node::Dir(dir) => {
                let removed = lock(&dir.state).removed.is_some();
                let place = inode.place().filter(|_| !removed);
                notes.note(inode, place.into_iter().map(named).collect(), false);
            }
            Node::File(file) => {
                let state = lock(&file.state);
                let links = state.links.iter().map(|link| named(link.place.clone()));
                let places: Vec<_> = links.collect();
                // The upper's file may have names that were not looked up this time.
                let nlink = self.stat_of(inode, &state).map_or(0, |stat| stat.nlink);
                drop(state);
                let others = nlink > 1 || (nlink == 1 && places.is_empty());
                notes.note(inode, places, others);
            }
        }
    }

    /// The node that an object of this `st_ino` was known by before it was forgotten.
    #[must_use]
    pub fn forgotten(&self, st_ino: u64) -> Option<NodeId> {
        let notes = self.nodes.notes.as_ref()?;
        notes.by_st_ino.get(&st_ino).map(|id| *id)
    }

    /// Goes up to a directory that is known, and back down by the names. A note may be older than
    /// the last time that its node was moved: then the way up could be a loop. Errors: ESTALE when
    /// no way leads there, and what the disk answers.
    pub(in crate::union) fn find_again_by(
        &self,
        notes: &ForgottenNodes,
        node: NodeId,
    ) -> Result<Arc<Inode>> {
        let places_of = |node| {
            let places = notes.nodes.get(&node).map(|note| note.places.clone());
            places.unwrap_or_default().into_iter()
        };
        // Nodes that are looked for, each in a directory that the next one stands for, with the
        // places where they were that are not tried yet, and the name under which one is tried.
        let mut way = vec![(node, places_of(node), Name::from(&b""[..]))];
        while let Some((_, places, tried)) = way.last_mut() {
            let Some((parent, name)) = places.next() else {
                way.pop();
                continue;
            };
            *tried = name;
            let mut at = match self.nodes.table.get(parent) {
                Ok(known) => known,
                Err(_) if way.len() < DEEPEST => {
                    way.push((parent, places_of(parent), Name::from(&b""[..])));
                    continue;
                }
                Err(_) => continue,
            };
            while let Some((wanted, _, name)) = way.last() {
                match self.child(&at, name) {
                    Ok(Some(child)) if child.inode.id == *wanted => at = child.inode,
                    Ok(_) => break,
                    Err(error) if error.errno() == Errno::STALE => break,
                    Err(error) => return Err(error),
                }
                way.pop();
                if way.is_empty() {
                    return Ok(at);
                }
            }
        }
        fail(Errno::STALE)
    }

    /// A node id for an object: the one that it had, or one that no object had.
    pub(super) fn id_for(&self, st_ino: u64, kind: Kind, birth: BirthTime) -> NodeId {
        self.nodes
            .notes
            .as_ref()
            .and_then(|notes| notes.id_of(st_ino, kind, birth))
            // A removed directory may still be known when a new one gets its number.
            .filter(|id| self.nodes.table.get(*id).is_err())
            .unwrap_or_else(|| self.nodes.table.fresh_id())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::tests::testing::{Stack, content, errno, file, find, mkdir};
    use crate::union::{Caller, Config, RenameMode};

    #[test]
    fn a_node_is_found_again_with_a_lookup_for_each_time() {
        let stack = Stack::new();
        stack.file("old/d/f", "old");
        let union = stack.open();
        let file = find(&union, "d/f");
        let again = union.lookup_self(file.node).unwrap();
        assert_eq!((again.node, again.attr), (file.node, file.attr));
        union.forget(file.node, 1);
        assert_eq!(union.getattr(file.node).unwrap(), file.attr);
        union.forget(file.node, 1);
        assert_eq!(errno(union.lookup_self(file.node)), Errno::STALE);
    }

    #[test]
    fn the_parent_is_found_even_when_it_was_forgotten() {
        let stack = Stack::new();
        stack.file("old/d/e/f", "old");
        let union = stack.open();
        let (d, e) = (find(&union, "d"), find(&union, "d/e"));
        // Each counted once more on the way to the other.
        union.forget(d.node, 2);
        assert_eq!(errno(union.getattr(d.node)), Errno::STALE);
        let parent = union.lookup_parent(e.node).unwrap();
        assert_eq!(parent.attr.ino, d.attr.ino);
        let top = union.lookup_parent(parent.node).unwrap();
        assert_eq!(top.node, NodeId::ROOT);
        assert_eq!(union.lookup_parent(NodeId::ROOT).unwrap().node, top.node);
        let file = find(&union, "d/e/f").node;
        assert_eq!(errno(union.lookup_parent(file)), Errno::NOTDIR);
        assert_eq!(errno(union.lookup_parent(NodeId(4711))), Errno::STALE);
        let gone = mkdir(&union, "gone", 0o755);
        union.rmdir(NodeId::ROOT, b"gone").unwrap();
        assert_eq!(errno(union.lookup_parent(gone)), Errno::NOENT);
    }

    /// Forgets what the kernel would, with all its lookups.
    fn forget_all(union: &Union) {
        let nodes: Vec<_> = union
            .nodes
            .table
            .all()
            .iter()
            .map(|inode| inode.id)
            .collect();
        for node in nodes {
            union.forget(node, u64::MAX);
        }
        assert_eq!(union.inodes(), 1, "the root");
    }

    #[test]
    fn an_exported_union_finds_what_was_forgotten() {
        let stack = Stack::new();
        let lower = stack.file("old/d/e/f", "lower");
        std::fs::hard_link(lower, stack.at("old/d/linked")).unwrap();
        let config = Config {
            nfs_export: true,
            ..stack.config()
        };
        let union = Union::open(&config).unwrap();
        let deep = find(&union, "d/e/f").node;
        let linked = find(&union, "d/linked").node;
        assert_eq!(deep, linked);
        let dir = find(&union, "d/e").node;
        let new = mkdir(&union, "new", 0o755);
        let made = |name: &[u8]| {
            let made = union.make(new, name, &file(0o644), &Caller::default());
            made.unwrap().node
        };
        let (kept, gone, over) = (made(b"kept"), made(b"gone"), made(b"over"));
        union.write(kept, 0, b"kept").unwrap();
        forget_all(&union);
        assert_eq!(errno(union.getattr(deep)), Errno::STALE);
        for node in [deep, dir, new, kept, gone] {
            assert_eq!(union.lookup_self(node).unwrap().node, node);
        }
        assert_eq!(content(&union, kept), "kept");
        // What is looked up by name in between is the same node, copied up and moved as well.
        forget_all(&union);
        assert_eq!(find(&union, "d/e/f").node, deep);
        union.write(deep, 0, b"LOWER").unwrap();
        find(&union, "d/e");
        let (from, to) = ((dir, b"f"), (NodeId::ROOT, b"moved"));
        let replace = RenameMode::Replace;
        union.rename(from.0, from.1, to.0, to.1, replace).unwrap();
        let new = find(&union, "new").node;
        union
            .rename(NodeId::ROOT, b"new", dir, b"here", replace)
            .unwrap();
        find(&union, "d/e/here/gone");
        for name in ["kept", "over"] {
            find(&union, &format!("d/e/here/{name}"));
        }
        union.unlink(new, b"gone").unwrap();
        union.rename(new, b"kept", new, b"over", replace).unwrap();
        forget_all(&union);
        assert_eq!(union.lookup_self(deep).unwrap().node, deep);
        assert_eq!(content(&union, deep), "LOWER");
        assert_eq!(union.lookup_self(kept).unwrap().node, kept);
        assert_eq!(content(&union, kept), "kept");
        for removed in [gone, over, NodeId(4711)] {
            assert_eq!(errno(union.lookup_self(removed)), Errno::STALE);
        }
        // A new file may get the number of a removed one, but not its node.
        find(&union, "d/e/here");
        let again = made(b"again");
        assert!(again != gone && again != over);
    }

    #[test]
    fn no_notes_are_kept_where_nobody_asked_for_them() {
        let stack = Stack::new();
        stack.file("old/f", "f");
        let union = stack.open();
        let f = find(&union, "f");
        forget_all(&union);
        assert_eq!(union.forgotten(f.attr.ino), None);
        assert_ne!(find(&union, "f").node, f.node, "never used again");
    }
}
