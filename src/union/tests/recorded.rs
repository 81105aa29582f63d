//! Unions whose upper keeps owners, modes and types in xattrs (`layer/record.rs`): tests of all
//! operations on them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, XattrFlags, makedev, mknodat};
use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::layer::stat_override::StatOverride;
use crate::union::config::StatOverrideForm;
use crate::union::tests::testing::{Stack, content, errno, file, find, mkdir};
use crate::union::{Attr, Caller, Config, New, NodeId, RenameMode, SetAttr, Union};

const ROOT: NodeId = NodeId::ROOT;
const XATTR: &str = "user.containers.override_stat";
const CAPABILITY: &[u8] = b"security.capability";
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

fn config(stack: &Stack) -> Config {
    Config {
        xattr_permissions: Some(StatOverrideForm::User),
        ..stack.config()
    }
}

fn open(stack: &Stack) -> Union {
    Union::open(&config(stack)).unwrap()
}

fn node(kind: Kind, mode: u32, rdev: u64) -> New<'static> {
    New::Node { kind, mode, rdev }
}

fn user(uid: u32, gid: u32) -> Caller<'static> {
    Caller {
        uid,
        gid,
        ..Caller::default()
    }
}

/// An ACL value for user 1000 with a mask.
fn acl(owner: u8, user: u8, group: u8, mask: u8, other: u8) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, perm, id) in [
        (1, owner, u32::MAX),
        (2, user, 1000),
        (4, group, u32::MAX),
        (16, mask, u32::MAX),
        (32, other, u32::MAX),
    ] {
        value.extend_from_slice(&[tag, 0, perm, 0]);
        value.extend_from_slice(&u32::to_le_bytes(id));
    }
    value
}

fn capability() -> Vec<u8> {
    let mut value = vec![1, 0, 0, 2];
    value.extend_from_slice(&[0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    value
}

/// Name, type, and what is shown besides, of everything in the root.
fn shown(union: &Union) -> BTreeMap<String, (Kind, u32, u32, u32, u64)> {
    let mut all = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    union
        .readdir(ROOT, 2, |entry| {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            kinds.insert(name, entry.kind);
            true
        })
        .unwrap();
    for (name, kind) in kinds {
        let attr = find(union, &name).attr;
        assert_eq!(attr.kind(), kind, "{name}: stat and listing");
        let rest = (kind, attr.mode & 0o7777, attr.uid, attr.gid, attr.rdev);
        all.insert(name, rest);
    }
    all
}

/// Everything below a directory is a regular file or directory of the daemon's, or a symlink.
fn is_plain(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        assert!(!meta.file_type().is_char_device() && !meta.file_type().is_fifo());
        if meta.is_symlink()
            || path
                .file_name()
                .unwrap()
                .as_encoded_bytes()
                .starts_with(b".wh.")
        {
            continue;
        }
        assert!(meta.is_file() || meta.is_dir(), "{}", path.display());
        let daemon = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        assert_eq!((meta.uid(), meta.gid()), daemon, "{}", path.display());
        assert_eq!(meta.mode() & 0o7777, 0o755, "{}", path.display());
        if meta.is_dir() {
            is_plain(&path);
        }
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let len = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(len);
    Some(value)
}

#[test]
fn everything_that_can_be_made_is_shown_as_it_was_asked_for() {
    let stack = Stack::new();
    std::fs::set_permissions(
        stack.at("upper"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let union = open(&stack);
    let made = [
        ("file", file(0o4751)),
        ("secret", file(0)),
        ("dir", New::Dir { mode: 0o1777 }),
        ("fifo", node(Kind::Fifo, 0o620, 0)),
        ("socket", node(Kind::Socket, 0o700, 0)),
        ("null", node(Kind::Char, 0o666, makedev(1, 3))),
        ("disk", node(Kind::Block, 0o660, makedev(259, 7))),
        // No whiteout: on the disk it is a file.
        ("zero", node(Kind::Char, 0o600, 0)),
        ("link", New::Symlink { target: b"file" }),
    ];
    for (name, new) in made {
        let entry = union
            .make(ROOT, name.as_bytes(), &new, &user(12, 345))
            .unwrap();
        assert_eq!((entry.attr.uid, entry.attr.gid), (12, 345), "{name}");
        assert_eq!(entry.attr.ino, find(&union, name).attr.ino);
    }
    let Ok(unnamed) = union.tmpfile(ROOT, 0o2640, &user(7, 8)) else {
        return;
    };
    assert_eq!((unnamed.attr.uid, unnamed.attr.mode & 0o7777), (7, 0o2640));
    union.link(unnamed.node, ROOT, b"named").unwrap();
    union
        .link(find(&union, "null").node, ROOT, b"null2")
        .unwrap();
    union
        .rename(
            ROOT,
            b"fifo",
            find(&union, "dir").node,
            b"fifo",
            RenameMode::Replace,
        )
        .unwrap();
    let before = shown(&union);
    let expect = |name: &str| before[name];
    assert_eq!(expect("file"), (Kind::File, 0o4751, 12, 345, 0));
    assert_eq!(expect("secret"), (Kind::File, 0, 12, 345, 0));
    assert_eq!(expect("dir"), (Kind::Dir, 0o1777, 12, 345, 0));
    assert_eq!(expect("socket"), (Kind::Socket, 0o700, 12, 345, 0));
    assert_eq!(expect("null"), (Kind::Char, 0o666, 12, 345, makedev(1, 3)));
    assert_eq!(expect("null2"), expect("null"));
    assert_eq!(
        expect("disk"),
        (Kind::Block, 0o660, 12, 345, makedev(259, 7))
    );
    assert_eq!(expect("zero"), (Kind::Char, 0o600, 12, 345, 0));
    assert_eq!(expect("named"), (Kind::File, 0o2640, 7, 8, 0));
    assert_eq!(find(&union, "dir/fifo").attr.kind(), Kind::Fifo);
    is_plain(&stack.at("upper"));
    let value = xattr(&stack.at("upper/disk"), XATTR).unwrap();
    assert_eq!(value, b"12:345:0660:block-259-7");
    // Through the mount there is nothing to be seen of that.
    assert_eq!(union.listxattr(find(&union, "disk").node).unwrap(), b"");
    assert_eq!(stack.staged(), 0);
    drop(union);
    // The upper says itself that it keeps records; so does the same tree as a layer.
    assert_eq!(shown(&stack.open()), before);
    let layers = Config {
        lowers: vec![stack.at("upper")],
        upper: None,
        work: None,
        ..Config::default()
    };
    assert_eq!(shown(&Union::open(&layers).unwrap()), before);
}

fn look(union: &Union, path: &str) -> (u32, u32, u32) {
    let Attr { mode, uid, gid, .. } = find(union, path).attr;
    (mode & 0o7777, uid, gid)
}

#[test]
fn changes_of_owner_and_mode_mean_what_they_mean_on_a_disk() {
    let stack = Stack::new();
    let union = open(&stack);
    let f = union
        .make(ROOT, b"f", &file(0o6755), &user(0, 0))
        .unwrap()
        .node;
    let d = mkdir(&union, "d", 0o755);
    let set = |node, set: SetAttr| union.setattr(node, &set).unwrap();
    union
        .setxattr(f, CAPABILITY, &capability(), XattrFlags::empty())
        .unwrap();
    assert_eq!(union.getxattr(f, CAPABILITY).unwrap(), capability());
    assert_eq!(xattr(&stack.at("upper/f"), "security.capability"), None);
    assert_eq!(union.listxattr(f).unwrap(), b"security.capability\0");
    union.write(f, 0, b"x").unwrap();
    // Setuid goes when the transport says so, capabilities always.
    assert_eq!(look(&union, "f").0, 0o6755);
    assert_eq!(errno(union.getxattr(f, CAPABILITY)), Errno::NODATA);
    union.clear_setid(f, &|_| true).unwrap();
    assert_eq!(look(&union, "f").0, 0o755);
    set(
        f,
        SetAttr {
            mode: Some(0o6755),
            ..SetAttr::default()
        },
    );
    union
        .setxattr(f, CAPABILITY, &capability(), XattrFlags::CREATE)
        .unwrap();
    let again = union.setxattr(f, CAPABILITY, &capability(), XattrFlags::CREATE);
    assert_eq!(errno(again), Errno::EXIST);
    set(
        f,
        SetAttr {
            uid: Some(5),
            ..SetAttr::default()
        },
    );
    assert_eq!(look(&union, "f"), (0o755, 5, 0));
    assert_eq!(errno(union.getxattr(f, CAPABILITY)), Errno::NODATA);
    set(
        d,
        SetAttr {
            gid: Some(50),
            mode: Some(0o2775),
            ..SetAttr::default()
        },
    );
    // What is made there inherits the group, and directories the bit.
    union
        .make(d, b"e", &New::Dir { mode: 0o700 }, &user(1, 1))
        .unwrap();
    union.make(d, b"f", &file(0o600), &user(1, 1)).unwrap();
    assert_eq!(look(&union, "d/e"), (0o2700, 1, 50));
    assert_eq!(look(&union, "d/f"), (0o600, 1, 50));
    for name in [
        &b"trusted.x"[..],
        b"security.x",
        b"user.x",
        b"user.fuseoverlayfs.opaque",
        b"trusted.overlay.opaque",
    ] {
        union.setxattr(d, name, b"y", XattrFlags::empty()).unwrap();
        assert_eq!(
            union.getxattr(d, name).unwrap(),
            b"y",
            "{}",
            name.escape_ascii()
        );
    }
    assert_eq!(
        union.listxattr(d).unwrap().split(|byte| *byte == 0).count(),
        6
    );
    drop(union);
    let union = stack.open();
    assert_eq!(look(&union, "d"), (0o2775, 0, 50));
    assert_eq!(look(&union, "d/f"), (0o600, 1, 50));
    let d = find(&union, "d").node;
    union.removexattr(d, b"security.x").unwrap();
    assert_eq!(errno(union.getxattr(d, b"security.x")), Errno::NODATA);
}

#[test]
fn acls_work_although_no_disk_interprets_them() {
    let stack = Stack::new();
    let union = open(&stack);
    let f = union
        .make(ROOT, b"f", &file(0o640), &user(0, 0))
        .unwrap()
        .node;
    let set = |node, name, value: &[u8]| union.setxattr(node, name, value, XattrFlags::empty());
    set(f, ACCESS, &acl(7, 6, 5, 7, 1)).unwrap();
    assert_eq!(look(&union, "f").0, 0o771);
    assert_eq!(xattr(&stack.at("upper/f"), "system.posix_acl_access"), None);
    let mode = SetAttr {
        mode: Some(0o640),
        ..SetAttr::default()
    };
    union.setattr(f, &mode).unwrap();
    assert_eq!(union.getxattr(f, ACCESS).unwrap(), acl(6, 6, 5, 4, 0));
    // One that says what a mode says is no ACL.
    let plain = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0],
        &[255; 4],
        &[4, 0, 4, 0],
        &[255; 4],
        &[32, 0, 4, 0],
        &[255; 4],
    ]
    .concat();
    set(f, ACCESS, &plain).unwrap();
    assert_eq!(look(&union, "f").0, 0o644);
    assert_eq!(errno(union.getxattr(f, ACCESS)), Errno::NODATA);
    assert_eq!(errno(set(f, DEFAULT, &acl(7, 7, 7, 7, 7))), Errno::ACCESS);
    assert_eq!(errno(set(f, ACCESS, b"odd")), Errno::INVAL);
    let d = mkdir(&union, "d", 0o755);
    set(d, DEFAULT, &acl(7, 6, 5, 7, 1)).unwrap();
    let masked = Caller {
        umask: 0o077,
        ..user(3, 4)
    };
    let made = union.make(d, b"f", &file(0o664), &masked).unwrap();
    assert_eq!(made.attr.mode & 0o7777, 0o660);
    assert_eq!(
        union.getxattr(made.node, ACCESS).unwrap(),
        acl(6, 6, 5, 6, 0)
    );
    if let Ok(unnamed) = union.tmpfile(d, 0o664, &masked) {
        assert_eq!(
            union.getxattr(unnamed.node, ACCESS).unwrap(),
            acl(6, 6, 5, 6, 0)
        );
    }
    let e = union
        .make(d, b"e", &New::Dir { mode: 0o750 }, &masked)
        .unwrap();
    assert_eq!(union.getxattr(e.node, DEFAULT).unwrap(), acl(7, 6, 5, 7, 1));
    assert_eq!(union.getxattr(e.node, ACCESS).unwrap(), acl(7, 6, 5, 5, 0));
    // A disk that has no ACLs of its own shows none of that.
    let link = union
        .make(d, b"l", &New::Symlink { target: b"x" }, &masked)
        .unwrap();
    assert_eq!(union.listxattr(link.node).unwrap(), b"");
}

#[test]
fn lower_objects_are_copied_up_with_all_they_are() {
    let stack = Stack::new();
    let program = stack.file("old/d/program", "content");
    let null = stack.at("old/d/null");
    mknodat(
        rustix::fs::CWD,
        &null,
        rustix::fs::FileType::CharacterDevice,
        Mode::from_raw_mode(0o640),
        makedev(1, 3),
    )
    .unwrap();
    rustix::fs::setxattr(
        &program,
        "security.capability",
        &capability(),
        XattrFlags::empty(),
    )
    .unwrap();
    let with_acl = rustix::fs::setxattr(
        &program,
        "system.posix_acl_access",
        &acl(7, 6, 5, 7, 1),
        XattrFlags::empty(),
    )
    .is_ok();
    std::os::unix::fs::chown(&null, Some(9), Some(10)).unwrap();
    std::os::unix::fs::chown(stack.at("old/d"), Some(11), Some(12)).unwrap();
    let union = open(&stack);
    let seen = |union: &Union| {
        let program = find(union, "d/program");
        (
            look(union, "d"),
            look(union, "d/null"),
            find(union, "d/null").attr.rdev,
            look(union, "d/program"),
            union.getxattr(program.node, CAPABILITY).ok(),
            union.getxattr(program.node, ACCESS).ok(),
        )
    };
    let before = seen(&union);
    assert_eq!(
        (before.0, before.1, before.2),
        ((0o755, 11, 12), (0o640, 9, 10), makedev(1, 3))
    );
    assert_eq!((before.4.is_some(), before.5.is_some()), (true, with_acl));
    let numbers = |union: &Union| {
        [
            find(union, "d/null").attr.ino,
            find(union, "d/program").attr.ino,
        ]
    };
    let old_numbers = numbers(&union);
    for path in ["d/null", "d/program"] {
        union
            .setxattr(
                find(&union, path).node,
                b"trusted.x",
                b"y",
                XattrFlags::empty(),
            )
            .unwrap();
    }
    assert!(stack.at("upper/d/null").metadata().unwrap().is_file());
    assert_eq!(seen(&union), before);
    assert_eq!(content(&union, find(&union, "d/program").node), "content");
    drop(union);
    let union = stack.open();
    assert_eq!(seen(&union), before);
    assert_eq!(numbers(&union), old_numbers);
    drop(union);
    // And from a layer with records into an ordinary upper.
    let other = Stack::new();
    let config = Config {
        lowers: vec![stack.at("upper")],
        ..other.config()
    };
    let union = Union::open(&config).unwrap();
    for path in ["d/null", "d/program"] {
        union
            .setxattr(
                find(&union, path).node,
                b"trusted.z",
                b"y",
                XattrFlags::empty(),
            )
            .unwrap();
    }
    assert_eq!(seen(&union), before);
    let on_disk = other.at("upper/d/null").metadata().unwrap();
    assert!(on_disk.file_type().is_char_device());
    assert_eq!((on_disk.uid(), on_disk.rdev()), (9, makedev(1, 3)));
    assert_eq!(
        xattr(&other.at("upper/d/program"), "security.capability"),
        Some(capability())
    );
}

#[test]
fn an_odd_record_is_no_reason_not_to_show_a_file() {
    let stack = Stack::new();
    drop(open(&stack));
    let odd = stack.file("upper/odd", "x");
    rustix::fs::setxattr(&odd, XATTR, b"rubbish", XattrFlags::empty()).unwrap();
    let dir = stack.file("upper/dir", "x");
    rustix::fs::setxattr(&dir, XATTR, b"0:0:0755:dir", XattrFlags::empty()).unwrap();
    stack.file("upper/without", "x");
    let old = stack.file("upper/old", "x");
    rustix::fs::setxattr(
        &old,
        "user.fuseoverlayfs.override_stat",
        b"1:2:0700:pipe",
        XattrFlags::empty(),
    )
    .unwrap();
    let union = stack.open();
    for name in ["odd", "dir", "without", "old"] {
        let attr = find(&union, name).attr;
        assert_eq!(
            (attr.kind(), attr.uid, attr.mode & 0o777),
            (Kind::File, 0, 0o644),
            "{name}"
        );
    }
    drop(union);
    // The form of older programs counts where the root has it.
    rustix::fs::setxattr(
        stack.at("upper"),
        "user.fuseoverlayfs.override_stat",
        b"0:0:0755:dir",
        XattrFlags::empty(),
    )
    .unwrap();
    assert_eq!(find(&stack.open(), "old").attr.kind(), Kind::Fifo);
}

#[test]
fn the_privileged_form_is_kept_elsewhere_and_for_symlinks_as_well() {
    let stack = Stack::new();
    let config = Config {
        xattr_permissions: Some(StatOverrideForm::Privileged),
        ..stack.config()
    };
    let Ok(union) = Union::open(&config) else {
        eprintln!("skipped: no right to set security xattrs");
        return;
    };
    union
        .make(ROOT, b"l", &New::Symlink { target: b"x" }, &user(5, 6))
        .unwrap();
    union
        .make(ROOT, b"p", &node(Kind::Fifo, 0o600, 0), &user(5, 6))
        .unwrap();
    // Also to the owner that they have, as those do who unpack archives; that counts as a change.
    for name in ["l", "p"] {
        let node = find(&union, name).node;
        for (uid, gid) in [(5, 6), (7, 8), (7, 8), (5, 6)] {
            let before = union.getattr(node).unwrap().ctime;
            std::thread::sleep(std::time::Duration::from_millis(20));
            let owner = SetAttr {
                uid: Some(uid),
                gid: Some(gid),
                ..SetAttr::default()
            };
            let attr = union.setattr(node, &owner).unwrap();
            assert_eq!((attr.uid, attr.gid), (uid, gid), "{name}");
            assert_ne!(attr.ctime, before, "{name}");
        }
    }
    let value = xattr(&stack.at("upper/l"), "security.fuseoverlayfs.override").unwrap();
    assert_eq!(
        StatOverride::parse(&value).unwrap().kind,
        Some(Kind::Symlink)
    );
    assert_eq!(
        std::fs::symlink_metadata(stack.at("upper/l"))
            .unwrap()
            .uid(),
        0
    );
    drop(union);
    let union = stack.open();
    assert_eq!(look(&union, "l"), (0o777, 5, 6));
    assert_eq!(find(&union, "p").attr.kind(), Kind::Fifo);
    drop(union);
    let other = Config {
        xattr_permissions: Some(StatOverrideForm::User),
        ..config
    };
    let refused = Union::open(&other).unwrap_err();
    assert_eq!(refused.hint(), "mount with xattr_permissions=1");
}
