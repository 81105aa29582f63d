//! Finding nodes again without a name: what a file server and open_by_handle_at(2) ask for.

use rustix::io::Errno;

use super::error::{Result, refuse};
use super::inode::NodeId;
use super::lookup::Child;
use super::{Entry, Union};

impl Union {
    /// Finds a node again by its id, and counts one lookup on it: what a file server and open_by_handle_at(2) ask
    /// for, as a lookup of `.` that may be one of a file (FUSE_EXPORT_SUPPORT in `fuse.h`).
    /// Errors: ESTALE for a node id without lookups, and what the disk answers.
    pub fn lookup_self(&self, node: NodeId) -> Result<Entry> {
        self.entry(&Child::known(self.table.get(node)?))
    }

    /// The directory that a directory is in, with one lookup counted on it; the root is in itself.
    /// Errors: ESTALE for a node id without lookups, ENOTDIR for a file, ENOENT for a removed directory, and what
    /// the disk answers.
    pub fn lookup_parent(&self, node: NodeId) -> Result<Entry> {
        let inode = self.table.get(node)?;
        match inode.lock_dir() {
            None => return refuse(Errno::NOTDIR),
            Some(state) if state.removed.is_some() => return refuse(Errno::NOENT),
            Some(_) => {}
        }
        let parent = match inode.place() {
            Some(place) => place.parent,
            None => inode,
        };
        self.entry(&Child::known(parent))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::{Stack, errno, find, mkdir};
    use super::*;

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
}
