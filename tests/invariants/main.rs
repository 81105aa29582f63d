//! What always holds (`design.md`), one test for each, named after it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Stack, blocks, errno, names, read, shell};
use unionmount::layer::stat::Kind;
use unionmount::union::{Caller, Config, New, NodeId, RenameMode, SetAttr, Union};

fn open(stack: &Stack) -> Union {
    Union::open(&Config {
        lowers: stack.lowers.clone(),
        upper: Some(stack.upper()),
        work: Some(stack.work()),
        ..Config::default()
    })
    .unwrap()
}

fn file(mode: u32) -> New<'static> {
    New::Node {
        kind: Kind::File,
        mode,
        rdev: 0,
    }
}

const ROOT: NodeId = NodeId::ROOT;
const CALLER: Caller = Caller {
    uid: 0,
    gid: 0,
    umask: 0o022,
    security: &[],
};

/// What lies below a whiteout, an opaque directory or a file of a layer never shows through, at any
/// depth.
#[test]
fn what_is_hidden_stays_hidden_at_any_depth() {
    support::need_fuse!();
    let stack = Stack::new(4);
    stack.file(3, "cut/a/b/old", "x");
    stack.file(2, "cut/.wh.a", "");
    stack.file(1, "cut/a/b/new", "x");
    stack.file(3, "opaque/d/e/old", "x");
    stack.file(2, "opaque/d/.wh..wh..opq", "");
    stack.file(0, "opaque/d/e/new", "x");
    stack.file(3, "file/d/old", "x");
    stack.file(2, "file/d", "a file");
    stack.file(1, "over/d/new", "x");
    stack.file(2, "over/d", "a file");
    stack.file(3, "over/d/old", "x");
    stack.twice(
        |_| {},
        |at| {
            assert_eq!(names(at.join("cut/a/b")), ["new"]);
            assert_eq!(names(at.join("opaque/d")), ["e"]);
            assert_eq!(names(at.join("opaque/d/e")), ["new"]);
            assert_eq!(read(at.join("file/d")), "a file");
            assert_eq!(names(at.join("over/d")), ["new"]);
        },
    );
}

/// A symlink inside a layer is shown, never followed: not even one that stands where a directory
/// stood.
#[test]
fn links_in_a_layer_are_never_followed() {
    support::need_fuse!();
    let stack = Stack::new(2);
    let outside = stack.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "x").unwrap();
    stack.link(0, "d", outside.to_str().unwrap());
    stack.file(1, "d/own", "x");
    stack.link(1, "up", "../../..");
    // Deeper than any path name may be long.
    let mut deep = "deep".to_owned();
    for _ in 0..120 {
        deep += "/0123456789012345678901234567890123456789";
    }
    stack.twice(
        |at| {
            let script = format!(
                "import os
os.chdir('{}')
for name in '{deep}'.split('/'):
    os.makedirs(name, exist_ok=True)
    os.chdir(name)
open('bottom', 'w').write('reached')",
                at.display()
            );
            shell("/", &format!("python3 - <<'EOF'\n{script}\nEOF"));
        },
        |at| {
            assert!(fs::symlink_metadata(at.join("d")).unwrap().is_symlink());
            let script = format!(
                "import os
os.chdir('{}')
for name in '{deep}'.split('/'): os.chdir(name)
assert open('bottom').read() == 'reached'",
                at.display()
            );
            shell("/", &format!("python3 - <<'EOF'\n{script}\nEOF"));
        },
    );
}

/// By type: `ReadOnlyDir` has no method that changes anything. Here: nothing on the disk changes
/// either.
#[test]
fn lower_layers_are_never_written() {
    support::need_fuse!();
    let stack = Stack::new(2);
    stack.file(1, "d/a", "a");
    stack.file(0, "d/b", "b");
    stack.link(1, "s", "d");
    let list = || {
        shell(
            stack.dir.path(),
            "find l0 l1 -printf '%p %y %m %n %s %A@ %T@ %C@\n' | sort",
        )
    };
    // The first listing itself may set access times.
    list();
    let before = list();
    stack.twice(
        |at| {
            shell(
                at,
                "cat d/* >/dev/null; ls -R >/dev/null; echo x >> d/a; chmod 600 d/b; mv d e; rm s; touch e",
            );
        },
        |at| assert_eq!(names(at), ["e"]),
    );
    assert_eq!(list(), before);
}

/// An unlinked open file stays itself while new ones may get its inode number on the disk.
#[test]
fn a_node_id_has_one_content() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "lower", "lower");
    let mount = stack.mount();
    fs::write(mount.path("upper"), "upper").unwrap();
    let held = [
        File::open(mount.path("upper")).unwrap(),
        File::open(mount.path("lower")).unwrap(),
    ];
    fs::remove_file(mount.path("upper")).unwrap();
    fs::remove_file(mount.path("lower")).unwrap();
    let mut inodes = HashSet::new();
    for i in 0..3000 {
        let path = mount.path(format!("f{}", i % 10));
        fs::write(&path, "another").unwrap();
        inodes.insert(fs::metadata(&path).unwrap().ino());
        fs::remove_file(&path).unwrap();
    }
    for (held, want) in held.iter().zip(["upper", "lower"]) {
        assert!(!inodes.contains(&held.metadata().unwrap().ino()));
        let mut bytes = [0; 5];
        held.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, want.as_bytes());
    }
    // A removed directory that a process is in, while another one gets its inode number.
    let script = "mkdir gone; cd gone; rmdir ../gone; mkdir ../new; touch ../new/x; test -z \"$(ls)\"; stat -c %h .; ls ../new 2>/dev/null || true";
    shell(&mount.at, script);
    assert_eq!(names(mount.path("new")), ["x"]);
    drop(held);
    mount.unmount();
}

/// Reading, writing, listing need no open: any node that the kernel knows will do, at any time.
#[test]
fn operations_go_by_inode_not_by_name() {
    if !support::fuse_is_here() {
        return;
    }
    let stack = Stack::new(1);
    stack.file(0, "d/f", "lower");
    let union = open(&stack);
    let dir = union.lookup(ROOT, b"d").unwrap().unwrap().node;
    let node = union.lookup(dir, b"f").unwrap().unwrap().node;
    let mut buffer = [0; 8];
    assert_eq!(union.read(node, 0, &mut buffer).unwrap(), 5);
    union.write(node, 5, b"+up").unwrap();
    assert_eq!(union.read(node, 0, &mut buffer).unwrap(), 8);
    assert_eq!(&buffer, b"lower+up");
    // Continued behind any entry, in any call.
    let mut seen = Vec::new();
    let mut cookie = 0;
    loop {
        let mut one = None;
        union
            .readdir(dir, cookie, |entry| {
                one.get_or_insert_with(|| entry.clone());
                false
            })
            .unwrap();
        let Some(entry) = one else { break };
        cookie = entry.cookie;
        seen.push(String::from_utf8_lossy(&entry.name).into_owned());
    }
    assert_eq!(seen, [".", "..", "f"]);
}

/// A copy that fails leaves the lower file, gives the error to the caller, and leaves nothing
/// behind.
#[test]
fn a_copy_up_that_fails_leaves_the_lower_file() {
    support::need_fuse!();
    let stack = Stack::new(1);
    fs::write(stack.lower(0).join("large"), vec![b'x'; 8 << 20]).unwrap();
    // An upper and a work directory on a disk that is too small.
    let disk = stack.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    shell(
        &disk,
        "mount -t tmpfs -o size=2M none \"$PWD\"; cd \"$PWD\"; mkdir upper work",
    );
    let small = support::Mount::found(disk.clone());
    let mut stack = stack;
    stack
        .options
        .push(format!("upperdir={}", disk.join("upper").display()));
    stack
        .options
        .push(format!("workdir={}", disk.join("work").display()));
    stack.without_directories = true;
    let mount = stack.mount();
    let file = OpenOptions::new()
        .write(true)
        .open(mount.path("large"))
        .unwrap();
    let failed = file.write_all_at(b"y", 0).and_then(|()| file.sync_all());
    assert_eq!(errno(failed), libc::ENOSPC);
    drop(file);
    assert_eq!(names(disk.join("work/work")), [""; 0]);
    assert_eq!(names(disk.join("upper")), [""; 0]);
    // Our own umount would refuse: the kernel still wants to store the mtime of the failed write.
    shell("/", &format!("umount {}", mount.at.display()));
    let mount = stack.mount();
    assert_eq!(fs::metadata(mount.path("large")).unwrap().len(), 8 << 20);
    assert!(
        fs::read(mount.path("large"))
            .unwrap()
            .iter()
            .all(|b| *b == b'x')
    );
    mount.unmount();
    drop(small);
}

/// A lookup while names come and go finds the old or the new, never both or neither.
#[test]
fn a_lookup_while_names_change_finds_old_or_new() {
    support::need_fuse!();
    for option in ["whiteout=wh", "whiteout=char"] {
        let stack = Stack::new(1).option(option);
        for i in 0..200 {
            stack.file(0, &format!("f{i}"), "lower");
            stack.file(0, &format!("d{i}/inside"), "lower");
        }
        let mount = stack.mount();
        let at = mount.at.clone();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for i in 0..200 {
                        // Replaced by rename: always there, always whole.
                        let text = read(at.join(format!("f{i}")));
                        assert!(text == "lower" || text == "upper", "{text}");
                    }
                }
            });
            for i in 0..200 {
                fs::write(at.join("new"), "upper").unwrap();
                fs::rename(at.join("new"), at.join(format!("f{i}"))).unwrap();
                shell(
                    &at,
                    &format!("rm -r d{i}; mkdir d{i}; test -z \"$(ls d{i})\""),
                );
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        mount.unmount();
        let mount = stack.mount();
        for i in 0..200 {
            assert_eq!(read(mount.path(format!("f{i}"))), "upper");
            assert_eq!(names(mount.path(format!("d{i}"))), [""; 0]);
        }
        mount.unmount();
    }
}

/// rm, rmdir, rename-over and truncation of lower files write no data.
#[test]
fn removing_lower_files_writes_no_data() {
    support::need_fuse!();
    let stack = Stack::new(1);
    for name in ["rm", "over", "truncate", "open", "held"] {
        fs::write(stack.lower(0).join(name), vec![1; 4 << 20]).unwrap();
    }
    stack.twice(
        |at| {
            let held = File::open(at.join("held")).unwrap();
            fs::remove_file(at.join("held")).unwrap();
            fs::remove_file(at.join("rm")).unwrap();
            fs::write(at.join("small"), "").unwrap();
            fs::rename(at.join("small"), at.join("over")).unwrap();
            OpenOptions::new()
                .write(true)
                .open(at.join("truncate"))
                .unwrap()
                .set_len(0)
                .unwrap();
            File::create(at.join("open")).unwrap();
            let mut byte = [0];
            held.read_exact_at(&mut byte, 4 << 10).unwrap();
        },
        |at| assert_eq!(names(at), ["open", "over", "truncate"]),
    );
    assert_eq!(blocks(&stack.upper()), 0);
}

/// A read-only mount leaves the work directory alone, whatever is in it, and needs none.
#[test]
fn the_work_directory_is_ours() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "f", "f");
    fs::create_dir(stack.work().join("work")).unwrap();
    fs::write(stack.work().join("work/left"), "").unwrap();
    let mount = stack.mount_read_only("beside");
    assert_eq!(names(stack.work().join("work")), ["left"]);
    assert_eq!(errno(fs::write(mount.path("x"), "")), libc::EROFS);
    assert_eq!(errno(fs::remove_file(mount.path("f"))), libc::EROFS);
    mount.unmount();
    let mount = stack.mount();
    stack.assert_work_is_empty();
    mount.unmount();
}

/// Renames, removals and creations across directories from many threads end, and end right.
#[test]
fn operations_side_by_side_do_not_deadlock() {
    if !support::fuse_is_here() {
        return;
    }
    let stack = Stack::new(2);
    for i in 0..8 {
        stack.file(i % 2, &format!("d{}/s/f{i}", i % 4), "x");
    }
    // One lower file with a name in every directory.
    let shared = stack.file(1, "d0/n0", "x");
    for i in 1..4 {
        fs::create_dir_all(stack.lower(1).join(format!("d{i}"))).unwrap();
        fs::hard_link(&shared, stack.lower(1).join(format!("d{i}/n0"))).unwrap();
    }
    let union = open(&stack);
    let dirs: Vec<NodeId> = (0..4)
        .map(|i| {
            let name = format!("d{i}");
            union.lookup(ROOT, name.as_bytes()).unwrap().unwrap().node
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    let (union, dirs) = (&union, &dirs);
    std::thread::scope(|scope| {
        for seed in 0..4_u64 {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut next = |n: usize| random.usize(..n);
                while Instant::now() < deadline {
                    let (a, b) = (dirs[next(4)], dirs[next(4)]);
                    let (x, y) = (format!("n{}", next(6)), format!("n{}", next(6)));
                    let (x, y) = (x.as_bytes(), y.as_bytes());
                    let outcome = match next(9) {
                        // What is removed is held open until it is forgotten.
                        0 => union
                            .make(a, x, &New::Dir { mode: 0o755 }, &CALLER)
                            .map(|entry| union.forget(entry.node, 1)),
                        1 => union
                            .make(a, x, &file(0o644), &CALLER)
                            .map(|entry| union.forget(entry.node, 1)),
                        2 => union.rename(a, x, b, y, RenameMode::Replace),
                        3 => union.rename(a, x, b, y, RenameMode::Exchange),
                        4 => union.unlink(a, x),
                        5 => union.rmdir(a, x),
                        6 => union.lookup(a, x).and_then(|found| {
                            let Some(entry) = found else { return Ok(()) };
                            let set = SetAttr {
                                mode: Some(0o755),
                                ..SetAttr::default()
                            };
                            let done = union.setattr(entry.node, &set).map(|_| ());
                            union.forget(entry.node, 1);
                            done
                        }),
                        7 => union.lookup(a, x).and_then(|found| {
                            let Some(entry) = found else { return Ok(()) };
                            let done = union.link(entry.node, b, y);
                            union.forget(entry.node, 1);
                            done.map(|linked| union.forget(linked.node, 1))
                        }),
                        _ => {
                            let mut counted = Vec::new();
                            let done = union.readdirplus(
                                a,
                                0,
                                |_| true,
                                |_, entry| {
                                    counted.extend(entry.map(|entry| entry.node));
                                    true
                                },
                            );
                            for node in counted {
                                union.forget(node, 1);
                            }
                            done
                        }
                    };
                    if let Err(error) = outcome {
                        assert_ne!(error.errno(), rustix::io::Errno::IO, "{error}");
                        assert_ne!(error.errno(), rustix::io::Errno::BUSY, "{error}");
                    }
                }
            });
        }
    });
}

/// Every lookup is counted once; at zero the node is gone.
#[test]
fn lookups_are_counted_once_each() {
    if !support::fuse_is_here() {
        return;
    }
    let stack = Stack::new(1);
    for i in 0..50 {
        stack.file(0, &format!("f{i}"), "x");
    }
    let union = open(&stack);
    assert_eq!(union.inodes(), 1);
    let node = union.lookup(ROOT, b"f1").unwrap().unwrap().node;
    assert_eq!(union.lookup(ROOT, b"f1").unwrap().unwrap().node, node);
    union.forget(node, 1);
    assert!(union.getattr(node).is_ok());
    union.forget(node, 1);
    assert_eq!(
        union.getattr(node).unwrap_err().errno(),
        rustix::io::Errno::STALE
    );
    let again = union.lookup(ROOT, b"f1").unwrap().unwrap().node;
    assert_ne!(again, node, "a node id was given out twice");
    union.forget(again, 1);
    // An entry that does not fit into the reply is not counted; `.` and `..` never are.
    let mut told = Vec::new();
    union
        .readdirplus(
            ROOT,
            0,
            |_| true,
            |_, entry| {
                let Some(entry) = entry else { return true };
                if told.len() == 20 {
                    return false;
                }
                told.push(entry.node);
                true
            },
        )
        .unwrap();
    assert_eq!(union.inodes(), 21);
    for node in told {
        union.forget(node, 1);
    }
    assert_eq!(union.inodes(), 1);
}

/// An unlinked inode works until it is forgotten; then its space is given back.
#[test]
fn an_unlinked_node_works_until_it_is_forgotten() {
    if !support::fuse_is_here() {
        return;
    }
    let stack = Stack::new(1);
    stack.file(0, "lower", "lower");
    let union = open(&stack);
    let made = union
        .make(ROOT, b"upper", &file(0o600), &CALLER)
        .unwrap()
        .node;
    union.write(made, 0, b"upper").unwrap();
    let lower = union.lookup(ROOT, b"lower").unwrap().unwrap().node;
    union.unlink(ROOT, b"upper").unwrap();
    union.unlink(ROOT, b"lower").unwrap();
    for (node, text) in [(made, b"upper"), (lower, b"lower")] {
        assert_eq!(union.getattr(node).unwrap().nlink, 0);
        let mut buffer = [0; 5];
        assert_eq!(union.read(node, 0, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer, text);
        union.write(node, 5, b"!").unwrap();
        let set = SetAttr {
            mode: Some(0o640),
            ..SetAttr::default()
        };
        assert_eq!(union.setattr(node, &set).unwrap().mode & 0o7777, 0o640);
        assert_eq!(
            union.link(node, ROOT, b"again").unwrap_err().errno(),
            rustix::io::Errno::NOENT
        );
        union.forget(node, 1);
        assert!(union.getattr(node).is_err());
    }
    assert_eq!(names(stack.upper()), [".wh.lower"]);
    stack.assert_work_is_empty();
}

/// Listing a directory asks for no name by itself: no inode is made, and only the directories are
/// opened.
#[test]
fn listing_costs_o_entries_of_getdents() {
    if !support::fuse_is_here() {
        return;
    }
    let stack = Stack::new(2);
    for i in 0..5000 {
        stack.file(i % 2, &format!("f{i}"), "");
    }
    let union = open(&stack);
    let mut count = 0;
    union
        .readdir(ROOT, 0, |entry| {
            assert!(entry.ino != 0);
            count += 1;
            true
        })
        .unwrap();
    // No entry was looked up or opened for that.
    assert_eq!((union.inodes(), count), (1, 5002));
    assert!(union.descriptors().0 <= 2);
}

/// Odd values from the disk and from callers are data; nothing makes the daemon stumble.
#[test]
fn odd_values_are_data_and_no_panic() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let long = "n".repeat(255);
    let odd = ["new\nline", "sp ace", "-dash", "\u{7f}", &long];
    for name in odd {
        stack.file(0, name, name);
    }
    shell(
        stack.lower(0),
        "printf x > $'\\xff\\xfe'; touch -d '1901-12-14 00:00 UTC' -- -dash
         setfattr -n user.empty -v '' -- -dash; setfattr -n $'user.\\xff' -v 1 -- -dash",
    );
    stack.twice(
        |at| {
            shell(
                at,
                "chmod 600 -- * $'\\xff\\xfe'; rm -- \"$(printf n%.0s $(seq 255))\"",
            );
            assert_eq!(
                errno(fs::metadata(at.join("m".repeat(256)))),
                libc::ENAMETOOLONG
            );
            assert_eq!(
                errno(File::create(at.join("m".repeat(256)))),
                libc::ENAMETOOLONG
            );
            assert_eq!(errno(File::create(at.join(".wh.x"))), libc::EPERM);
        },
        |at| {
            assert_eq!(fs::read_dir(at).unwrap().count(), 5);
            assert!(!at.join(&long).exists());
            shell(
                at,
                "test \"$(cat $'\\xff\\xfe')\" = x; getfattr -d -m - -- -dash | grep -q empty",
            );
        },
    );
}

/// What can be wrong is found before the mount is there; what comes later is an errno, and the
/// mount lives.
#[test]
fn what_is_wrong_fails_the_mount_or_one_request() {
    support::need_fuse!();
    let mut stack = Stack::new(1);
    stack.file(0, "f", "f");
    stack.options.push("no_such_option".into());
    let output = stack.try_mount();
    assert_eq!(output.status.code(), Some(2));
    stack.options.clear();
    fs::set_permissions(stack.upper(), Permissions::from_mode(0o755)).unwrap();
    let mount = stack.mount();
    // The lower file is taken away under the mount: an error for this file, nothing else.
    fs::remove_file(stack.lower(0).join("f")).unwrap();
    assert!(fs::read(mount.path("f")).is_err());
    fs::write(mount.path("g"), "alive").unwrap();
    assert_eq!(read(mount.path("g")), "alive");
    mount.unmount();
    assert!(Path::new(&stack.log()).exists());
}
