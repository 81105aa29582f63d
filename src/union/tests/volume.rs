//! Tests of volumes: what they show, and what holds at their borders.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::union::config::Volume;
use crate::union::tests::testing::{Stack, content, errno, file, find, mkdir};
use crate::union::{Caller, Config, New, NodeId, RenameMode, SetAttr, Union};

pub(in crate::union) const ROOT: NodeId = NodeId::ROOT;

pub(in crate::union) fn volume(stack: &Stack, source: &str, target: &str) -> Volume {
    Volume {
        source: stack.at(source),
        target: target.into(),
        read_only: false,
    }
}

pub(in crate::union) fn with(stack: &Stack, volumes: &[Volume]) -> Config {
    Config {
        volumes: volumes.to_vec(),
        ..stack.config()
    }
}

pub(in crate::union) fn open(stack: &Stack, volumes: &[Volume]) -> Union {
    Union::open(&with(stack, volumes)).unwrap()
}

/// A stack with a directory `vol` beside its layers.
pub(in crate::union) fn stack() -> Stack {
    let stack = Stack::new();
    stack.file("vol/f", "shared");
    stack
}

pub(in crate::union) fn names(union: &Union, node: NodeId) -> Vec<String> {
    let mut names = Vec::new();
    union
        .readdir(node, 0, |entry| {
            names.push(String::from_utf8_lossy(&entry.name).into_owned());
            true
        })
        .unwrap();
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

#[test]
fn a_volume_is_a_directory_of_its_own() {
    let stack = stack();
    stack.file("old/data/hidden", "below");
    stack.file("old/g", "old");
    let union = open(
        &stack,
        &[
            volume(&stack, "vol", "/data"),
            volume(&stack, "vol", "/new/target"),
        ],
    );
    assert_eq!(names(&union, ROOT), ["data", "g", "new"]);
    let data = find(&union, "data");
    assert_eq!(data.attr.validity, crate::union::Validity::Shared);
    assert_eq!(
        find(&union, "g").attr.validity,
        crate::union::Validity::Kept
    );
    assert_eq!(names(&union, data.node), ["f"]);
    assert!(stack.at("upper/new/target").is_dir());
    assert!(!stack.at("upper/data").exists());
    // The same directory through two doors: each file once, with a number that meets none of the
    // rest.
    let (a, b) = (
        find(&union, "data/f").attr,
        find(&union, "new/target/f").attr,
    );
    let g = find(&union, "g").attr;
    assert!(a.ino == b.ino && a.ino != g.ino);
    assert_eq!(union.lookup_parent(data.node).unwrap().node, ROOT);
    // Written at once, without marks, whatever the name is.
    let node = find(&union, "data/f").node;
    union.write(node, 6, b"!").unwrap();
    union
        .make(data.node, b".wh.x", &file(0o600), &Caller::default())
        .unwrap();
    union.unlink(data.node, b".wh.x").unwrap();
    union
        .setxattr(node, b"user.overlay.opaque", b"y", XattrFlags::empty())
        .unwrap();
    assert_eq!(union.listxattr(node).unwrap(), b"user.overlay.opaque\0");
    assert_eq!(
        std::fs::read_to_string(stack.at("vol/f")).unwrap(),
        "shared!"
    );
    // No owners are made up in it, either.
    for dir_or_file in [data.node, node] {
        let (name, record) = (b"user.containers.override_stat", b"0:0:4755:char-1-3");
        let flags = XattrFlags::empty();
        union.setxattr(dir_or_file, name, record, flags).unwrap();
    }
    let again = Union::open(&Config {
        read_only: true,
        ..with(&stack, &[volume(&stack, "vol", "/data")])
    })
    .unwrap();
    assert_eq!(find(&again, "data/f").attr.kind(), Kind::File);
    drop(again);
    let zero = New::Node {
        kind: Kind::Char,
        mode: 0o600,
        rdev: 0,
    };
    if union
        .make(data.node, b"zero", &zero, &Caller::default())
        .is_ok()
    {
        assert!(
            stack
                .at("vol/zero")
                .symlink_metadata()
                .unwrap()
                .file_type()
                .is_char_device()
        );
        assert_eq!(names(&union, data.node), ["f", "zero"]);
    }
}

#[test]
fn nothing_crosses_the_border_of_a_volume() {
    let stack = stack();
    stack.file("old/a/data/x", "old");
    stack.file("old/g", "old");
    let union = open(
        &stack,
        &[
            volume(&stack, "vol", "/a/data"),
            volume(&stack, "vol/f", "/bound"),
        ],
    );
    let (a, data, g) = (
        find(&union, "a").node,
        find(&union, "a/data").node,
        find(&union, "g").node,
    );
    let replace = RenameMode::Replace;
    assert_eq!(
        errno(union.rename(ROOT, b"g", data, b"g", replace)),
        Errno::XDEV
    );
    assert_eq!(
        errno(union.rename(data, b"f", ROOT, b"f", replace)),
        Errno::XDEV
    );
    assert_eq!(
        errno(union.rename(data, b"f", ROOT, b"g", RenameMode::Exchange)),
        Errno::XDEV
    );
    assert_eq!(errno(union.link(g, data, b"g")), Errno::XDEV);
    let f = find(&union, "a/data/f").node;
    assert_eq!(errno(union.link(f, ROOT, b"f2")), Errno::XDEV);
    // What it is shown at stays, and so does what leads there.
    assert_eq!(errno(union.rmdir(a, b"data")), Errno::BUSY);
    assert_eq!(
        errno(union.rename(a, b"data", ROOT, b"data", replace)),
        Errno::BUSY
    );
    assert_eq!(
        errno(union.rename(ROOT, b"a", ROOT, b"b", replace)),
        Errno::BUSY
    );
    assert_eq!(errno(union.rmdir(ROOT, b"a")), Errno::NOTEMPTY);
    assert_eq!(errno(union.unlink(ROOT, b"bound")), Errno::BUSY);
    assert_eq!(
        errno(union.rename(ROOT, b"g", ROOT, b"bound", replace)),
        Errno::BUSY
    );
    assert_eq!(
        errno(union.make(a, b"data", &New::Dir { mode: 0o755 }, &Caller::default())),
        Errno::EXIST
    );
    let bound = find(&union, "bound");
    assert_eq!(errno(union.link(bound.node, ROOT, b"x")), Errno::XDEV);
    // A file is the file, also when its name is another's by now.
    union.write(bound.node, 0, b"SHARED").unwrap();
    std::fs::rename(stack.at("vol/f"), stack.at("vol/moved")).unwrap();
    stack.file("vol/f", "another");
    assert_eq!(content(&union, bound.node), "SHARED");
    assert_eq!(find(&union, "bound").attr.nlink, 1);
    assert!(stack.at("upper/bound").is_file());
    // Directories beside it move as ever.
    mkdir(&union, "d", 0o755);
    union.rename(ROOT, b"d", a, b"d", replace).unwrap();
}

#[test]
fn read_only_holds_for_the_volume_or_for_the_rest() {
    let stack = stack();
    stack.file("old/data/x", "old");
    let mut shown = volume(&stack, "vol", "/data");
    shown.read_only = true;
    let union = open(&stack, &[shown.clone()]);
    let (data, f) = (find(&union, "data").node, find(&union, "data/f").node);
    let refused = |union: &Union| {
        vec![
            errno(union.make(data, b"g", &file(0o600), &Caller::default())),
            errno(union.make(data, b"g", &New::Dir { mode: 0o700 }, &Caller::default())),
            errno(union.tmpfile(data, 0o600, &Caller::default())),
            errno(union.unlink(data, b"f")),
            errno(union.rename(data, b"f", data, b"g", RenameMode::Replace)),
            errno(union.link(f, data, b"g")),
            errno(union.write(f, 0, b"x")),
            errno(union.setattr(
                f,
                &SetAttr {
                    mode: Some(0),
                    ..SetAttr::default()
                },
            )),
            errno(union.setattr(
                f,
                &SetAttr {
                    size: Some(0),
                    ..SetAttr::default()
                },
            )),
            errno(union.setxattr(f, b"user.x", b"y", XattrFlags::empty())),
            errno(union.removexattr(f, b"user.x")),
            errno(union.fallocate(f, 0, 0, 10)),
            errno(union.clear_setid(f, &|_| true)),
        ]
    };
    assert!(
        refused(&union).iter().all(|errno| *errno == Errno::ROFS),
        "{:?}",
        refused(&union)
    );
    assert_eq!(content(&union, f), "shared");
    mkdir(&union, "d", 0o755);
    drop(union);
    shown.read_only = false;
    let read_only = Config {
        upper: None,
        work: None,
        ..with(&stack, &[shown])
    };
    let union = Union::open(&read_only).unwrap();
    assert!(union.is_read_only() && !union.is_wholly_read_only());
    let data = find(&union, "data").node;
    let made = union
        .make(
            data,
            b"g",
            &file(0o640),
            &Caller {
                uid: 3,
                gid: 4,
                ..Caller::default()
            },
        )
        .unwrap();
    union.write(made.node, 0, b"x").unwrap();
    union
        .setattr(
            made.node,
            &SetAttr {
                mode: Some(0o600),
                ..SetAttr::default()
            },
        )
        .unwrap();
    assert_eq!(stack.at("vol/g").metadata().unwrap().uid(), 3);
    assert_eq!(
        errno(union.make(ROOT, b"g", &file(0o600), &Caller::default())),
        Errno::ROFS
    );
}

#[test]
fn what_cannot_be_shown_is_refused_with_a_cure() {
    let stack = stack();
    stack.file("old/file", "x");
    std::fs::create_dir(stack.at("old/dir")).unwrap();
    std::os::unix::fs::symlink("/loop", stack.at("old/loop")).unwrap();
    std::os::unix::net::UnixListener::bind(stack.at("socket")).unwrap();
    let refused = |source, target| {
        let error = Union::open(&with(&stack, &[volume(&stack, source, target)])).unwrap_err();
        error.to_string()
    };
    for (source, target, expected) in [
        ("nothing", "/data", "No such file"),
        ("socket", "/data", "neither a directory nor a regular file"),
        ("vol", "/", "at the root"),
        ("vol", "/a/../..", "at the root"),
        (
            "vol",
            "/file",
            "a directory cannot be shown at /file, which is none",
        ),
        (
            "vol/f",
            "/dir",
            "a file cannot be shown at /dir, which is a directory",
        ),
        ("vol", "/file/x", "no directory"),
        ("vol", "/loop/x", "in a circle"),
    ] {
        let error = refused(source, target);
        assert!(error.contains(expected), "{source} {target}: {error}");
    }
    let twice = [
        volume(&stack, "vol", "/data"),
        volume(&stack, "vol", "/./data/"),
    ];
    let error = Union::open(&with(&stack, &twice)).unwrap_err();
    assert!(error.what().contains("two volumes"), "{error}");
    let read_only = Config {
        upper: None,
        work: None,
        ..with(&stack, &[volume(&stack, "vol", "/missing")])
    };
    let error = Union::open(&read_only).unwrap_err();
    assert!(error.what().contains("cannot be made"), "{error}");
}

#[test]
fn targets_lead_through_symlinks_and_other_volumes() {
    let stack = stack();
    stack.file("old/run/x", "x");
    std::fs::create_dir(stack.at("old/var")).unwrap();
    std::os::unix::fs::symlink("../../../run", stack.at("old/var/run")).unwrap();
    stack.file("other/inner", "inner");
    let union = open(
        &stack,
        &[
            volume(&stack, "other", "/var/run/data/sub/dir"),
            volume(&stack, "vol", "/var/run/data"),
        ],
    );
    assert_eq!(
        content(&union, find(&union, "run/data/sub/dir/inner").node),
        "inner"
    );
    assert!(stack.at("vol/sub/dir").is_dir());
    let sub = find(&union, "run/data/sub");
    let mut listed = Vec::new();
    union
        .readdir(sub.node, 0, |e| {
            listed.push((e.name.to_vec(), e.ino));
            true
        })
        .unwrap();
    assert!(listed.contains(&(b"dir".to_vec(), find(&union, "run/data/sub/dir").attr.ino)));
    let data = find(&union, "run/data").node;
    assert_eq!(
        errno(union.rename(data, b"sub", data, b"x", RenameMode::Replace)),
        Errno::BUSY
    );
    assert_eq!(errno(union.rmdir(sub.node, b"dir")), Errno::BUSY);
}

/// Sets an xattr of a file of the host.
fn host_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

#[test]
fn what_stands_for_an_xattr_in_a_layer_stands_for_nothing_in_a_volume() {
    let stack = stack();
    let f = stack.at("vol/f");
    // CAP_SYS_ADMIN, effective; and a default ACL that grants everything.
    let capability = [
        1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    host_xattr(
        &f,
        "user.containers.override_security.capability",
        &capability,
    );
    let acl: Vec<u8> = [2u8, 0, 0, 0]
        .into_iter()
        .chain([1, 4, 0x20].into_iter().flat_map(|tag| {
            let nobody = [0xff; 4];
            [[tag, 0, 7, 0], nobody].concat()
        }))
        .collect();
    host_xattr(
        &stack.at("vol"),
        "user.containers.override_system.posix_acl_default",
        &acl,
    );
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let (data, node) = (find(&union, "data").node, find(&union, "data/f").node);
    union.write_mapped(node, 0, b"S").unwrap();
    let got = rustix::fs::getxattr(&f, "security.capability", &mut [0; 64]);
    assert_eq!(got, Err(Errno::NODATA));
    let caller = Caller {
        umask: 0o077,
        ..Caller::default()
    };
    union.make(data, b"new", &file(0o666), &caller).unwrap();
    let mode = stack.at("vol/new").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Listed under their own names, also where ACLs are not offered.
    drop(union);
    let config = Config {
        no_acl: true,
        ..with(&stack, &[volume(&stack, "vol", "/data")])
    };
    let union = Union::open(&config).unwrap();
    let node = find(&union, "data/f").node;
    assert_eq!(
        union.listxattr(node).unwrap(),
        b"user.containers.override_security.capability\0"
    );
}

#[test]
fn records_say_nothing_in_a_volume() {
    const RECORD: &str = "user.containers.override_stat";
    let stack = stack();
    let f = stack.at("vol/f");
    stack.file("vol/dev", "");
    host_xattr(&stack.at("vol"), RECORD, b"0:0:0755:dir");
    host_xattr(&f, RECORD, b"0:0:4755:file");
    host_xattr(&stack.at("vol/dev"), RECORD, b"0:0:0666:char-1-3");
    let union = open(
        &stack,
        &[
            volume(&stack, "vol", "/data"),
            volume(&stack, "vol/f", "/bound"),
        ],
    );
    let host = f.metadata().unwrap();
    for path in ["data/f", "bound"] {
        let attr = find(&union, path).attr;
        assert_eq!((attr.uid, attr.mode), (host.uid(), host.mode()), "{path}");
    }
    let dev = find(&union, "data/dev").attr;
    assert_eq!((dev.kind(), dev.rdev), (Kind::File, 0));
    // What is changed is the disk's.
    let data = find(&union, "data").node;
    let new = union
        .make(data, b"new", &file(0o640), &Caller::default())
        .unwrap();
    let mode = SetAttr {
        mode: Some(0o4711),
        ..SetAttr::default()
    };
    union.setattr(new.node, &mode).unwrap();
    let made = stack.at("vol/new").metadata().unwrap();
    assert_eq!(made.mode() & 0o7777, 0o4711);
    assert_eq!(
        union.listxattr(find(&union, "data/f").node).unwrap(),
        b"user.containers.override_stat\0"
    );
}
