//! Tests of volumes: what holds at their borders, what others do in them, and random operations beside a plain directory.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, XattrFlags, linkat, renameat_with};
use rustix::io::Errno;

use super::config::Volume;
use super::testing::{Stack, content, errno, file, find, mkdir};
use super::{Caller, Config, New, NodeId, RenameMode, SetAttr, Union};
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
    assert!(data.attr.shared && !find(&union, "g").attr.shared);
    assert_eq!(names(&union, data.node), ["f"]);
    assert!(stack.at("upper/new/target").is_dir());
    assert!(!stack.at("upper/data").exists());
    // The same directory through two doors, with numbers that meet none of the rest.
    let (a, b) = (
        find(&union, "data/f").attr,
        find(&union, "new/target/f").attr,
    );
    let g = find(&union, "g").attr;
    assert!(a.ino != b.ino && a.ino != g.ino && b.ino != g.ino);
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

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }
}

/// The world that both sides live in: a path of at most two names out of a few.
fn path(dice: &mut Dice) -> PathBuf {
    const NAMES: [&str; 5] = ["a", "b", "c", ".wh.a", "d"];
    let mut path = PathBuf::from(NAMES[dice.throw(5)]);
    for _ in 0..dice.throw(3) {
        path.push(NAMES[dice.throw(5)]);
    }
    path
}

/// Where a path leads in the union: directory and name.
fn place(union: &Union, top: NodeId, path: &Path) -> std::result::Result<(NodeId, Vec<u8>), Errno> {
    let mut at = top;
    let names: Vec<_> = path.iter().collect();
    let (last, dirs) = names.split_last().unwrap();
    for name in dirs {
        let entry = union
            .lookup(at, name.as_encoded_bytes())
            .map_err(|e| e.errno())?
            .ok_or(Errno::NOENT)?;
        if entry.attr.kind() != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        at = entry.node;
    }
    Ok((at, last.as_encoded_bytes().to_vec()))
}

fn node(union: &Union, top: NodeId, path: &Path) -> std::result::Result<NodeId, Errno> {
    let (dir, name) = place(union, top, path)?;
    let entry = union
        .lookup(dir, &name)
        .map_err(|e| e.errno())?
        .ok_or(Errno::NOENT)?;
    Ok(entry.node)
}

type Outcome = std::result::Result<(), Errno>;

/// Does one thing on both sides; both must answer the same.
fn step(union: &Union, top: NodeId, plain: &Path, dice: &mut Dice) -> (String, Outcome, Outcome) {
    let mut direct = || loop {
        let path = path(dice);
        let mut above = path.ancestors().skip(1);
        if !above.any(|dir| plain.join(dir).is_symlink()) {
            break path;
        }
    };
    let (one, two) = (direct(), direct());
    let (a, b) = (plain.join(&one), plain.join(&two));
    let std = |result: std::io::Result<()>| result.map_err(|e| Errno::from_io_error(&e).unwrap());
    let ours = |result: super::Result<()>| result.map_err(|e| e.errno());
    let caller = Caller {
        uid: 5,
        gid: 6,
        umask: 0o022,
        ..Caller::default()
    };
    let make = |new: New<'_>| {
        place(union, top, &one)
            .and_then(|(dir, name)| ours(union.make(dir, &name, &new, &caller).map(drop)))
    };
    let to = |call: &dyn Fn(NodeId) -> super::Result<()>| {
        node(union, top, &one).and_then(|node| ours(call(node)))
    };
    // Which of two reasons not to link a directory is said is the kernel's choice.
    let what = match dice.throw(12) {
        9 if a.is_dir() => 11,
        what => what,
    };
    let (expected, got) = match what {
        0 | 1 => (
            std(std::fs::File::create_new(&a)
                .map(|f| f.set_permissions(PermissionsExt::from_mode(0o640)).unwrap())
                .and_then(|()| std::os::unix::fs::chown(&a, Some(5), Some(6)))),
            make(file(0o660)),
        ),
        2 => (
            std(
                std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o755)
                    .create(&a)
                    .and_then(|()| std::os::unix::fs::chown(&a, Some(5), Some(6))),
            ),
            make(New::Dir { mode: 0o777 }),
        ),
        3 => (
            std(std::os::unix::fs::symlink("a", &a)
                .and_then(|()| std::os::unix::fs::lchown(&a, Some(5), Some(6)))),
            make(New::Symlink { target: b"a" }),
        ),
        4 => (
            rustix::fs::unlinkat(CWD, &a, AtFlags::empty()),
            place(union, top, &one).and_then(|(dir, name)| ours(union.unlink(dir, &name))),
        ),
        5 => (
            rustix::fs::unlinkat(CWD, &a, AtFlags::REMOVEDIR),
            place(union, top, &one).and_then(|(dir, name)| ours(union.rmdir(dir, &name))),
        ),
        6..=8 => {
            let (flags, mode) = [
                (RenameFlags::empty(), RenameMode::Replace),
                (RenameFlags::NOREPLACE, RenameMode::NoReplace),
                (RenameFlags::EXCHANGE, RenameMode::Exchange),
            ][what - 6];
            let moved = place(union, top, &one).and_then(|(dir, name)| {
                let (to, new) = place(union, top, &two)?;
                ours(union.rename(dir, &name, to, &new, mode))
            });
            (renameat_with(CWD, &a, CWD, &b, flags), moved)
        }
        9 => (
            linkat(CWD, &a, CWD, &b, AtFlags::empty()),
            node(union, top, &one).and_then(|node| {
                let (to, new) = place(union, top, &two)?;
                ours(union.link(node, to, &new).map(drop))
            }),
        ),
        10 => {
            let text = format!("{}", dice.throw(1000));
            let written = std::fs::symlink_metadata(&a).and_then(|meta| match meta.is_file() {
                true => std::os::unix::fs::FileExt::write_at(
                    &std::fs::OpenOptions::new().write(true).open(&a)?,
                    text.as_bytes(),
                    3,
                )
                .map(drop),
                false => Err(Errno::INVAL.into()),
            });
            let got = to(&|node| match union.getattr(node)?.kind() {
                Kind::File => union.write(node, 3, text.as_bytes()),
                _ => Err(Errno::INVAL.into()),
            });
            (std(written), got)
        }
        _ => {
            let mode = [0o600, 0o2755, 0o4711, 0o644][dice.throw(4)];
            let set = SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            };
            let changed = std::fs::symlink_metadata(&a).and_then(|meta| match meta.is_symlink() {
                true => Ok(()),
                false => std::fs::set_permissions(&a, PermissionsExt::from_mode(mode)),
            });
            let got = to(&|node| match union.getattr(node)?.kind() {
                Kind::Symlink => Ok(()),
                _ => union.setattr(node, &set).map(drop),
            });
            (std(changed), got)
        }
    };
    (
        format!("{what} {} {}", one.display(), two.display()),
        expected,
        got,
    )
}

type Seen = BTreeMap<PathBuf, (u32, u32, u32, u64, Vec<u8>)>;

fn tree_of(dir: &Path, below: &Path, seen: &mut Seen) {
    for entry in std::fs::read_dir(dir.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let meta = dir.join(&path).symlink_metadata().unwrap();
        let content = match () {
            () if meta.is_symlink() => std::fs::read_link(dir.join(&path))
                .unwrap()
                .into_os_string()
                .into_encoded_bytes(),
            () if meta.is_file() => std::fs::read(dir.join(&path)).unwrap(),
            () => Vec::new(),
        };
        let nlink = if meta.is_dir() { 1 } else { meta.nlink() };
        seen.insert(
            path.clone(),
            (meta.mode(), meta.uid(), meta.gid(), nlink, content),
        );
        if meta.is_dir() {
            tree_of(dir, &path, seen);
        }
    }
}

fn tree_in(union: &Union, dir: NodeId, below: &Path, seen: &mut Seen) {
    let mut found = Vec::new();
    union
        .readdirplus(
            dir,
            0,
            |_| true,
            |listed, entry| {
                if let Some(entry) = entry {
                    assert_eq!(
                        (listed.ino, listed.kind),
                        (entry.attr.ino, entry.attr.kind())
                    );
                    found.push((listed.name.to_vec(), entry));
                }
                true
            },
        )
        .unwrap();
    for (name, entry) in found {
        let path = below.join(String::from_utf8(name).unwrap());
        let attr = entry.attr;
        let content = match attr.kind() {
            Kind::Symlink => union.readlink(entry.node).unwrap(),
            Kind::File => content(union, entry.node).into_bytes(),
            _ => Vec::new(),
        };
        seen.insert(
            path.clone(),
            (attr.mode, attr.uid, attr.gid, attr.nlink.into(), content),
        );
        if attr.kind() == Kind::Dir {
            tree_in(union, entry.node, &path, seen);
        }
        union.forget(entry.node, 1);
    }
}

#[test]
fn random_operations_do_what_they_do_in_a_plain_directory() {
    rustix::process::umask(Mode::empty());
    for seed in 1..=3 {
        let stack = Stack::new();
        for dir in ["vol", "plain"] {
            std::fs::create_dir(stack.at(dir)).unwrap();
        }
        let union = open(&stack, &[volume(&stack, "vol", "/data")]);
        let top = find(&union, "data").node;
        let mut dice = Dice(seed);
        let mut log = Vec::new();
        for number in 0..800 {
            let (what, expected, got) = step(&union, top, &stack.at("plain"), &mut dice);
            log.push(what);
            let last = &log[log.len().saturating_sub(12)..];
            assert_eq!(got, expected, "seed {seed}, {number}: {last:?}");
            if number % 25 == 0 {
                let (mut plain, mut disk, mut seen) = (Seen::new(), Seen::new(), Seen::new());
                tree_of(&stack.at("plain"), Path::new(""), &mut plain);
                tree_of(&stack.at("vol"), Path::new(""), &mut disk);
                tree_in(&union, top, Path::new(""), &mut seen);
                assert_eq!(disk, plain, "seed {seed}, {number}: {last:?}");
                assert_eq!(seen, plain, "seed {seed}, {number}: {last:?}");
            }
        }
    }
}
