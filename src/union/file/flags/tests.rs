//! Tests of `flags.rs`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::union::NodeId;
use crate::union::copyup::flags::PORTABLE;
use crate::union::tests::testing::{Marked, Stack, content, errno, file, find, has_flags, mkdir};
use crate::union::{Caller, New, SetAttr};

const ROOT: NodeId = NodeId::ROOT;

fn get(union: &Union, node: NodeId) -> IFlags {
    IFlags::from_bits_retain(union.inode_flags(node).unwrap())
}

fn add(union: &Union, node: NodeId, flags: IFlags) -> Result<()> {
    union.set_inode_flags(node, (get(union, node) | flags).bits())
}

fn clear(union: &Union, node: NodeId, flags: IFlags) -> Result<()> {
    union.set_inode_flags(node, get(union, node).difference(flags).bits())
}

#[test]
fn flags_of_a_lower_object_go_with_its_copy_but_those_that_protect_it() {
    let stack = Stack::new();
    if !has_flags(&stack) {
        return;
    }
    let mut marked = Marked(Vec::new());
    let kept = IFlags::NOATIME | IFlags::NODUMP;
    for (path, text) in [("old/d/f", "old"), ("old/d/empty", ""), ("old/d/cut", "x")] {
        let path = stack.file(path, text);
        marked.set(path, kept | IFlags::IMMUTABLE).unwrap();
    }
    let log = stack.file("old/d/log", "old");
    marked.set(log, kept | IFlags::APPEND).unwrap();
    let dir = stack.at("old/d");
    marked.set(dir, kept | IFlags::IMMUTABLE).unwrap();
    let union = stack.open();
    let paths = ["d", "d/f", "d/empty", "d/cut", "d/log"];
    let seen = |path: &str| {
        let node = find(&union, path).node;
        let xflags = union.fsxattr(node).unwrap();
        let xflags = u32::from_ne_bytes(*xflags.first_chunk().unwrap());
        (get(&union, node) & (PROTECTING | PORTABLE), xflags & 0xff)
    };
    let before = paths.map(seen);
    assert!(before.iter().all(|(flags, _)| *flags == kept));
    assert!(before.iter().all(|(_, xflags)| xflags & PROTECTING_X == 0));
    // Reading them copies nothing up.
    assert!(!stack.at("upper/d").exists());
    for path in ["d/f", "d/empty", "d/log"] {
        let node = find(&union, path).node;
        union.write(node, 0, b"new").unwrap();
        assert_eq!(content(&union, node), "new");
    }
    let set = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    union.setattr(find(&union, "d/cut").node, &set).unwrap();
    assert_eq!(paths.map(seen), before);
    let lower = std::fs::read_to_string(stack.at("old/d/f")).unwrap();
    assert_eq!(lower, "old");
}

#[test]
fn a_flag_is_set_in_the_upper_and_binds_there() {
    let stack = Stack::new();
    if !has_flags(&stack) {
        return;
    }
    stack.file("old/d/f", "old");
    let union = stack.open();
    let (d, node) = (find(&union, "d").node, find(&union, "d/f").node);
    // Nothing changes: no reason for a copy.
    add(&union, node, IFlags::empty()).unwrap();
    assert!(!stack.at("upper/d").exists());
    // A descriptor that is open for writing does not get around it.
    union.write(node, 0, b"new").unwrap();
    let _marked = Marked(vec![stack.at("upper/d/f")]);
    add(&union, node, IFlags::IMMUTABLE).unwrap();
    assert!(get(&union, node).contains(IFlags::IMMUTABLE));
    let on_disk = std::fs::File::open(stack.at("upper/d/f")).unwrap();
    assert!(
        ioctl_getflags(&on_disk)
            .unwrap()
            .contains(IFlags::IMMUTABLE)
    );
    assert_eq!(content(&union, node), "new");
    assert!(union.backing(node).unwrap().is_none());
    assert_eq!(errno(union.write(node, 0, b"no")), Errno::PERM);
    assert_eq!(errno(union.unlink(d, b"f")), Errno::PERM);
    assert!(!stack.at("upper/d/.wh.f").exists());
    assert_eq!(errno(union.link(node, d, b"g")), Errno::PERM);
    drop(union);
    let union = stack.open();
    let (d, node) = (find(&union, "d").node, find(&union, "d/f").node);
    assert_eq!(errno(union.write(node, 0, b"no")), Errno::PERM);
    clear(&union, node, IFlags::IMMUTABLE).unwrap();
    union.write(node, 0, b"yes").unwrap();
    union.unlink(d, b"f").unwrap();
    assert_eq!(stack.staged(), 0);
}

#[test]
fn extended_flags_are_set_as_they_are_shown() {
    let stack = Stack::new();
    if !has_flags(&stack) {
        return;
    }
    let mut marked = Marked(Vec::new());
    marked
        .set(stack.file("old/d/f", "old"), IFlags::IMMUTABLE)
        .unwrap();
    let union = stack.open();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hears = Arc::clone(&told);
    union.notify_attributes_to(move |node| lock(&hears).push(node));
    let node = find(&union, "d/f").node;
    let shown = union.fsxattr(node).unwrap();
    // As it is: no reason for a copy.
    union.set_fsxattr(node, &shown).unwrap();
    assert!(!stack.at("upper/d").exists() && lock(&told).is_empty());
    let mut wanted = shown;
    let flags = u32::from_ne_bytes(*shown.first_chunk().unwrap());
    // FS_XFLAG_NODUMP
    wanted[..4].copy_from_slice(&(flags | 0x80).to_ne_bytes());
    union.set_fsxattr(node, &wanted).unwrap();
    assert!(get(&union, node).contains(IFlags::NODUMP));
    assert!(lock(&told).contains(&node), "its ctime is another one");
    assert_eq!(content(&union, node), "old");
    union.set_fsxattr(node, &shown).unwrap();
    assert!(!get(&union, node).contains(IFlags::NODUMP));
    // The flags of the layer's disk bind there only.
    assert!(!get(&union, node).contains(IFlags::IMMUTABLE));
}

#[test]
fn words_change_where_they_are_wanted_otherwise() {
    let words = |flags: u32, project: u32| -> FsXattr {
        let mut all = [0; 28];
        all[..4].copy_from_slice(&flags.to_ne_bytes());
        all[12..16].copy_from_slice(&project.to_ne_bytes());
        all
    };
    let mut value = words(0b1100, 7);
    change_words(&mut value, &words(0b0011, 5), &words(0b0101, 5));
    assert_eq!(value, words(0b1100, 7));
    change_words(&mut value, &words(0b1000, 5), &words(0b0001, 6));
    assert_eq!(value, words(0b0101, 6));
}

#[test]
fn an_append_only_file_grows() {
    let stack = Stack::new();
    if !has_flags(&stack) {
        return;
    }
    stack.file("old/log", "one\n");
    let union = stack.open();
    let node = find(&union, "log").node;
    let _marked = Marked(vec![stack.at("upper/log")]);
    add(&union, node, IFlags::APPEND).unwrap();
    union.write(node, 4, b"two\n").unwrap();
    // A page of the kernel's cache, from its beginning.
    union.write_back(node, 0, b"one\ntwo\nthree\n").unwrap();
    union.write_back(node, 4, b"two\n").unwrap();
    assert_eq!(content(&union, node), "one\ntwo\nthree\n");
    for (offset, data) in [(0, &b"ONE\n"[..]), (10, b"rewritten"), (100, b"gap")] {
        let written = union.write(node, offset, data);
        assert_eq!(errno(written), Errno::PERM, "{offset}");
    }
    let set = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    assert_eq!(errno(union.setattr(node, &set)), Errno::PERM);
    assert_eq!(content(&union, node), "one\ntwo\nthree\n");
}

#[test]
fn directories_have_flags() {
    let stack = Stack::new();
    if !has_flags(&stack) {
        return;
    }
    stack.file("old/d/f", "old");
    let union = stack.open();
    let d = find(&union, "d").node;
    let _marked = Marked(vec![stack.at("upper/d")]);
    add(&union, d, IFlags::IMMUTABLE | IFlags::NODUMP).unwrap();
    let made = union.make(d, b"g", &file(0o600), &Caller::default());
    assert_eq!(errno(made), Errno::PERM);
    assert_eq!(errno(union.unlink(d, b"f")), Errno::PERM);
    assert_eq!(content(&union, find(&union, "d/f").node), "old");
    clear(&union, d, IFlags::IMMUTABLE).unwrap();
    union.unlink(d, b"f").unwrap();
    assert!(get(&union, d).contains(IFlags::NODUMP));
    assert_eq!(stack.staged(), 0);
}

#[test]
fn a_file_without_a_name_has_flags() {
    let stack = Stack::new();
    if !has_flags(&stack) {
        return;
    }
    let union = stack.open();
    let Ok(made) = union.tmpfile(ROOT, 0o600, &Caller::default()) else {
        return;
    };
    add(&union, made.node, IFlags::NODUMP).unwrap();
    union.link(made.node, ROOT, b"f").unwrap();
    assert!(get(&union, find(&union, "f").node).contains(IFlags::NODUMP));
}

#[test]
fn what_cannot_have_flags_says_so() {
    let stack = Stack::new();
    stack.file("old/f", "old");
    let union = stack.open();
    let link = New::Symlink { target: b"f" };
    let made = union.make(ROOT, b"s", &link, &Caller::default());
    let link = made.unwrap().node;
    let gone = mkdir(&union, "gone", 0o755);
    union.rmdir(ROOT, b"gone").unwrap();
    for node in [link, gone] {
        assert_eq!(errno(union.inode_flags(node)), Errno::NOTTY);
        assert_eq!(errno(union.set_inode_flags(node, 0)), Errno::NOTTY);
        assert_eq!(errno(union.fsxattr(node)), Errno::NOTTY);
        assert_eq!(errno(union.set_fsxattr(node, &[0; 28])), Errno::NOTTY);
        assert_eq!(errno(union.inode_version(node)), Errno::NOTTY);
    }
    let union = stack.open_read_only();
    let node = find(&union, "f").node;
    assert_eq!(errno(union.set_inode_flags(node, 0)), Errno::ROFS);
    if has_flags(&stack) {
        let number = std::fs::File::open(stack.at("old/f")).unwrap();
        assert_eq!(
            union.inode_version(node).unwrap(),
            version(&number).unwrap()
        );
    }
}
