//! What POSIX and Linux promise of files, step by step on a mount and on its disk: both must answer
//! alike.
//!
//! The steps are `tests/posix/steps.py`: what clears setuid, setgid and capabilities, ACLs and whom
//! they let in, locks, and the calls that no other suite makes. They start from files of a lower
//! layer, and from new files; what they leave is compared once more after a remount. File handles
//! have a test of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use support::transport::{transports, usual};
use support::{Stack, shell};

/// What FUSE's part of the kernel decides by itself, before we are asked: lines of these beginnings
/// are left out.
const KERNELS_OWN: [&str; 8] = [
    // chown(2) of neither owner nor group takes no bits away.
    "chown-nothing-",
    // FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE do not reach us, and what comes after
    // them has another size.
    "fallocate 8 ",
    "fallocate 16 ",
    "fallocate 17 ",
    "fallocate 32 ",
    "fallocate 64 ",
    "fallocate 5 ",
    "fallocate 128 ",
];

/// What the kernel answers by itself, whatever the mount would (see src/guide/limits.md).
fn is_left_out(line: &str) -> bool {
    let known = |beginning: &&str| line.contains(*beginning);
    KERNELS_OWN.iter().any(known)
}

fn steps(action: &str, section: &str, dir: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posix/steps.py");
    let output = support::programs::program("python3")
        .arg("-B")
        .arg(script)
        .args([action, section])
        .arg(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{action} {section}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_alike(what: &str, disk: &str, mount: &str) {
    let differ: Vec<_> = disk
        .lines()
        .zip(mount.lines())
        .filter(|(disk, mount)| disk != mount && !is_left_out(disk))
        .take(20)
        .map(|(disk, mount)| format!("disk:  {disk}\nmount: {mount}"))
        .collect();
    assert!(differ.is_empty(), "{what}:\n{}", differ.join("\n"));
    assert_eq!(disk.lines().count(), mount.lines().count(), "{what}");
    assert!(!disk.is_empty(), "{what}");
}

/// A directory on the same disk, open to everybody.
fn plain(stack: &Stack) -> PathBuf {
    let plain = stack.dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    plain
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Takes the steps of a section on the disk and on a mount of it, from lower files and from new
/// ones.
fn compare(section: &str) {
    for from_lower in [true, false] {
        // Hundreds of copies need not each be on the disk.
        let stack = Stack::new(1).option("volatile");
        let plain = plain(&stack);
        let merged = stack.merged();
        for path in [&plain, &stack.upper(), &stack.lower(0).to_path_buf()] {
            open_to_all(path);
        }
        steps("prepare", section, &plain);
        if from_lower {
            steps("prepare", section, stack.lower(0));
        }
        let mount = stack.mount();
        if !from_lower {
            steps("prepare", section, &merged);
        }
        let on_disk = steps("run", section, &plain);
        let on_mount = steps("run", section, &merged);
        let origin = if from_lower { "lower" } else { "new" };
        assert_alike(&format!("{section}, {origin} files"), &on_disk, &on_mount);
        mount.unmount();
        stack.assert_work_is_empty();
        let mount = stack.mount();
        assert_alike(
            &format!("{section}, {origin} files, remounted"),
            &steps("describe", section, &plain),
            &steps("describe", section, &merged),
        );
        mount.unmount();
    }
}

#[test]
fn setuid_setgid_and_capabilities_go_and_stay_as_on_the_disk() {
    support::need_fuse!();
    compare("setid");
}

#[test]
fn acls_let_in_and_inherit_as_on_the_disk() {
    support::need_fuse!();
    compare("acl");
}

#[test]
fn locks_exclude_as_on_the_disk() {
    support::need_fuse!();
    compare("locks");
}

#[test]
fn the_other_calls_answer_as_on_the_disk() {
    support::need_fuse!();
    if usual() == "fuser" {
        return eprintln!("skipped: fuser has no O_TMPFILE");
    }
    compare("calls");
}

/// With `nfs_export=on` a handle is good for as long as its file, whatever the kernel forgets.
#[test]
fn a_handle_of_an_exported_mount_outlives_the_kernels_caches() {
    support::need_fuse!();
    for transport in support::transport::transports() {
        let stack = Stack::new(1)
            .option("nfs_export=on")
            .option(&format!("transport={transport}"));
        stack.file(0, "d/e/lower", "lower");
        stack.file(0, "d/changes", "old");
        stack.file(0, "d/removed", "old");
        let mount = stack.mount();
        shell(&mount.at, "mkdir n; echo -n new >n/new; ln n/new n/other");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posix/handles.py");
        let handles = |action: &str| {
            shell(
                stack.merged(),
                &format!("exec python3 -B {} {action} . ../handles", script.display()),
            )
        };
        let forget = || {
            shell(&mount.at, "sync -f .");
            support::caches::forget();
            std::thread::sleep(Duration::from_millis(100));
        };
        handles("make");
        forget();
        let all = "d/changes old\nd/e/lower lower\nd/removed old\nn/new new\nn/other new\n";
        assert_eq!(handles("open"), all, "{transport}");
        forget();
        shell(
            &mount.at,
            "echo -n newer >d/changes; mv d/e/lower n/moved; mv n d/e/n2; rm d/removed d/e/n2/new; echo >d/new",
        );
        forget();
        let changed =
            "d/changes newer\nd/e/lower lower\nd/removed ESTALE\nn/new new\nn/other new\n";
        assert_eq!(handles("open"), changed, "{transport}");
        shell(&mount.at, "rm -r d");
        forget();
        let gone: String = changed
            .lines()
            .map(|line| format!("{} ESTALE\n", line.split(' ').next().unwrap()))
            .collect();
        assert_eq!(handles("open"), gone, "{transport}");
        mount.unmount();
    }
}

#[test]
fn a_handle_opens_what_it_was_made_of_or_nothing() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "d/e/lower", "lower");
    stack.file(0, "d/changes", "old");
    let mount = stack.mount();
    shell(&mount.at, "mkdir n; echo -n new >n/new; ln n/new n/other");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posix/handles.py");
    let handles = |action: &str| {
        shell(
            stack.merged(),
            &format!("exec python3 -B {} {action} . ../handles", script.display()),
        )
    };
    // Without `nfs_export` handles are good for what the kernel knows: that, whatever the machine
    // is short of.
    let remembered = support::caches::remembered();
    let known = ["d/changes", "d/e/lower", "n/new"].map(|name| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::open(mount.path(name), flags, Mode::empty()).unwrap()
    });
    handles("make");
    let all = "d/changes old\nd/e/lower lower\nn/new new\nn/other new\n";
    assert_eq!(handles("open"), all);
    // What was copied up, moved or linked is the same object; a removed one is gone.
    let held = fs::File::open(mount.path("n/new")).unwrap();
    shell(
        &mount.at,
        "echo -n newer >d/changes; mv d/e/lower n/moved; rm n/new",
    );
    let changed = "d/changes newer\nd/e/lower lower\nn/new new\nn/other new\n";
    assert_eq!(handles("open"), changed);
    drop((held, known));
    shell(&mount.at, "rm n/other");
    let removed = "d/changes newer\nd/e/lower lower\nn/new ESTALE\nn/other ESTALE\n";
    assert_eq!(handles("open"), removed);
    // The kernel may have forgotten what is not in use.
    drop(remembered);
    support::caches::forget();
    for (now, before) in handles("open").lines().zip(removed.lines()) {
        let (name, _) = before.split_once(' ').unwrap();
        assert!(now == before || now == format!("{name} ESTALE"), "{now}");
    }
    mount.unmount();
    // A handle of one mount means nothing on the next.
    let mount = stack.mount();
    for line in handles("open").lines() {
        assert!(line.ends_with(" ESTALE"), "{line}");
    }
    mount.unmount();
}

/// A call that looks at the mode alone, as execve(2) does, must not see the one from before a write
/// by another user.
#[test]
fn a_cleared_mode_is_not_cached_any_more() {
    support::need_fuse!();
    for transport in transports() {
        for writeback in ["writeback=0", "writeback=1"] {
            let stack = Stack::new(1)
                .option(&format!("transport={transport}"))
                .option(writeback);
            let names = ["written", "longer", "copied"];
            for name in names {
                let program = stack.file(0, name, "#!/bin/sh\nid -u\n");
                fs::set_permissions(&program, fs::Permissions::from_mode(0o6777)).unwrap();
            }
            let mount = stack.mount();
            let before = names.map(|name| format!("stat -c %a {name}")).join(";");
            assert_eq!(shell(&mount.at, &before), "6777\n".repeat(3));
            let change = "import os
os.setgroups([]); os.setgid(1234); os.setuid(1234)
open('written', 'a').write('true')
os.posix_fallocate(os.open('longer', 2), 0, 4096)
os.copy_file_range(os.open('written', 0), os.open('copied', 2), 5)";
            // stat(1) asks for no more than it prints.
            let after = shell(&mount.at, &format!("python3 -c \"{change}\"; {before}"));
            assert_eq!(after, "777\n".repeat(3), "{transport}, {writeback}");
        }
    }
}

/// What stat(2) says of directories.
fn links(at: &Path, names: &[&str]) -> Vec<u64> {
    let one = |name: &&str| fs::metadata(at.join(name)).unwrap().nlink();
    names.iter().map(one).collect()
}

#[test]
fn directories_count_nothing_where_that_was_asked_for() {
    support::need_fuse!();
    let stack = Stack::new(1).option("static_nlink");
    stack.directory(0, "one/a");
    let mount = stack.mount();
    shell(&mount.at, "mkdir -p new/a");
    assert_eq!(links(&mount.at, &["one", "new", "new/a"]), [1, 1, 1]);
    mount.unmount();
}

#[test]
fn directories_count_their_subdirectories_where_one_layer_has_them() {
    support::need_fuse!();
    for transport in support::transport::transports() {
        let stack = Stack::new(2).option(&format!("transport={transport}"));
        for dir in ["one/a/c", "one/b", "both/x", "tree/sub/in"] {
            stack.directory(0, dir);
        }
        for dir in ["both/y", "deep/er", "tree/sub", "opaque/a"] {
            stack.directory(1, dir);
        }
        stack.file(1, "deep/er/f", "");
        stack.file(1, "tree/sub/g", "");
        if links(stack.lower(0), &["one"]) != [4] {
            eprintln!("skipped: this disk does not count subdirectories");
            return;
        }
        let mount = stack.mount();
        let at = &mount.at;
        let first = [
            ".", "one", "one/a", "both", "deep", "deep/er", "tree", "tree/sub", "opaque",
        ];
        // The kernel remembers what it was told here.
        assert_eq!(links(at, &first), [1, 4, 3, 1, 3, 2, 1, 1, 3]);
        shell(at, "mkdir new new/a new/b other; touch new/f one/a/f");
        // A directory that was copied up is in two layers.
        assert_eq!(
            links(at, &["new", "other", "one", "one/a", "one/a/c"]),
            [4, 2, 1, 1, 2]
        );
        fs::write(at.join("deep/er/f"), "changed").unwrap();
        assert_eq!(links(at, &["deep", "deep/er"]), [1, 1]);
        shell(at, "mv new/a other; rmdir new/b");
        assert_eq!(links(at, &["new", "other"]), [2, 3]);
        let (from, to) = (at.join("other/a"), at.join("new/f"));
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, exchange).unwrap();
        assert_eq!(links(at, &["new", "other"]), [3, 2]);
        shell(
            at,
            "mkdir other/over; mkdir new/over; mv -T other/over new/over; rm -r opaque; mkdir opaque",
        );
        assert_eq!(links(at, &["new", "other", "opaque"]), [4, 2, 2]);
        // Renamed, it is in the upper with all that is below it.
        shell(at, "mv tree moved");
        let last = [
            "moved",
            "moved/sub",
            "moved/sub/in",
            "both",
            "new",
            "opaque",
            "one",
            "deep",
        ];
        let seen = links(at, &last);
        assert_eq!(seen, [3, 3, 2, 1, 4, 2, 1, 1]);
        mount.unmount();
        let mount = stack.mount();
        assert_eq!(links(&mount.at, &last), seen, "{transport}");
    }
}
