//! What our own transports carry and fuser does not, seen from a program: each on /dev/fuse and on
//! io_uring.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use support::transport::own_transports;
use support::{Mount, Stack, errno, mode, names, read, shell};

/// Takes a mount away again, also when the test fails.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking());
    }
}

/// Runs a test on a fresh stack over each of our own transports that work here.
fn on_each(test: impl Fn(&Stack, &Mount)) {
    for transport in own_transports() {
        let stack = Stack::new(1).option(&format!("transport={transport}"));
        stack.file(0, "lower", "old");
        let mount = stack.mount();
        test(&stack, &mount);
        mount.unmount();
        stack.assert_work_is_empty();
    }
}

/// What a daemon took for many and large requests it gives back when there is nothing to do.
#[test]
fn memory_is_given_back() {
    support::need_fuse!();
    on_each(|_, mount| {
        shell(&mount.at, "echo >f; cat f; sync -f .");
        support::caches::forget();
        std::thread::sleep(Duration::from_millis(200));
        let memory = || mount.status("VmRSS");
        let threads = || mount.status("Threads");
        let before = (memory(), threads());
        // Each thread gets large requests, and many inodes are known.
        let busy = "
            for i in 1 2 3 4; do dd if=/dev/zero of=big$i bs=1M count=12 oflag=direct 2>/dev/null & done; wait
            for i in 1 2 3 4; do dd if=big$i of=/dev/null bs=1M iflag=direct 2>/dev/null & done; wait
            mkdir many; (cd many; seq 4000 | xargs touch); ls -l many >/dev/null";
        let remembered = support::caches::remembered();
        shell(&mount.at, busy);
        let most = mount.status("VmHWM");
        assert!(most > before.0 + 5 * 1024, "{before:?} KiB, then {most}");
        drop(remembered);
        shell(&mount.at, "rm -r many big*; sync -f .");
        support::caches::forget();
        let begun = std::time::Instant::now();
        while memory() > before.0 + 4 * 1024 || threads() > before.1 {
            let now = (memory(), threads());
            assert!(
                begun.elapsed() < Duration::from_secs(8),
                "{before:?} KiB and threads before, then {most}, now {now:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

fn unnamed(dir: &Path, mode: u32) -> File {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::from_raw_mode(mode)).unwrap();
    File::from(fd)
}

#[test]
fn a_file_without_a_name_gets_one() {
    support::need_fuse!();
    on_each(|stack, mount| {
        fs::create_dir(mount.path("d")).unwrap();
        let mut file = unnamed(&mount.path("d"), 0o640);
        file.write_all(b"content").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert!(names(mount.path("d")).is_empty());
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |to: &str| {
            let cwd = rustix::fs::CWD;
            rustix::fs::linkat(cwd, &name, cwd, mount.path(to), AtFlags::SYMLINK_FOLLOW)
        };
        link("d/f").unwrap();
        link("g").unwrap();
        assert_eq!(link("lower"), Err(rustix::io::Errno::EXIST));
        let known = file.metadata().unwrap();
        assert_eq!(known.nlink(), 2);
        for path in ["d/f", "g"] {
            let named = fs::metadata(mount.path(path)).unwrap();
            assert_eq!((named.ino(), named.nlink()), (known.ino(), 2));
            assert_eq!(read(mount.path(path)), "content");
            assert_eq!(mode(mount.path(path)), 0o640);
            assert_eq!(read(stack.upper().join(path)), "content");
        }
        // One that never got a name leaves nothing.
        drop(unnamed(&mount.at, 0o600));
    });
}

#[test]
fn statx_tells_when_a_file_was_made() {
    support::need_fuse!();
    on_each(|stack, mount| {
        let born = |path: &Path| {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let found = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::BTIME).unwrap();
            assert!(found.stx_mask & StatxFlags::BTIME.bits() != 0);
            (found.stx_btime.tv_sec, found.stx_btime.tv_nsec)
        };
        assert_eq!(
            born(&mount.path("lower")),
            born(&stack.lower(0).join("lower"))
        );
        fs::write(mount.path("new"), "x").unwrap();
        assert_eq!(born(&mount.path("new")), born(&stack.upper().join("new")));
    });
}

#[test]
fn inode_flags_are_shown_and_set() {
    support::need_fuse!();
    on_each(|stack, mount| {
        if !Command::new("lsattr")
            .arg(stack.lower(0))
            .output()
            .unwrap()
            .status
            .success()
        {
            return eprintln!("skipped: this disk has no inode flags");
        }
        shell(&mount.at, "lsattr lower && lsattr -d . && lsattr -v lower");
        shell(
            &mount.at,
            "touch f && mkdir d && chattr +d f lower && chattr +A d",
        );
        for path in ["f", "lower"] {
            let shown = shell(&mount.at, &format!("lsattr {path}"));
            assert!(shown.split(' ').next().unwrap().contains('d'), "{shown}");
            let stored = shell(stack.upper(), &format!("lsattr {path}"));
            assert!(stored.split(' ').next().unwrap().contains('d'), "{stored}");
        }
        let below = shell(stack.lower(0), "lsattr lower");
        assert!(!below.split(' ').next().unwrap().contains('d'), "{below}");
        assert!(shell(&mount.at, "lsattr -d d").contains('A'));
        // Immutable is immutable, and can be taken back.
        shell(&mount.at, "chattr +i f");
        assert_eq!(errno(fs::write(mount.path("f"), "x")), libc::EPERM);
        assert_eq!(errno(fs::remove_file(mount.path("f"))), libc::EPERM);
        shell(&mount.at, "chattr -i f && echo x > f && rm f");
    });
}

#[test]
fn a_handle_opens_what_the_kernel_knows() {
    support::need_fuse!();
    on_each(|_, mount| {
        let script = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
handle, number = Handle(128), ctypes.c_int()
keep = os.open('lower', os.O_RDONLY)
assert libc.name_to_handle_at(-100, b'lower', ctypes.byref(handle), ctypes.byref(number), 0) == 0
at = os.open('.', os.O_RDONLY)
fd = libc.open_by_handle_at(at, ctypes.byref(handle), os.O_RDONLY)
assert fd >= 0, os.strerror(ctypes.get_errno())
print(os.read(fd, 10).decode())
";
        fs::write(mount.path("script.py"), script).unwrap();
        assert_eq!(shell(&mount.at, "python3 script.py").trim(), "old");
    });
}

#[test]
fn an_idmapped_mount_shows_other_owners() {
    support::need_fuse!();
    on_each(|stack, mount| {
        fs::set_permissions(&mount.at, fs::Permissions::from_mode(0o777)).unwrap();
        let other = stack.dir.path().join("other");
        fs::create_dir(&other).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/requests/idmapped.py");
        let (from, to) = (mount.at.display(), other.display());
        let mounted = support::programs::program("python3")
            .args([script, &from.to_string(), &to.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "{said}");
        let _guard = Unmount(other.clone());
        let owner = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        assert_eq!(owner(&other.join("lower")), (10_000, 10_000));
        let as_user = "setpriv --reuid 10005 --regid 10005 --clear-groups";
        shell(
            &other,
            &format!(
                "{as_user} sh -c 'echo hi > f; mkdir d; ln -s x s; mkfifo p; fallocate -l 9 f'"
            ),
        );
        for path in ["f", "d"] {
            assert_eq!(owner(&other.join(path)), (10_005, 10_005));
            assert_eq!(owner(&mount.path(path)), (5, 5));
            assert_eq!(owner(&stack.upper().join(path)), (5, 5));
        }
        // No user outside of the mapping can own anything (EOVERFLOW, as on ext4).
        assert_eq!(errno(File::create(other.join("root"))), libc::EOVERFLOW);
        assert!(!mount.path("root").exists());
    });
}

#[test]
fn setuid_goes_with_what_others_write_whichever_call_it_is() {
    support::need_fuse!();
    on_each(|_, mount| {
        let user = "setpriv --reuid 1234 --regid 1234 --clear-groups";
        // Root with all its capabilities may keep the bits.
        let confined = "setpriv --bounding-set -fsetid --inh-caps -fsetid";
        for (who, call, left) in [
            (user, "printf x >> f", 0o777),
            (user, "truncate -s 2 f", 0o777),
            (user, "fallocate -l 99 f", 0o777),
            (user, ": > f", 0o777),
            (confined, "fallocate -l 99 f", 0o777),
            ("", "fallocate -l 99 f", 0o6777),
            ("", "truncate -s 2 f", 0o6777),
            ("", "printf x >> f", 0o6777),
        ] {
            fs::write(mount.path("f"), "content").unwrap();
            fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o6777)).unwrap();
            shell(&mount.at, &format!("{who} sh -c '{call}'"));
            assert_eq!(mode(mount.path("f")), left, "{who} {call}");
            fs::remove_file(mount.path("f")).unwrap();
        }
    });
}

#[test]
fn an_acl_takes_setgid_from_who_is_not_in_the_group() {
    support::need_fuse!();
    on_each(|_, mount| {
        let file = mount.path("f");
        fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(1234), Some(77)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o2775)).unwrap();
        shell(
            &mount.at,
            "setpriv --reuid 1234 --regid 77 --clear-groups setfacl -m u:5:r f",
        );
        assert_eq!(mode(&file), 0o2775);
        shell(
            &mount.at,
            "setpriv --reuid 1234 --regid 1234 --clear-groups setfacl -m u:5:rw f",
        );
        assert_eq!(mode(&file) & 0o2000, 0);
    });
}

#[test]
fn a_large_copy_is_one_call() {
    support::need_fuse!();
    on_each(|_, mount| {
        const SIZE: u64 = 64 << 20;
        let from = File::create_new(mount.path("from")).unwrap();
        from.set_len(SIZE).unwrap();
        from.write_at(b"end", SIZE - 3).unwrap();
        let from = File::open(mount.path("from")).unwrap();
        let to = File::create_new(mount.path("to")).unwrap();
        let size = usize::try_from(SIZE).unwrap();
        let copied = rustix::fs::copy_file_range(&from, None, &to, None, size).unwrap();
        assert_eq!(copied, size);
        let mut end = [0; 3];
        File::open(mount.path("to"))
            .unwrap()
            .read_exact_at(&mut end, SIZE - 3)
            .unwrap();
        assert_eq!(&end, b"end");
    });
}

/// What happens in a layer behind the mount's back is news for those who watch a file of the mount.
#[test]
fn watchers_hear_of_what_others_remove() {
    support::need_fuse!();
    for transport in own_transports() {
        let stack = Stack::new(1)
            .option("cache=auto")
            .option(&format!("transport={transport}"));
        let below = stack.file(0, "f", "old");
        let mount = stack.mount();
        assert_eq!(read(mount.path("f")), "old");
        let script = "
import ctypes, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init()
assert libc.inotify_add_watch(watch, b'f', 0x400) >= 0
print('watching', flush=True)
print('gone' if select.select([watch], [], [], 20)[0] else 'no event')
";
        let mut child = support::programs::program("python3")
            .args(["-c", script])
            .current_dir(&mount.at)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "watching");
        fs::remove_file(below).unwrap();
        // The directory is looked at now and then, not the name.
        while child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(100));
            names(&mount.at);
        }
        assert!(names(&mount.at).is_empty());
        assert_eq!(said.next().unwrap().unwrap(), "gone");
        assert!(child.wait().unwrap().success());
        mount.unmount();
    }
}
