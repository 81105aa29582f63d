//! The failures in which people lost data to union file systems (`semantics.md`, section 8), each
//! on a live mount and once more after a remount.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::{Stack, blocks, errno, mode, names, read, shell};

const MIB: u64 = 1 << 20;

#[test]
fn case_01_two_names_of_one_lower_inode_stay_one_file() {
    support::need_fuse!();
    let stack = Stack::new(2);
    let first = stack.file(1, "d/one", "old");
    fs::create_dir_all(stack.lower(1).join("e")).unwrap();
    fs::hard_link(&first, stack.lower(1).join("e/two")).unwrap();
    let ino = {
        let mount = stack.mount();
        let (one, two) = (mount.path("d/one"), mount.path("e/two"));
        let (a, b) = (fs::metadata(&one).unwrap(), fs::metadata(&two).unwrap());
        assert_eq!((a.ino(), a.nlink()), (b.ino(), b.nlink()));
        assert_eq!(a.nlink(), 2);
        let mut file = OpenOptions::new().append(true).open(&two).unwrap();
        file.write_all(b" and new").unwrap();
        drop(file);
        assert_eq!(read(&one), "old and new");
        mount.unmount();
        a.ino()
    };
    stack.twice(
        |_| {},
        |at| {
            for name in ["d/one", "e/two"] {
                let meta = fs::metadata(at.join(name)).unwrap();
                assert_eq!(read(at.join(name)), "old and new");
                assert_eq!((meta.ino(), meta.nlink()), (ino, 2), "{name}");
            }
        },
    );
    assert_eq!(read(first), "old");
}

#[test]
fn case_02_times_of_any_century() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let times = [
        ("sixty", "1960-01-01 00:00:00.25 UTC"),
        ("zero", "1970-01-01 00:00:00 UTC"),
        ("before", "1969-12-31 23:59:59.5 UTC"),
        ("future", "2300-06-01 12:00:00.125 UTC"),
    ];
    for (name, time) in times {
        stack.file(0, name, name);
        shell(stack.lower(0), &format!("touch -d '{time}' {name}"));
    }
    let shown = |dir: &Path| shell(dir, "stat -c '%n %.9Y' before future sixty zero");
    let want = shown(stack.lower(0));
    stack.twice(
        |at| {
            // Copied up, and set through the mount.
            shell(
                at,
                "chmod 600 sixty future; touch -d '1960-01-01 00:00:00.25 UTC' new",
            );
        },
        |at| {
            assert_eq!(shown(at), want);
            assert_eq!(
                shell(at, "stat -c %.9Y new"),
                shell(at, "stat -c %.9Y sixty")
            );
        },
    );
}

#[test]
fn case_03_a_tree_removed_and_made_again_twice_is_empty() {
    support::need_fuse!();
    let stack = Stack::new(2);
    stack.file(1, "p/tree/a/b/old", "x");
    stack.file(0, "p/tree/a/other", "x");
    stack.twice(
        |at| {
            shell(
                at,
                "for i in 1 2; do rm -rf p/tree; mkdir -p p/tree/a/b; done",
            );
        },
        |at| {
            assert_eq!(names(at.join("p/tree/a/b")), [""; 0]);
            assert_eq!(names(at.join("p/tree/a")), ["b"]);
            shell(at, "rmdir p/tree/a/b; mkdir p/tree/a/b");
        },
    );
}

#[test]
fn case_04_removing_a_large_lower_file_writes_no_data() {
    support::need_fuse!();
    let stack = Stack::new(1);
    fs::write(stack.lower(0).join("large"), vec![1; 64 << 20]).unwrap();
    stack.twice(
        |at| fs::remove_file(at.join("large")).unwrap(),
        |at| assert!(!at.join("large").exists()),
    );
    assert_eq!(blocks(&stack.upper()), 0);
}

#[test]
fn case_05_holes_stay_holes() {
    support::need_fuse!();
    let stack = Stack::new(1);
    for name in ["chmod", "write"] {
        let file = File::create(stack.lower(0).join(name)).unwrap();
        file.write_all_at(b"data", 16 * MIB).unwrap();
        file.set_len(32 * MIB).unwrap();
    }
    stack.twice(
        |at| {
            fs::set_permissions(at.join("chmod"), Permissions::from_mode(0o600)).unwrap();
            let file = OpenOptions::new()
                .write(true)
                .open(at.join("write"))
                .unwrap();
            file.write_all_at(b"x", 1).unwrap();
        },
        |at| {
            for name in ["chmod", "write"] {
                let meta = fs::metadata(at.join(name)).unwrap();
                assert_eq!(meta.len(), 32 * MIB);
                assert!(meta.blocks() < 64, "{name}: {} blocks", meta.blocks());
                let mut data = [0; 4];
                let file = File::open(at.join(name)).unwrap();
                file.read_exact_at(&mut data, 16 * MIB).unwrap();
                assert_eq!(&data, b"data");
            }
        },
    );
}

#[test]
fn case_06_renaming_a_partly_copied_up_lower_directory_loses_nothing() {
    support::need_fuse!();
    for option in ["redirect_dir=off", "redirect_dir=on", "whiteout=char"] {
        let stack = Stack::new(2).option(option);
        stack.file(1, "d/a", "a");
        stack.file(1, "d/b", "b");
        stack.file(0, "d/sub/c", "c");
        stack.file(1, "d/sub/gone", "x");
        stack.twice(
            |at| {
                fs::write(at.join("d/a"), "changed").unwrap();
                fs::remove_file(at.join("d/sub/gone")).unwrap();
                fs::rename(at.join("d"), at.join("e")).unwrap();
            },
            |at| {
                assert_eq!(names(at), ["e"], "{option}");
                assert_eq!(names(at.join("e")), ["a", "b", "sub"]);
                assert_eq!(names(at.join("e/sub")), ["c"]);
                assert_eq!(read(at.join("e/a")), "changed");
                assert_eq!(read(at.join("e/b")), "b");
                assert_eq!(read(at.join("e/sub/c")), "c");
            },
        );
    }
}

#[test]
fn case_07_a_directory_made_again_hides_what_was_below() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "v/A", "x");
    stack.twice(
        |at| {
            shell(at, "rm -rf v; mkdir v");
        },
        |at| {
            assert_eq!(errno(fs::metadata(at.join("v/A"))), libc::ENOENT);
            assert_eq!(names(at.join("v")), [""; 0]);
        },
    );
}

#[test]
fn case_08_a_reader_from_before_the_copy_up_sees_what_is_written() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let lower = stack.file(0, "f", "old");
    let mount = stack.mount();
    let mut reader = File::open(mount.path("f")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut writer = OpenOptions::new()
        .append(true)
        .open(mount.path("f"))
        .unwrap();
    writer.write_all(b" new").unwrap();
    reader.seek(SeekFrom::Start(0)).unwrap();
    text.clear();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old new");
    drop((reader, writer));
    assert_eq!(read(mount.path("f")), "old new");
    mount.unmount();
    assert_eq!(read(&lower), "old");
    stack.twice(|_| {}, |at| assert_eq!(read(at.join("f")), "old new"));
}

#[test]
fn case_09_a_directory_moved_over_a_hidden_name_shows_nothing_old() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "d/old", "x");
    stack.file(0, "e/old", "x");
    stack.twice(
        |at| {
            shell(
                at,
                "rm -rf d; mkdir new; echo n > new/n; mv -T new d
                 rm -rf e; mkdir e; mkdir new; echo n > new/n; mv -T new e",
            );
        },
        |at| {
            assert_eq!(names(at.join("d")), ["n"]);
            assert_eq!(names(at.join("e")), ["n"]);
        },
    );
}

#[test]
fn case_10_modes_of_copied_up_directories_survive_any_umask() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let modes = [("private", 0o700), ("tmp", 0o1777), ("group", 0o2775)];
    for (name, bits) in modes {
        let dir = stack.directory(0, name);
        fs::set_permissions(dir, Permissions::from_mode(bits)).unwrap();
    }
    stack.twice(
        |at| {
            shell(
                at,
                "umask 077; for d in private tmp group; do echo > $d/f; done",
            );
        },
        |at| {
            for (name, bits) in modes {
                assert_eq!(mode(at.join(name)), bits, "{name}");
            }
        },
    );
}

#[test]
fn case_11_an_unlinked_open_file_works_on() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "lower", "lower");
    stack.twice(
        |at| {
            fs::write(at.join("upper"), "upper").unwrap();
            for name in ["lower", "upper"] {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(at.join(name))
                    .unwrap();
                fs::remove_file(at.join(name)).unwrap();
                // A new file of the same name is another file.
                fs::write(at.join(name), "another").unwrap();
                assert_eq!(file.metadata().unwrap().nlink(), 0, "{name}");
                file.set_permissions(Permissions::from_mode(0o640)).unwrap();
                file.set_len(3).unwrap();
                file.write_all_at(b"XY", 3).unwrap();
                file.sync_all().unwrap();
                let mut text = [0; 16];
                let length = file.read_at(&mut text, 0).unwrap();
                assert_eq!(&text[..length], [&name.as_bytes()[..3], b"XY"].concat());
                let meta = file.metadata().unwrap();
                assert_eq!((meta.len(), meta.mode() & 0o7777), (5, 0o640));
            }
        },
        |at| {
            assert_eq!(read(at.join("lower")), "another");
            assert_eq!(read(at.join("upper")), "another");
        },
    );
}

#[test]
fn case_12_exchange_of_a_file_and_a_merged_directory() {
    support::need_fuse!();
    for option in ["redirect_dir=off", "redirect_dir=on", "whiteout=char"] {
        let stack = Stack::new(2).option(option);
        stack.file(1, "d/lower", "lower");
        stack.file(0, "d/mid/x", "x");
        stack.twice(
            |at| {
                fs::write(at.join("d/upper"), "upper").unwrap();
                fs::write(at.join("f"), "file").unwrap();
                renameat_with(CWD, at.join("f"), CWD, at.join("d"), RenameFlags::EXCHANGE).unwrap();
            },
            |at| {
                assert_eq!(read(at.join("d")), "file", "{option}");
                assert_eq!(names(at.join("f")), ["lower", "mid", "upper"]);
                assert_eq!(read(at.join("f/lower")), "lower");
                assert_eq!(read(at.join("f/mid/x")), "x");
            },
        );
    }
}

#[test]
fn case_13_renamed_lower_names_do_not_come_back() {
    support::need_fuse!();
    for option in ["whiteout=wh", "whiteout=char"] {
        let stack = Stack::new(1).option(option);
        stack.file(0, "a", "a");
        stack.file(0, "b", "b");
        stack.twice(
            |at| {
                fs::remove_file(at.join("b")).unwrap();
                fs::rename(at.join("a"), at.join("b")).unwrap();
            },
            |at| {
                assert_eq!(names(at), ["b"], "{option}");
                assert_eq!(read(at.join("b")), "a");
            },
        );
    }
}

#[test]
fn case_14_setuid_is_cleared_by_others_and_survives_copy_up() {
    support::need_fuse!();
    let stack = Stack::new(1);
    for name in ["written", "changed"] {
        let path = stack.file(0, name, "program");
        chown(&path, Some(1000), Some(1000)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o4777)).unwrap();
    }
    stack.twice(
        |at| {
            let status = support::programs::program("setpriv")
                .args([
                    "--reuid=1001",
                    "--regid=1001",
                    "--clear-groups",
                    "bash",
                    "-c",
                ])
                .arg(format!("echo x >> {}/written", at.display()))
                .status()
                .unwrap();
            assert!(status.success());
            fs::set_permissions(at.join("changed"), Permissions::from_mode(0o4755)).unwrap();
        },
        |at| {
            assert_eq!(mode(at.join("written")), 0o777);
            assert_eq!(mode(at.join("changed")), 0o4755);
            let meta = fs::metadata(at.join("changed")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1000, 1000));
        },
    );
}

#[test]
fn case_15_the_work_directory_has_one_writer_and_no_past() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "f", "f");
    fs::create_dir_all(stack.work().join("work/dir")).unwrap();
    fs::write(stack.work().join("work/0"), "stale").unwrap();
    fs::write(stack.work().join("work/dir/1"), "stale").unwrap();
    let mount = stack.mount();
    stack.assert_work_is_empty();
    fs::write(mount.path("new"), "").unwrap();
    assert_eq!(read(mount.path("new")), "");
    let started = std::time::Instant::now();
    let second = Command::new(support::binary())
        .args(["mount", "--lower"])
        .arg(stack.lower(0))
        .arg("--upper")
        .arg(stack.upper())
        .arg("--work")
        .arg(stack.work())
        .arg(stack.directory(0, "../second"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(message.contains("in use by another mount"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1);
    assert!(started.elapsed().as_secs() < 13);
    let beside = stack.mount_read_only("beside");
    fs::write(mount.path("closed"), "seen").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(read(beside.path("closed")), "seen");
    assert_eq!(errno(fs::write(beside.path("x"), "")), libc::EROFS);
    beside.unmount();
    assert_eq!(read(mount.path("closed")), "seen");
    mount.unmount();
    stack.twice(|_| {}, |at| assert_eq!(names(at), ["closed", "f", "new"]));
}

#[test]
fn case_16_a_layer_without_xattrs_does_not_spoil_the_others() {
    support::need_fuse!();
    let stack = Stack::new(2);
    stack.file(1, "d/kept", "kept");
    shell(
        stack.lower(1),
        "setfattr -n user.x -v 1 d/kept; setfacl -m u:7:r d/kept",
    );
    shell(
        stack.dir.path(),
        "mount -t ramfs none l0; mkdir l0/d; echo plain > l0/d/plain
         ! setfattr -n user.x -v 1 l0/d/plain 2>/dev/null",
    );
    let layer = support::Mount::found(stack.lower(0).to_owned());
    stack.twice(
        |_| {},
        |at| {
            shell(
                at,
                "test \"$(getfattr --only-values -n user.x d/kept)\" = 1
                 getfacl -cn d/kept | grep -q user:7:r--
                 getfattr -d -m - d/plain
                 getfacl d/plain >/dev/null
                 cat d/plain >/dev/null
                 echo more >> d/plain",
            );
        },
    );
    drop(layer);
}

#[test]
fn case_17_a_hundred_thousand_entries_at_a_constant_cost() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let many = 100_000;
    let mount = stack.mount();
    let dir = mount.path("many");
    fs::create_dir(&dir).unwrap();
    let time = |from: usize, to: usize| {
        let start = std::time::Instant::now();
        for i in from..to {
            File::create(dir.join(format!("entry-{i}"))).unwrap();
        }
        start.elapsed()
    };
    let first = time(0, 10_000);
    time(10_000, many - 10_000);
    let last = time(many - 10_000, many);
    println!("first 10,000 creates: {first:?}, last 10,000: {last:?}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), many);
    // Quadratic costs would make the last ones many times as slow; the disk's own noise does not.
    assert!(last < first * 6, "{first:?} {last:?}");
    mount.unmount();
    let mount = stack.mount();
    let dir = mount.path("many");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), many);
    for i in 0..many {
        fs::remove_file(dir.join(format!("entry-{i}"))).unwrap();
    }
    fs::remove_dir(&dir).unwrap();
    mount.unmount();
}

#[test]
fn case_18_descriptors_and_memory_stay_bounded() {
    support::need_fuse!();
    let stack = Stack::new(1);
    for i in 0..5000 {
        stack.file(0, &format!("maps/{i}"), "mapped file");
    }
    let mount = stack.mount();
    let pairs = 262_144;
    let dir = mount.path("d");
    for _ in 0..1000 {
        fs::create_dir(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
    }
    let (fds, memory) = (mount.descriptors(), mount.status("VmRSS"));
    for _ in 0..pairs {
        fs::create_dir(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
    }
    let (fds_after, memory_after) = (mount.descriptors(), mount.status("VmRSS"));
    println!(
        "{pairs} mkdir/rmdir: fds {fds} -> {fds_after}, memory {memory} -> {memory_after} KiB"
    );
    assert!(fds_after <= fds + 8);
    assert!(memory_after <= memory + 16 * 1024);
    shell(
        &mount.at,
        "python3 - <<'EOF'
import mmap
maps = []
for i in range(5000):
    with open(f'maps/{i}', 'rb') as f:
        maps.append(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
assert all(bytes(m) == b'mapped file' for m in maps)
EOF",
    );
    let limit: usize = shell("/", "ulimit -n").trim().parse().unwrap();
    let fds = mount.descriptors();
    println!(
        "5000 mapped files: fds {fds}, memory {} KiB",
        mount.status("VmRSS")
    );
    assert!(fds < limit / 2 + 64);
    mount.unmount();
}

#[test]
fn case_19_impossible_directories_are_refused_with_a_cure() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let dir = stack.dir.path();
    fs::create_dir_all(stack.upper().join("sub")).unwrap();
    fs::create_dir_all(stack.lower(0).join("sub")).unwrap();
    fs::create_dir_all(stack.merged().join("inside")).unwrap();
    let cases = [
        ("l0", "l0", "work", "merged"),
        ("l0", "l0/sub", "work", "merged"),
        ("upper/sub", "upper", "work", "merged"),
        ("l0", "upper", "/dev/shm", "merged"),
        ("missing", "upper", "work", "merged"),
        ("l0", "missing", "work", "merged"),
        ("l0", "upper", "missing", "merged"),
        ("l0", "upper", "work", "missing"),
        ("l0", "upper", "upper", "merged"),
        ("l0", "merged/inside", "work", "merged"),
    ];
    for (lower, upper, work, merged) in cases {
        let output = Command::new(support::binary())
            .current_dir(dir)
            .args(["mount", "--lower", lower, "--upper", upper, "--work", work])
            .arg(merged)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{lower} {upper} {work} {merged}"
        );
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        assert!(message.contains(';'), "no cure: {message}");
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()));
}

#[test]
fn case_20_permissions_of_the_caller_not_of_the_daemon() {
    support::need_fuse!();
    let stack = Stack::new(1);
    for (dir, mode) in [("own", 0o777), ("shared", 0o777)] {
        let path = stack.directory(0, dir);
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let script = stack.file(0, "shared/text", "one\n");
    fs::set_permissions(script, Permissions::from_mode(0o666)).unwrap();
    let as_user = |at: &Path, script: &str| {
        shell(
            at,
            &format!(
                "setpriv --reuid=1001 --regid=1001 --clear-groups bash -euc {}",
                shell_quote(script)
            ),
        )
    };
    stack.twice(
        |at| {
            as_user(
                at,
                "umask 022
                 mkdir -m 0555 own/readonly
                 ! touch own/readonly/x 2>/dev/null
                 sed -i s/one/two/ shared/text
                 mkdir own/closed; chmod a-rw own/closed; ! ls own/closed 2>/dev/null",
            );
            // A descriptor works on whatever the mode that its file was created with.
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o0)
                .open(at.join("secret"))
                .unwrap();
            (&file).write_all(b"hidden").unwrap();
        },
        |at| {
            assert_eq!(mode(at.join("own/readonly")), 0o555);
            assert_eq!(mode(at.join("own/closed")), 0o111);
            assert_eq!(read(at.join("shared/text")), "two\n");
            assert_eq!(fs::metadata(at.join("shared/text")).unwrap().uid(), 1001);
            assert_eq!(mode(at.join("secret")), 0);
            assert_eq!(read(at.join("secret")), "hidden");
            as_user(at, "! cat secret 2>/dev/null");
        },
    );
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
