//! Unmounting, aborting, signals, kill -9.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::Signal;

use super::guard::{
    Limit, Load, SOON, Stopped, on_each, signal, stack, umount, wait_for_end, wait_until,
};
use support::transport::{abort, connection};
use support::{Mount, Stack, names, read};

/// Longer than what one read brings into the page cache.
const LARGE: usize = 8 << 20;

fn mounted(at: &std::path::Path) -> bool {
    connection(at).is_some()
}

#[test]
fn a_busy_mount_is_not_unmounted_and_goes_on_serving() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        stack.file(0, "g", "g");
        let mount = limit.mount(&stack);
        let open = File::open(mount.path("f")).unwrap();
        let load = Load::start(&mount.at, "0", None);
        let plain = rustix::mount::unmount(&mount.at, UnmountFlags::empty());
        assert_eq!(plain, Err(Errno::BUSY));
        let ours = umount(&mount.at, &[]);
        let message = String::from_utf8_lossy(&ours.stderr);
        assert_eq!(ours.status.code(), Some(1), "{message}");
        let me = std::process::id().to_string();
        assert!(message.contains(&me), "it names who is there: {message}");
        let theirs = Command::new("umount").arg(&mount.at).output().unwrap();
        assert!(!theirs.status.success());
        let before = names(&mount.at).len();
        assert!(before >= 2, "{before}");
        assert_eq!(read(mount.path("g")), "g");
        fs::write(mount.path("new"), "new").unwrap();
        assert!(load.end() > 0);
        let mut byte = [0];
        open.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(&byte, b"f");
        drop(open);
        mount.unmount();
        stack.assert_work_is_empty();
    });
}

#[test]
fn a_lazily_unmounted_mount_serves_the_file_that_is_open() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "large", &"x".repeat(LARGE));
        let mount = limit.mount(&stack);
        let open = File::open(mount.path("large")).unwrap();
        let new = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(mount.path("new"))
            .unwrap();
        let status = umount(&mount.at, &["--lazy"]);
        assert!(status.status.success(), "{status:?}");
        assert!(!mounted(&mount.at) && names(&mount.at).is_empty());
        let mut bytes = vec![0; 4096];
        open.read_exact_at(&mut bytes, (LARGE - 4096) as u64)
            .unwrap();
        assert!(bytes.iter().all(|byte| *byte == b'x'));
        new.write_all_at(b"written without a name", 0).unwrap();
        new.sync_all().unwrap();
        drop(open);
        std::thread::sleep(std::time::Duration::from_millis(100));
        new.write_all_at(b"WRITTEN", 0).unwrap();
        drop(new);
        wait_for_end(&mount);
        let again = limit.mount(&stack);
        assert_eq!(read(again.path("new")), "WRITTEN without a name");
        again.unmount();
    });
}

/// Callers that wait for a daemon which does not answer: they ask for names that were not asked for
/// before.
struct Callers(Vec<JoinHandle<std::io::Result<fs::Metadata>>>);

impl Callers {
    const COUNT: usize = 6;

    fn start(mount: &Mount) -> Self {
        let paths: Vec<PathBuf> = (0..Self::COUNT)
            .map(|n| mount.path(format!("asked-{n}")))
            .collect();
        let ask = |path: PathBuf| std::thread::spawn(move || fs::symlink_metadata(path));
        let callers = Self(paths.into_iter().map(ask).collect());
        let waiting = format!(
            "/sys/fs/fuse/connections/{}/waiting",
            mount.connection.unwrap()
        );
        wait_until("requests are under way", || {
            read(&waiting).trim().parse::<usize>().unwrap() >= Self::COUNT
        });
        callers
    }

    /// All of them get an error, soon, which says that there is no connection.
    fn assert_freed(self) {
        let started = Instant::now();
        while !self.0.iter().all(JoinHandle::is_finished) {
            assert!(started.elapsed() < SOON, "callers are not freed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for caller in self.0 {
            let error = caller.join().unwrap().unwrap_err().raw_os_error().unwrap();
            assert!(
                // ECANCELED: io_uring could not hand the request over any more.
                [libc::ECONNABORTED, libc::ENOTCONN, libc::ECANCELED].contains(&error),
                "errno {error}"
            );
        }
    }
}

/// The mount is dead: unmounting is immediate, and mounting again works.
fn unmount_and_mount_again(stack: &Stack, mount: Mount, limit: &Limit) {
    let started = Instant::now();
    rustix::mount::unmount(&mount.at, UnmountFlags::empty()).unwrap();
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    drop(mount);
    let again = limit.mount(stack);
    assert_eq!(read(again.path("f")), "f");
    fs::write(again.path("new"), "new").unwrap();
    again.unmount();
    stack.assert_work_is_empty();
}

#[test]
fn an_aborted_mount_frees_its_callers_and_its_daemon_ends() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        let mount = limit.mount(&stack);
        assert_eq!(read(mount.path("f")), "f");
        let stopped = Stopped::new(&mount);
        let callers = Callers::start(&mount);
        abort(mount.connection.unwrap());
        if transport == "uring" {
            // What the kernel wants to hand over to a thread that is stopped is freed when that
            // goes on. Requests that a thread is working on are freed at once, see `stuck.rs`.
            drop(stopped);
            callers.assert_freed();
        } else {
            callers.assert_freed();
            drop(stopped);
        }
        wait_for_end(&mount);
        unmount_and_mount_again(&stack, mount, limit);
    });
}

#[test]
fn a_mount_aborted_under_load_ends() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        let mount = limit.mount(&stack);
        let loads: Vec<_> = (0..4)
            .map(|n| Load::start(&mount.at, &n.to_string(), None))
            .collect();
        wait_until("the load is at work", || {
            names(&mount.at)
                .iter()
                .any(|name| name.starts_with("load-"))
        });
        abort(mount.connection.unwrap());
        for load in loads {
            let (rounds, error) = load.result();
            assert!(error.is_some(), "it ended by itself after {rounds} rounds");
        }
        wait_for_end(&mount);
        unmount_and_mount_again(&stack, mount, limit);
    });
}

#[test]
fn a_signal_ends_an_idle_mount() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        for number in [Signal::TERM, Signal::INT, Signal::HUP] {
            let stack = stack(transport, 1);
            stack.file(0, "f", "f");
            let mount = limit.mount(&stack);
            assert_eq!(read(mount.path("f")), "f");
            signal(mount.pid.unwrap(), number);
            wait_for_end(&mount);
            assert!(!mounted(&mount.at), "{number:?}");
            let again = limit.mount(&stack);
            again.unmount();
            stack.assert_work_is_empty();
        }
    });
}

#[test]
fn a_signal_detaches_a_busy_mount_which_ends_with_its_last_user() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        for number in [Signal::TERM, Signal::INT] {
            let stack = stack(transport, 1);
            stack.file(0, "large", &"x".repeat(LARGE));
            stack.file(0, "f", "f");
            let mount = limit.mount(&stack);
            let open = File::open(mount.path("large")).unwrap();
            let load = Load::start(&mount.at, "0", None);
            wait_until("the load is at work", || {
                names(&mount.at)
                    .iter()
                    .any(|name| name.starts_with("load-"))
            });
            signal(mount.pid.unwrap(), number);
            wait_until("the mount is detached", || !mounted(&mount.at));
            // Its working directory is all that it has of the mount.
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(load.end() > 0);
            let mut byte = [0];
            open.read_exact_at(&mut byte, LARGE as u64 - 1).unwrap();
            assert_eq!(&byte, b"x");
            drop(open);
            wait_for_end(&mount);
            let again = limit.mount(&stack);
            assert_eq!(names(&again.at), ["f", "large"]);
            again.unmount();
        }
    });
}

#[test]
fn callers_of_a_killed_daemon_get_an_error() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        let mount = limit.mount(&stack);
        assert_eq!(read(mount.path("f")), "f");
        let stopped = Stopped::new(&mount);
        let callers = Callers::start(&mount);
        signal(mount.pid.unwrap(), Signal::KILL);
        callers.assert_freed();
        wait_for_end(&mount);
        drop(stopped);
        unmount_and_mount_again(&stack, mount, limit);
    });
}
