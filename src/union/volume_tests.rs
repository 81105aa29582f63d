//! Tests of volumes: what holds at their borders, what others do in them, and random operations beside a plain directory.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::config::Volume;
use super::testing::{Stack, content, errno, file, find, mkdir};
use super::{Caller, Config, New, NodeId, RenameMode, SetAttr, Union};
use crate::layer::FdSlot;
use crate::layer::stat::Kind;

const ROOT: NodeId = NodeId::ROOT;

fn volume(stack: &Stack, source: &str, target: &str) -> Volume {
    Volume {
        source: stack.at(source),
        target: target.into(),
        read_only: false,
    }
}

fn with(stack: &Stack, volumes: &[Volume]) -> Config {
    Config {
        volumes: volumes.to_vec(),
        ..stack.config()
    }
}

fn open(stack: &Stack, volumes: &[Volume]) -> Union {
    Union::open(&with(stack, volumes)).unwrap()
}

/// A stack with a directory `vol` beside its layers.
fn stack() -> Stack {
    let stack = Stack::new();
    stack.file("vol/f", "shared");
    stack
}

fn names(union: &Union, node: NodeId) -> Vec<String> {
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
    assert_eq!(data.attr.belief, crate::union::Belief::Shared);
    assert_eq!(find(&union, "g").attr.belief, crate::union::Belief::Kept);
    assert_eq!(names(&union, data.node), ["f"]);
    assert!(stack.at("upper/new/target").is_dir());
    assert!(!stack.at("upper/data").exists());
    // The same directory through two doors: each file once, with a number that meets none of the rest.
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
    // Nobody makes owners up in it, either.
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
    assert!(error.what.contains("two volumes"), "{error}");
    let read_only = Config {
        upper: None,
        work: None,
        ..with(&stack, &[volume(&stack, "vol", "/missing")])
    };
    let error = Union::open(&read_only).unwrap_err();
    assert!(error.what.contains("cannot be made"), "{error}");
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

#[test]
fn what_others_do_in_a_volume_is_seen_at_once() {
    let stack = stack();
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let other = open_second(&stack);
    let data = find(&union, "data").node;
    let old = find(&union, "data/f");
    assert!(union.lookup(data, b"new").unwrap().is_none());
    let host = |path: &str| stack.at("vol").join(path);
    std::fs::write(host("new"), "by host").unwrap();
    assert_eq!(content(&union, find(&union, "data/new").node), "by host");
    assert_eq!(names(&union, data), ["f", "new"]);
    let theirs = find(&other, "x/new").node;
    other.write(theirs, 0, b"BY").unwrap();
    assert_eq!(content(&union, find(&union, "data/new").node), "BY host");
    // Replaced: another file, and whoever has the old one open goes on with it.
    assert_eq!(content(&union, old.node), "shared");
    std::fs::rename(host("new"), host("f")).unwrap();
    assert_eq!(content(&union, old.node), "shared");
    let now = find(&union, "data/f");
    assert_ne!(now.node, old.node);
    assert_eq!(content(&union, now.node), "BY host");
    // One that is not open has nothing to go on with: it must not become the other file.
    std::fs::write(host("p"), "p").unwrap();
    let p = find(&union, "data/p").node;
    std::fs::write(host("q"), "q").unwrap();
    std::fs::rename(host("q"), host("p")).unwrap();
    assert_eq!(errno(union.getattr(p)), Errno::STALE);
    assert_eq!(errno(union.read(p, 0, &mut [0; 9])), Errno::STALE);
    assert_eq!(errno(union.write(p, 0, b"x")), Errno::STALE);
    assert_eq!(
        errno(union.setattr(
            p,
            &SetAttr {
                mode: Some(0),
                ..SetAttr::default()
            }
        )),
        Errno::STALE
    );
    assert_eq!(
        errno(union.setxattr(p, b"user.x", b"y", XattrFlags::empty())),
        Errno::STALE
    );
    // Directories likewise, and removed ones.
    std::fs::create_dir_all(host("d/e")).unwrap();
    let d = find(&union, "data/d").node;
    std::fs::rename(host("d"), host("d2")).unwrap();
    std::fs::create_dir(host("d")).unwrap();
    let before = union.make(d, b"x", &file(0o600), &Caller::default());
    assert!(!host("d/x").exists(), "{before:?}");
    assert_ne!(find(&union, "data/d").node, d);
    std::fs::remove_dir_all(host("d2")).unwrap();
    assert!(union.lookup(data, b"d2").unwrap().is_none());
    assert_eq!(errno(union.unlink(data, b"d2")), Errno::NOENT);
    std::fs::create_dir(host("now-a-dir")).unwrap();
    assert_eq!(
        errno(union.make(data, b"now-a-dir", &file(0o600), &Caller::default())),
        Errno::EXIST
    );
}

/// Another union with the same volume.
fn open_second(stack: &Stack) -> Union {
    let config = Config {
        lowers: vec![stack.at("new")],
        upper: Some(
            stack
                .file("second/upper/x", "")
                .parent()
                .unwrap()
                .to_owned(),
        ),
        work: Some(stack.file("second/work/x", "").parent().unwrap().to_owned()),
        volumes: vec![volume(stack, "vol", "/x")],
        ..Config::default()
    };
    std::fs::remove_file(stack.at("second/upper/x")).unwrap();
    Union::open(&config).unwrap()
}

#[test]
fn memory_and_descriptors_are_bounded() {
    let stack = stack();
    for number in 0..3000 {
        stack.file(&format!("vol/many/{number}"), "x");
    }
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let many = find(&union, "data/many").node;
    let mut found = 0;
    for start in 0..3 {
        let mut nodes = Vec::new();
        union
            .readdirplus(
                many,
                0,
                |_| true,
                |_, entry| {
                    nodes.extend(entry.map(|entry| entry.node));
                    true
                },
            )
            .unwrap();
        for node in &nodes {
            union.read(*node, 0, &mut [0; 4]).unwrap();
            union.forget(*node, 1);
        }
        found = nodes.len();
        assert!(union.inodes() < 10, "{start}: {}", union.inodes());
    }
    assert_eq!(found, 3000);
    assert!(union.descriptors().0 < 100);
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

#[test]
fn what_is_appended_goes_behind_what_others_appended() {
    let stack = stack();
    stack.file("old/g", "old");
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let node = find(&union, "data/f").node;
    stack.file("vol/f", "shared, host");
    union.append(node, 6, b", mount").unwrap();
    assert_eq!(content(&union, node), "shared, host, mount");
    // Beside volumes nobody else appends: the kernel knows the end.
    let g = find(&union, "g").node;
    union.append(g, 3, b"er").unwrap();
    assert_eq!(content(&union, g), "older");
}

#[test]
fn reading_a_file_of_a_volume_leaves_its_mode_alone() {
    use std::os::unix::fs::{PermissionsExt, chown};
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let stack = stack();
    let f = stack.at("vol/f");
    chown(&f, Some(NOBODY), None).unwrap();
    std::fs::set_permissions(&f, std::fs::Permissions::from_mode(0o400)).unwrap();
    let before = f.metadata().unwrap();
    for read_only in [false, true] {
        let bound = Volume {
            read_only,
            ..volume(&stack, "vol/f", "/bound")
        };
        let union = open(&stack, &[bound]);
        let node = find(&union, "bound").node;
        // A daemon of the file's owner, who may read it but not write.
        std::thread::scope(|scope| {
            let daemon = scope.spawn(|| {
                let uid = rustix::process::Uid::from_raw(NOBODY);
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
                let written = union.write(node, 0, b"x");
                (content(&union, node), errno(written))
            });
            let expected = if read_only {
                Errno::ROFS
            } else {
                Errno::ACCESS
            };
            assert_eq!(daemon.join().unwrap(), ("shared".to_owned(), expected));
        });
    }
    let after = f.metadata().unwrap();
    assert_eq!(
        (before.ctime(), before.ctime_nsec()),
        (after.ctime(), after.ctime_nsec())
    );
}

/// Makes something in the place of `path`, which was removed, until it has the inode number `ino`.
fn reborn(path: &Path, ino: u64, make: impl Fn(&Path) -> std::io::Result<()>) -> bool {
    std::thread::sleep(std::time::Duration::from_millis(20));
    for number in 0..100 {
        let one = path.with_extension(number.to_string());
        make(&one).unwrap();
        if one.metadata().unwrap().ino() == ino {
            std::fs::rename(one, path).unwrap();
            return true;
        }
    }
    false
}

#[test]
fn an_inode_number_that_is_given_again_is_another_object() {
    let stack = stack();
    for file in ["vol/p", "vol/q"] {
        stack.file(file, "old");
    }
    std::fs::hard_link(stack.at("vol/q"), stack.at("vol/q2")).unwrap();
    std::fs::create_dir(stack.at("vol/d")).unwrap();
    let host = |name: &str| stack.at("vol").join(name);
    let ino = |name: &str| host(name).metadata().unwrap().ino();
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let knows_births = union.volumes.iter().all(|volume| volume.knows_births);
    let names = ["p", "q", "d"];
    let nodes = names.map(|name| find(&union, &format!("data/{name}")).node);
    let numbers = names.map(ino);
    std::fs::remove_file(host("p")).unwrap();
    let file = |path: &Path| std::fs::write(path, "new");
    if !knows_births || !reborn(&host("p"), numbers[0], file) {
        // This disk gives no number again.
        return;
    }
    assert_eq!(errno(union.read(nodes[0], 0, &mut [0; 3])), Errno::STALE);
    assert_eq!(errno(union.write(nodes[0], 0, b"x")), Errno::STALE);
    let now = find(&union, "data/p");
    assert_ne!(now.node, nodes[0]);
    assert_eq!(content(&union, now.node), "new");
    for name in ["q", "q2"] {
        std::fs::remove_file(host(name)).unwrap();
    }
    let linked = |path: &Path| {
        std::fs::write(path, "new")?;
        std::fs::hard_link(path, path.with_extension("twice"))?;
        std::fs::rename(path.with_extension("twice"), host("q2"))
    };
    if reborn(&host("q"), numbers[1], linked) {
        assert_ne!(find(&union, "data/q2").node, nodes[1]);
        assert_eq!(errno(union.getattr(nodes[1])), Errno::STALE);
    }
    std::fs::remove_dir(host("d")).unwrap();
    if reborn(&host("d"), numbers[2], |path| std::fs::create_dir(path)) {
        let made = union.make(
            nodes[2],
            b"x",
            &super::testing::file(0o600),
            &Caller::default(),
        );
        assert_eq!(errno(made), Errno::STALE);
        assert_ne!(find(&union, "data/d").node, nodes[2]);
    }
}

#[test]
fn a_removal_that_fails_removes_nothing() {
    const CHILD: &str = "UNIONMOUNT_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        // The limit below is the whole process's.
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "union::volume_tests::a_removal_that_fails_removes_nothing",
            ])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let stack = stack();
    let host = |name: &str| stack.at("vol").join(name);
    for name in ["d", "e", "from"] {
        std::fs::create_dir(host(name)).unwrap();
    }
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let data = find(&union, "data").node;
    let nodes =
        ["d", "e", "from"].map(|name| union.lookup(data, name.as_bytes()).unwrap().unwrap().node);
    // Nothing but the roots stays open: each time a half is closed.
    for _ in 0..16 {
        let full = FdSlot::new(&union.fds).get_or_open(|| Err(Errno::MFILE));
        assert_eq!(full.err(), Some(Errno::MFILE));
    }
    assert_eq!(union.descriptors().0, 0);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let set = |limit| rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    set(rustix::process::Rlimit {
        current: Some(0),
        ..limit
    });
    let removed = union.rmdir(data, b"d");
    let moved = union.rename(data, b"from", data, b"e", RenameMode::Replace);
    set(limit);
    assert_eq!((errno(removed), errno(moved)), (Errno::MFILE, Errno::MFILE));
    assert!(["d", "e", "from"].iter().all(|name| host(name).exists()));
    union.rmdir(data, b"d").unwrap();
    union
        .rename(data, b"from", data, b"e", RenameMode::Replace)
        .unwrap();
    for gone in &nodes[..2] {
        let made = union.make(*gone, b"x", &file(0o600), &Caller::default());
        assert_eq!(errno(made), Errno::NOENT);
    }
}
