//! Layers that others edit, without a mount: which changes are notified, and what is then cached.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::mpsc::Receiver;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::marks::{HAS_IMPLIED, IMPLIED, USER_PREFIX, looks};
use crate::union::config::CacheMode;
use crate::union::tests::testing::{Stack, content, errno, find};
use crate::union::{Change, Config, NodeId, Union, Validity};

struct Edited {
    stack: Stack,
    union: Union,
    told: Receiver<Change>,
}

impl Edited {
    fn new(stack: Stack) -> Self {
        let cache = CacheMode::Auto;
        let union = Union::open(&Config {
            cache,
            ..stack.config()
        });
        let union = union.unwrap();
        let told = union.changes().unwrap();
        Self { stack, union, told }
    }

    fn names(&self, dir: NodeId) -> Vec<String> {
        let mut names = Vec::new();
        let read = self.union.readdir(dir, 2, |entry| {
            names.push(String::from_utf8_lossy(&entry.name).into_owned());
            true
        });
        read.unwrap();
        names.sort();
        names
    }

    /// What the kernel is told when everything that happened is heard of.
    fn hear(&self) -> Vec<Change> {
        self.union.hear_once();
        self.told.try_iter().collect()
    }

    fn watches(&self) -> usize {
        self.union.others.live.as_ref().unwrap().watches()
    }
}

fn says(change: &Change, of: &str) -> bool {
    matches!(change, Change::Name { name, .. } if **name == *of.as_bytes())
}

#[test]
fn names_that_come_and_go_are_heard_of() {
    let stack = Stack::new();
    stack.file("old/d/a", "a");
    stack.file("old/d/b", "b");
    stack.file("new/d/c", "c");
    let edited = Edited::new(stack);
    let d = find(&edited.union, "d").node;
    assert_eq!(edited.names(d), ["a", "b", "c"]);
    assert!(edited.hear().is_empty(), "nothing happened");
    edited.stack.file("old/d/new", "new");
    fs::remove_file(edited.stack.at("old/d/a")).unwrap();
    fs::rename(edited.stack.at("old/d/b"), edited.stack.at("old/d/b2")).unwrap();
    // A mark that hides, and another one that hides what is still to come.
    edited.stack.file("new/d/.wh.b2", "");
    edited.stack.file("new/d/.wh.later", "");
    edited.stack.file("old/d/later", "");
    let told = edited.hear();
    for name in ["new", "a", "b"] {
        assert!(told.iter().any(|change| says(change, name)), "{told:?}");
    }
    assert!(!told.iter().any(|change| says(change, "c")));
    assert!(told.contains(&Change::Node(d)), "its listing");
    assert_eq!(edited.names(d), ["c", "new"]);
    fs::remove_file(edited.stack.at("new/d/.wh.b2")).unwrap();
    edited.hear();
    assert_eq!(edited.names(d), ["b2", "c", "new"]);
}

#[test]
fn content_and_attributes_are_told_of_the_file() {
    let stack = Stack::new();
    stack.file("old/f", "one");
    stack.file("old/g", "one");
    stack.file("old/up", "one");
    let edited = Edited::new(stack);
    let (f, g) = (find(&edited.union, "f"), find(&edited.union, "g"));
    assert_eq!(f.attr.validity, Validity::Kept);
    edited
        .union
        .write(find(&edited.union, "up").node, 0, b"two")
        .unwrap();
    edited.hear();
    edited.stack.file("old/f", "longer");
    edited.stack.file("old/up", "hidden");
    let told = edited.hear();
    assert!(told.contains(&Change::Node(f.node)) && !told.contains(&Change::Node(g.node)));
    assert_eq!(told.len(), 1, "copied up is copied up: {told:?}");
    assert_eq!(edited.union.getattr(f.node).unwrap().size, 6);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(edited.stack.at("old/g"), mode).unwrap();
    assert!(edited.hear().contains(&Change::Node(g.node)));
    assert_eq!(edited.union.getattr(g.node).unwrap().mode & 0o777, 0o600);
}

#[test]
fn an_opaque_mark_that_comes_hides_and_one_that_goes_shows() {
    let stack = Stack::new();
    stack.file("old/d/sub/f", "f");
    stack.file("new/d/top", "top");
    let edited = Edited::new(stack);
    let d = find(&edited.union, "d").node;
    let sub = find(&edited.union, "d/sub").node;
    assert_eq!(edited.names(sub), ["f"]);
    edited.stack.file("new/d/.wh..wh..opq", "");
    edited.hear();
    assert_eq!(edited.names(d), ["top"]);
    fs::remove_file(edited.stack.at("new/d/.wh..wh..opq")).unwrap();
    edited.hear();
    assert_eq!(edited.names(d), ["sub", "top"]);
}

#[test]
fn a_directory_that_joins_below_shows_to_who_is_inside() {
    let stack = Stack::new();
    stack.file("new/d/sub/f", "f");
    let edited = Edited::new(stack);
    let d = find(&edited.union, "d").node;
    let sub = find(&edited.union, "d/sub").node;
    assert_eq!(edited.names(d), ["sub"]);
    assert_eq!(edited.names(sub), ["f"]);
    // It is complete before it is looked at: built beside, and moved in.
    edited.stack.file("old/building/sub/g", "g");
    edited.hear();
    fs::rename(edited.stack.at("old/building"), edited.stack.at("old/d")).unwrap();
    let told = edited.hear();
    assert!(told.iter().any(|change| says(change, "g")), "{told:?}");
    assert_eq!(edited.names(sub), ["f", "g"]);
    // And it can be exchanged for another one.
    edited.stack.file("old/other/sub/h", "h");
    fs::rename(edited.stack.at("old/d"), edited.stack.at("old/gone")).unwrap();
    fs::rename(edited.stack.at("old/other"), edited.stack.at("old/d")).unwrap();
    edited.hear();
    assert_eq!(edited.names(sub), ["f", "h"]);
    // And is watched from then on.
    edited.stack.file("old/d/sub/i", "i");
    edited.hear();
    assert_eq!(edited.names(sub), ["f", "h", "i"]);
    fs::remove_dir_all(edited.stack.at("old/d")).unwrap();
    edited.hear();
    assert_eq!(edited.names(sub), ["f"]);
}

#[test]
fn a_directory_that_joins_on_top_is_another_one() {
    let stack = Stack::new();
    stack.file("old/d/sub/f", "f");
    let edited = Edited::new(stack);
    let sub = find(&edited.union, "d/sub");
    assert_eq!(edited.names(sub.node), ["f"]);
    edited.stack.file("new/d/sub/g", "g");
    let told = edited.hear();
    assert!(told.iter().any(|change| says(change, "d")), "{told:?}");
    let now = find(&edited.union, "d/sub");
    assert!(now.node != sub.node && now.attr.ino != sub.attr.ino);
    assert_eq!(edited.names(now.node), ["f", "g"]);
    fs::remove_dir_all(edited.stack.at("new/d")).unwrap();
    edited.hear();
    assert_eq!(edited.names(find(&edited.union, "d/sub").node), ["f"]);
}

#[test]
fn another_file_of_the_same_name_is_another_node() {
    let stack = Stack::new();
    stack.file("old/f", "one");
    symlink("one", stack.at("old/s")).unwrap();
    let edited = Edited::new(stack);
    let (f, s) = (find(&edited.union, "f").node, find(&edited.union, "s").node);
    // Disks like to give a number again at once.
    for name in ["old/f", "old/s"] {
        fs::remove_file(edited.stack.at(name)).unwrap();
    }
    symlink("two", edited.stack.at("old/s")).unwrap();
    edited.stack.file("old/f", "two");
    edited.hear();
    let (f2, s2) = (find(&edited.union, "f").node, find(&edited.union, "s").node);
    assert!(f != f2 && s != s2);
    assert_eq!(content(&edited.union, f2), "two");
    assert_eq!(edited.union.readlink(s2).unwrap(), b"two");
    // The old one was never opened: there is nothing left of it.
    assert_eq!(errno(edited.union.getattr(f)), Errno::STALE);
    assert_eq!(errno(edited.union.read(f, 0, &mut [0; 8])), Errno::STALE);
}

#[test]
fn a_file_is_found_again_before_anybody_heard_that_it_was_replaced() {
    let stack = Stack::new();
    stack.file("old/f", "one");
    let edited = Edited::new(stack);
    let f = find(&edited.union, "f").node;
    // As an open does that the kernel has not been told of: ESTALE, and then the name once more.
    fs::remove_file(edited.stack.at("old/f")).unwrap();
    edited.stack.file("old/f", "two");
    assert_eq!(errno(edited.union.getattr(f)), Errno::STALE);
    let f2 = find(&edited.union, "f").node;
    assert_ne!(f, f2);
    assert_eq!(content(&edited.union, f2), "two");
    // And by a lookup alone.
    fs::remove_file(edited.stack.at("old/f")).unwrap();
    edited.stack.file("old/f", "three");
    let f3 = find(&edited.union, "f").node;
    assert_ne!(f2, f3);
    assert_eq!(content(&edited.union, f3), "three");
}

#[test]
fn what_may_change_unheard_is_believed_for_a_while_only() {
    let stack = Stack::new();
    let f = stack.file("old/f", "f");
    stack.file("old/d/g", "g");
    fs::hard_link(&f, stack.at("old/d/link")).unwrap();
    let edited = Edited::new(stack);
    // Names that are not watched may change it.
    let linked = find(&edited.union, "f");
    assert_eq!(linked.attr.validity, Validity::Checked);
    // Told when it is seen.
    fs::write(edited.stack.at("old/f"), "g").unwrap();
    edited.hear();
    edited.union.getattr(linked.node).unwrap();
    assert!(edited.hear().contains(&Change::Node(linked.node)));
    // A directory that was not looked into is not watched.
    let d = find(&edited.union, "d");
    edited.names(d.node);
    assert_eq!(
        edited.union.getattr(d.node).unwrap().validity,
        Validity::Kept
    );
    assert_eq!(edited.union.names_validity(d.node), Validity::Kept);
}

#[test]
fn watches_go_with_their_directories_and_one_directory_has_one() {
    let stack = Stack::new();
    stack.file("old/d/e/f", "f");
    // Twice the same layer.
    fs::remove_dir(stack.at("new")).unwrap();
    symlink("old", stack.at("new")).unwrap();
    let edited = Edited::new(stack);
    let nodes: Vec<_> = ["d", "d/e", "d/e/f"]
        .map(|path| find(&edited.union, path).node)
        .into();
    assert_eq!(edited.watches(), 3);
    edited.stack.file("old/d/e/g", "g");
    let told = edited.hear();
    assert_eq!(told.iter().filter(|change| says(change, "g")).count(), 1);
    for node in nodes {
        edited.union.forget(node, 100);
    }
    assert_eq!(edited.watches(), 1, "the root's");
}

#[test]
fn too_much_at_once_is_looked_at_as_a_whole() {
    let stack = Stack::new();
    stack.file("old/d/f", "f");
    let edited = Edited::new(stack);
    let (d, f) = (
        find(&edited.union, "d").node,
        find(&edited.union, "d/f").node,
    );
    edited.hear();
    edited.stack.file("old/d/g", "g");
    edited.union.look_at_everything();
    let told: Vec<_> = edited.told.try_iter().collect();
    assert!(told.contains(&Change::Node(d)) && told.contains(&Change::Node(f)));
    assert!(told.iter().any(|change| says(change, "g")), "{told:?}");
}

#[test]
fn a_copy_keeps_its_number_where_xattrs_are_not_used() {
    let stack = Stack::new();
    stack.file("old/f", "f");
    let mut config = stack.config();
    config.no_xattrs = true;
    config.cache = CacheMode::Auto;
    let union = Union::open(&config).unwrap();
    let f = find(&union, "f");
    union.write(f.node, 0, b"g").unwrap();
    stack.file("old/g", "g");
    union.hear_once();
    let again = find(&union, "f");
    assert_eq!((again.node, again.attr.ino), (f.node, f.attr.ino));
}

/// A directory that its layer does not describe looks as it does in the layers that it is in now.
#[test]
fn an_undescribed_directory_looks_as_its_layers_say_now() {
    let stack = Stack::new();
    let (new, old) = (stack.at("new/d"), stack.at("old/d"));
    for (dir, mode) in [(&new, 0o755), (&old, 0o711)] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    }
    let meta = fs::metadata(&new).unwrap();
    let says = |dir: &std::path::Path, name, value: &[u8]| {
        let name = format!("{USER_PREFIX}{name}");
        rustix::fs::setxattr(dir, name, value, XattrFlags::empty()).unwrap();
    };
    says(&stack.at("new"), HAS_IMPLIED, b"y");
    says(&new, IMPLIED, &looks(meta.uid(), meta.gid(), 0o755));
    let edited = Edited::new(stack);
    let perm = || find(&edited.union, "d").attr.mode & 0o7777;
    assert_eq!(perm(), 0o711);
    fs::remove_dir(&old).unwrap();
    edited.hear();
    assert_eq!(perm(), 0o755);
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o700)).unwrap();
    edited.hear();
    assert_eq!(perm(), 0o700);
}
