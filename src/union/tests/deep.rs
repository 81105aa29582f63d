//! Trees that are deeper than a thread's stack or a process's descriptors would bear.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use crate::union::tests::testing::{Stack, content};
use crate::union::{NodeId, RenameMode, Union};

/// Levels of the tree: its path has more bytes than PATH_MAX, and its directories are more than the
/// usual 1,024 descriptors.
const LEVELS: usize = 4000;
/// Bytes of the stack on which all of it is done: 16 for each level.
const SMALL_STACK: usize = 64 * 1024;

/// Directories `d/d/..` in `top`, with a file `leaf` in the last one.
fn make(top: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, top, flags, Mode::empty()).unwrap();
    for _ in 0..LEVELS {
        mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    let file = openat(
        &at,
        "leaf",
        OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o644),
    );
    rustix::io::write(file.unwrap(), b"leaf").unwrap();
}

/// What the file at the end of the tree holds.
fn leaf(union: &Union, top: &[u8]) -> String {
    let mut node = union.lookup(NodeId::ROOT, top).unwrap().unwrap().node;
    for _ in 1..LEVELS {
        node = union.lookup(node, b"d").unwrap().unwrap().node;
    }
    let leaf = union.lookup(node, b"leaf").unwrap().unwrap().node;
    content(union, leaf)
}

fn on_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(SMALL_STACK)
            .spawn_scoped(scope, work)
            .unwrap()
            .join()
            .unwrap();
    });
}

/// What holds such a tree cannot be removed by the path of its parts: rm(1) does without.
fn remove(stack: &Stack) {
    let removed = Command::new("rm").arg("-rf").arg(stack.at("")).status();
    assert!(removed.unwrap().success());
}

#[test]
fn a_deep_directory_of_a_layer_is_renamed() {
    let stack = Stack::new();
    make(&stack.at("old"));
    on_a_small_stack(|| {
        let union = stack.open();
        assert_eq!(leaf(&union, b"d"), "leaf");
        let root = NodeId::ROOT;
        let renamed = union.rename(root, b"d", root, b"e", RenameMode::Replace);
        renamed.unwrap();
        assert_eq!(leaf(&union, b"e"), "leaf");
        assert!(union.lookup(root, b"d").unwrap().is_none());
        drop(union);
        assert_eq!(leaf(&stack.open(), b"e"), "leaf");
    });
    remove(&stack);
}

#[test]
fn a_change_deep_in_a_layer_brings_all_directories_above_into_the_upper() {
    let stack = Stack::new();
    make(&stack.at("old"));
    on_a_small_stack(|| {
        let union = stack.open();
        let mut node = NodeId::ROOT;
        for _ in 0..LEVELS {
            node = union.lookup(node, b"d").unwrap().unwrap().node;
        }
        // Nothing but the last one is held: its parents are kept by it alone.
        let leaf = union.lookup(node, b"leaf").unwrap().unwrap().node;
        union.write(leaf, 0, b"LE").unwrap();
        assert_eq!(content(&union, leaf), "LEaf");
        drop(union);
        assert_eq!(self::leaf(&stack.open(), b"d"), "LEaf");
    });
    remove(&stack);
}

#[test]
fn a_deep_tree_in_the_work_directory_is_removed() {
    let stack = Stack::new();
    drop(stack.open());
    make(&stack.at("work/work"));
    on_a_small_stack(|| drop(stack.open()));
    assert_eq!(stack.staged(), 0);
}

#[test]
fn a_forgotten_file_deep_below_is_found_again() {
    let stack = Stack::new();
    make(&stack.at("old"));
    on_a_small_stack(|| {
        let config = crate::union::Config {
            nfs_export: true,
            ..stack.config()
        };
        let union = Union::open(&config).unwrap();
        let mut nodes = vec![union.lookup(NodeId::ROOT, b"d").unwrap().unwrap().node];
        for _ in 1..LEVELS {
            let node = union.lookup(nodes[nodes.len() - 1], b"d");
            nodes.push(node.unwrap().unwrap().node);
        }
        let leaf = union.lookup(nodes[nodes.len() - 1], b"leaf");
        let leaf = leaf.unwrap().unwrap().node;
        for node in nodes {
            union.forget(node, u64::MAX);
        }
        union.forget(leaf, u64::MAX);
        assert_eq!(union.inodes(), 1, "the root");
        assert_eq!(union.lookup_self(leaf).unwrap().node, leaf);
        assert_eq!(content(&union, leaf), "leaf");
    });
    remove(&stack);
}
