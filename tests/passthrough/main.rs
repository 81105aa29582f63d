//! `io=passthrough`: the kernel reads and writes the real files by itself, and it does not show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use support::transport::own_transports;
use support::{Mount, Stack, mode, read, shell};

/// Bytes that no page is full of zeros in.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at / 7 % 251 + 1).try_into().unwrap())
        .collect()
}

/// Runs a test on a fresh stack over each of our own transports.
fn on_each(test: impl Fn(&Stack, &Mount)) {
    for transport in own_transports() {
        let stack = Stack::new(1)
            .option("io=passthrough")
            .option(&format!("transport={transport}"));
        fs::write(stack.lower(0).join("lower"), pattern(3 << 20)).unwrap();
        let mount = stack.mount();
        test(&stack, &mount);
        mount.unmount();
        stack.assert_work_is_empty();
    }
}

#[test]
fn upper_files_are_read_and_written_by_the_kernel() {
    support::need_fuse!();
    on_each(|stack, mount| {
        let file = mount.path("f");
        fs::write(&file, pattern(1 << 20)).unwrap();
        let before = fs::metadata(&file).unwrap();
        assert_eq!(before.len(), 1 << 20);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&file)
            .unwrap();
        // Only the kernel writes here: the daemon sees no request, and does no work for it.
        let cpu = || fs::read_to_string(format!("/proc/{}/io", mount.pid.unwrap())).unwrap();
        let written = |io: &str| {
            let line = io.lines().find(|line| line.starts_with("wchar")).unwrap();
            line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
        };
        let start = written(&cpu());
        for at in 0..256 {
            open.write_at(&[7; 4096], at * 8192).unwrap();
        }
        assert!(
            written(&cpu()) - start < 100_000,
            "the daemon wrote the data"
        );
        let after = fs::metadata(&file).unwrap();
        assert_eq!(after.len(), 255 * 8192 + 4096);
        assert!((after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));
        let mut page = [0; 4096];
        open.read_exact_at(&mut page, 8192).unwrap();
        assert_eq!(page, [7; 4096]);
        assert_eq!(
            fs::read(&file).unwrap(),
            fs::read(stack.upper().join("f")).unwrap()
        );
        shell(&mount.at, "truncate -s 5 f; printf tail >> f");
        assert_eq!(fs::metadata(&file).unwrap().len(), 9);
        // The name may change and go while the file is open.
        fs::rename(&file, mount.path("g")).unwrap();
        open.write_at(b"start", 0).unwrap();
        assert_eq!(read(mount.path("g")), "starttail");
        fs::remove_file(mount.path("g")).unwrap();
        open.write_at(b"START", 0).unwrap();
        let mut start = [0; 5];
        open.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(&start, b"START");
    });
}

/// Whether a file shows the size and the times of the real one.
fn shows_the_real_times(stack: &Stack, mount: &Mount, name: &str) -> bool {
    let of = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        let (mtime, ctime) = (
            (meta.mtime(), meta.mtime_nsec()),
            (meta.ctime(), meta.ctime_nsec()),
        );
        (meta.len(), meta.blocks(), mtime, ctime)
    };
    of(&mount.path(name)) == of(&stack.upper().join(name))
}

#[test]
fn times_and_sizes_are_right_after_each_way_of_writing() {
    support::need_fuse!();
    // Each step says so and waits to be told to go on.
    let steps = r#"
import mmap, os, sys, time
def step(name):
    print(name, flush=True); sys.stdin.readline()
    time.sleep(0.02)
with open(sys.argv[1], 'r+b', buffering=0) as f:
    step('opened')
    m = mmap.mmap(f.fileno(), 0)
    m[0:3] = b'ONE'; step('mapped')
    f.write(b'written'); step('written')
    f.seek(0, 2); f.write(b'tail'); step('appended')
    os.ftruncate(f.fileno(), 5000); step('cut')
    os.posix_fallocate(f.fileno(), 0, 50000); step('allocated')
m[4:7] = b'TWO'; step('mapped when closed')
m.flush(); m[4097] = 1; step('mapped again')
m.close(); step('unmapped')
"#;
    on_each(|stack, mount| {
        fs::write(stack.lower(0).join("old"), pattern(9000)).unwrap();
        fs::write(mount.path("made"), pattern(9000)).unwrap();
        // Brought into the upper by a change that opens nothing.
        fs::set_permissions(mount.path("lower"), fs::Permissions::from_mode(0o600)).unwrap();
        for name in ["made", "lower"] {
            assert!(shows_the_real_times(stack, mount, name), "{name}");
            let child = std::process::Command::new("timeout")
                .args(["60", "python3", "-c", steps])
                .arg(mount.path(name))
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut child = support::Running(child);
            let mut go_on = child.0.stdin.take().unwrap();
            let said = BufReader::new(child.0.stdout.take().unwrap());
            let mut steps = 0;
            for step in said.lines() {
                let step = step.unwrap();
                assert!(shows_the_real_times(stack, mount, name), "{name}: {step}");
                steps += 1;
                go_on.write_all(b"\n").unwrap();
            }
            assert_eq!(steps, 9);
            assert!(child.0.wait().unwrap().success());
            assert!(shows_the_real_times(stack, mount, name), "{name}");
            let content = fs::read(mount.path(name)).unwrap();
            assert_eq!(content, fs::read(stack.upper().join(name)).unwrap());
            assert_eq!(&content[4..7], b"TWO");
        }
    });
}

#[test]
fn in_a_user_namespace_files_go_through_the_page_cache() {
    support::need_fuse!();
    let script = r#"
mkdir l u w m; head -c 100000 /dev/urandom > l/f; cp l/f same
"$1" mount --lower l --upper u --work w -o io=passthrough,transport=$2 m
cmp m/f same; printf x >> m/f; printf x >> same; cmp m/f same
cp m/f m/g; : > m/f; test ! -s m/f; cmp m/g same
test "$(stat -c %s m/g)" = 100001
"$1" umount m; cmp u/g same"#;
    for transport in own_transports() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::os::unix::fs::chown(dir.path(), Some(64_322), Some(64_322)).unwrap();
        let program = dir.path().join("unionmount");
        fs::copy(support::binary(), &program).unwrap();
        let output = std::process::Command::new("timeout")
            .args(["60", "setpriv", "--reuid=64322", "--regid=64322"])
            .args(["--clear-groups", "unshare", "-Urm", "bash", "-euc", script])
            .arg("bash")
            .arg(&program)
            .arg(transport)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{transport}: {said}");
    }
}

#[test]
fn a_lower_file_that_is_open_is_copied_up_under_its_readers() {
    support::need_fuse!();
    on_each(|stack, mount| {
        let file = mount.path("lower");
        let reader = File::open(&file).unwrap();
        let mut first = [0; 16];
        reader.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first[..], pattern(16)[..]);
        let writer = OpenOptions::new().write(true).open(&file).unwrap();
        writer.write_at(b"changed", 0).unwrap();
        let late = File::open(&file).unwrap();
        for open in [&reader, &late] {
            open.read_exact_at(&mut first, 0).unwrap();
            assert_eq!(&first[..7], b"changed");
        }
        drop((reader, writer, late));
        // Now it is in the upper, for all that open it.
        let mut all = Vec::new();
        File::open(&file).unwrap().read_to_end(&mut all).unwrap();
        assert_eq!(
            (&all[..7], &all[7..]),
            (&b"changed"[..], &pattern(3 << 20)[7..])
        );
        assert_eq!(
            fs::read(stack.lower(0).join("lower")).unwrap(),
            pattern(3 << 20)
        );
        File::create(&file).unwrap().write_all(b"short").unwrap();
        assert_eq!(read(&file), "short");
    });
}

#[test]
fn setuid_goes_with_what_others_write() {
    support::need_fuse!();
    on_each(|_, mount| {
        fs::write(mount.path("f"), "content").unwrap();
        for change in ["printf x >> f", "truncate -s 2 f", ": > f"] {
            fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o6777)).unwrap();
            shell(
                &mount.at,
                &format!("setpriv --reuid 1234 --regid 1234 --clear-groups sh -c '{change}'"),
            );
            assert_eq!(mode(mount.path("f")), 0o777, "{change}");
        }
    });
}

#[test]
fn many_opens_agree_and_give_everything_back() {
    support::need_fuse!();
    on_each(|_, mount| {
        fs::write(mount.path("f"), pattern(10_000)).unwrap();
        let work = |path: &Path| {
            for round in 0..250 {
                let open = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(path)
                    .unwrap();
                open.write_at(&pattern(10_000)[round..][..1], round.try_into().unwrap())
                    .unwrap();
                assert_eq!(fs::read(path).unwrap(), pattern(10_000));
            }
        };
        work(&mount.path("f"));
        let before = mount.descriptors();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| work(&mount.path("f")));
            }
        });
        let after = mount.descriptors();
        // Threads that a busy machine made more of have one each; a leak would be a thousand.
        assert!(after < before + 100, "{before} descriptors became {after}");
    });
}

#[test]
fn a_read_only_mount_passes_all_its_files_through() {
    support::need_fuse!();
    for transport in own_transports() {
        let stack = Stack::new(2)
            .option("io=passthrough")
            .option(&format!("transport={transport}"));
        fs::write(stack.lower(1).join("f"), pattern(3 << 20)).unwrap();
        let mount = stack.mount_read_only("view");
        assert_eq!(fs::read(mount.path("f")).unwrap(), pattern(3 << 20));
        let mapped = "python3 -c '
import mmap
with open(\"f\", \"rb\") as f: print(sum(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:]))'";
        let sum: u64 = pattern(3 << 20).iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(shell(&mount.at, mapped).trim(), sum.to_string());
        mount.unmount();
    }
}
