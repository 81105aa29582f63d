//! Tests of what a rename leaves when it does not come to its end.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::union::RenameMode;
use crate::union::node::ids::NodeId;
use crate::union::tests::testing::{Stack, file, find, mkdir};

const ROOT: NodeId = NodeId::ROOT;

/// The mark of a directory that is replaced must be on the disk before those in it go: nothing that
/// was deleted in it comes back by a power cut between the two.
#[test]
fn marks_in_a_replaced_directory_stay_until_its_own_is_synced() {
    let stack = Stack::new();
    stack.file("old/d/x", "old");
    let mut union = stack.open();
    union.writable.as_mut().unwrap().abilities.ordered = false;
    let d = find(&union, "d").node;
    union.unlink(d, b"x").unwrap();
    let s = mkdir(&union, "s", 0o755);
    let made = union.make(s, b"y", &file(0o600), &Caller::default());
    made.unwrap();
    let root = union.nodes.table.get(ROOT).unwrap();
    let inode = |node| union.nodes.table.get(node).unwrap();
    let end = |name: &[u8]| End {
        dir: union.copy_up_dir(&root).unwrap(),
        parent: &root,
        name: Name::from(name),
    };
    let ends = Ends {
        from: end(b"s"),
        to: end(b"d"),
    };
    let attempt = Attempt {
        union: &union,
        writable: union.writable().unwrap(),
        ends: &ends,
        source: &inode(s),
        target: Some(&inode(d)),
        mode: RenameMode::Replace,
        whiteout_for: None,
        synced: false,
    };
    assert_eq!(attempt.run().unwrap(), Outcome::Unsynced);
    assert!(stack.at("upper/.wh.d").exists());
    assert!(stack.at("upper/d/.wh.x").exists());
    union
        .rename(ROOT, b"s", ROOT, b"d", RenameMode::Replace)
        .unwrap();
    drop(union);
    let union = stack.open();
    let d = find(&union, "d").node;
    assert!(union.lookup(d, b"x").unwrap().is_none());
    find(&union, "d/y");
    assert!(union.lookup(ROOT, b"s").unwrap().is_none());
}
