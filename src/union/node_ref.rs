//! References to nodes that count lookups by themselves, for those who walk a union without a
//! transport.

use std::fmt;

use crate::union::Union;
use crate::union::error::Result;
use crate::union::node::ids::NodeId;
use crate::union::types::{Attr, Entry};

/// A node with one lookup counted on it, so that its id stays valid: a clone counts another one,
/// and dropping takes it away as [`Union::forget`] does.
pub struct NodeRef<'u> {
    union: &'u Union,
    id: NodeId,
}

impl<'u> NodeRef<'u> {
    /// Takes over one lookup that an operation of `union` counted on a node.
    #[must_use]
    pub fn claim(union: &'u Union, id: NodeId) -> Self {
        Self { union, id }
    }

    /// The node id, valid for as long as this reference lives.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }
}

impl Clone for NodeRef<'_> {
    fn clone(&self) -> Self {
        self.union.nodes.table.add_lookup_by_id(self.id);
        Self { ..*self }
    }
}

impl Drop for NodeRef<'_> {
    fn drop(&mut self) {
        self.union.forget(self.id, 1);
    }
}

impl fmt::Debug for NodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeRef").field(&self.id).finish()
    }
}

/// What a lookup found, as a reference, with the attributes that it had then.
#[derive(Clone, Debug)]
pub struct EntryRef<'u> {
    /// The node.
    pub node: NodeRef<'u>,
    /// Its attributes.
    pub attr: Attr,
}

impl<'u> EntryRef<'u> {
    /// Takes over the lookup that was counted for an entry of `union`.
    #[must_use]
    pub fn claim(union: &'u Union, entry: Entry) -> Self {
        Self {
            node: NodeRef::claim(union, entry.node),
            attr: entry.attr,
        }
    }
}

impl Union {
    /// The root, which never becomes invalid.
    #[must_use]
    pub fn root(&self) -> NodeRef<'_> {
        NodeRef::claim(self, NodeId::ROOT)
    }

    /// As [`Union::lookup`], with a reference that forgets the lookup by itself.
    pub fn find(&self, parent: NodeId, name: &[u8]) -> Result<Option<EntryRef<'_>>> {
        let found = self.lookup(parent, name)?;
        Ok(found.map(|entry| EntryRef::claim(self, entry)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::io::Errno;

    use crate::union::NodeId;
    use crate::union::tests::testing::{Stack, errno};

    #[test]
    fn a_node_is_known_until_its_last_reference_is_dropped() {
        let stack = Stack::new();
        stack.file("old/d/f", "content");
        let union = stack.open();
        let dir = union.find(NodeId::ROOT, b"d").unwrap().unwrap();
        let file = union.find(dir.node.id(), b"f").unwrap().unwrap();
        let (id, again) = (file.node.id(), file.node.clone());
        drop(file);
        assert_eq!(union.getattr(id).unwrap().size, 7);
        drop(again);
        assert_eq!(errno(union.getattr(id)), Errno::STALE);
        assert!(union.find(dir.node.id(), b"missing").unwrap().is_none());
    }

    #[test]
    fn references_to_the_root_come_and_go() {
        let stack = Stack::new();
        let union = stack.open();
        drop((union.root(), union.root().clone()));
        assert!(union.getattr(NodeId::ROOT).is_ok());
        assert_eq!(union.inodes(), 1);
    }

    #[test]
    fn a_clone_of_what_was_forgotten_too_often_counts_nothing() {
        let stack = Stack::new();
        stack.file("old/f", "content");
        let union = stack.open();
        let file = union.find(NodeId::ROOT, b"f").unwrap().unwrap();
        union.forget(file.node.id(), 5);
        let again = file.clone();
        assert_eq!(errno(union.getattr(again.node.id())), Errno::STALE);
    }
}
