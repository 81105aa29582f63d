//! Tests of volumes: what others do in them at the same time, and what that costs.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::FdSlot;
use crate::union::config::Volume;
use crate::union::tests::testing::{Stack, content, errno, file, find};
use crate::union::tests::volume::{names, open, stack, volume};
use crate::union::{Caller, Config, RenameMode, SetAttr, Union};

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
    // Replaced: another file, and a process that has the old one open goes on with it.
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

#[test]
fn what_is_appended_goes_behind_what_others_appended() {
    let stack = stack();
    stack.file("old/g", "old");
    let union = open(&stack, &[volume(&stack, "vol", "/data")]);
    let node = find(&union, "data/f").node;
    stack.file("vol/f", "shared, host");
    union.append(node, 6, b", mount").unwrap();
    assert_eq!(content(&union, node), "shared, host, mount");
    // Beside volumes no other process appends: the kernel knows the end.
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
    let knows_births = union.volumes.list.iter().all(|volume| volume.knows_births);
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
            &crate::union::tests::testing::file(0o600),
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
                "union::tests::volume_shared::a_removal_that_fails_removes_nothing",
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
        let full = FdSlot::new(&union.layers.fds).get_or_open(|| Err(Errno::MFILE));
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
