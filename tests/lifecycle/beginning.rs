//! From the command to a mount that works: going to the background, failing on the way, two at
//! once.

use std::fs;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use super::guard::{Limit, Load, bounded, on, on_each, stack};
use support::transport::{connection, own_transports, uring_is_here};
use support::{Stack, binary, names, read};

/// The names of the threads of a process.
fn threads(pid: i32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

#[test]
fn the_command_ends_when_the_mount_works() {
    support::need_fuse!();
    on_each(120, |transport, limit| {
        for round in 0..20 {
            let stack = stack(transport, 1);
            stack.file(0, "f", "f");
            let status = stack.try_mount().status;
            // At once, before anything else is looked at.
            let mount = support::Mount::found(stack.merged());
            let pid = mount.pid.unwrap();
            let serving = threads(pid);
            let content = fs::read_to_string(stack.merged().join("f"));
            limit.watch(&mount);
            assert_eq!(status.code(), Some(0));
            assert_eq!(content.unwrap(), "f", "round {round}");
            // The threads that serve are there at once; a new one has its maker's name until it
            // gives itself its own.
            let named = |start: &str| threads(pid).iter().any(|name| name.starts_with(start));
            let wait_for = |start: &str| {
                assert!(serving.len() > 1, "{serving:?}");
                let limit = Instant::now() + Duration::from_secs(5);
                while !named(start) {
                    assert!(Instant::now() < limit, "{start}: {:?}", threads(pid));
                    thread::sleep(Duration::from_millis(5));
                }
            };
            match transport {
                "dev" => wait_for("unionmount-dev"),
                "uring" => wait_for("unionmount-0"),
                // It starts its threads when it likes; the kernel keeps the requests meanwhile.
                _ => {}
            }
            // In a session of its own, with no terminal and no directory of its parent's.
            let stat = read(format!("/proc/{pid}/stat"));
            let fields: Vec<_> = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .collect();
            assert_eq!(fields[3], pid.to_string(), "its session");
            assert_eq!(
                fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(),
                Some("/")
            );
            mount.unmount();
        }
    });
}

/// Mounts under limits of prlimit(1).
fn mount_limited(stack: &Stack, transport: &str, limits: &[&str], options: &str) -> Output {
    let mut command = bounded("prlimit");
    command
        .args(limits)
        .arg(binary())
        .args(["mount", "--lower"])
        .arg(stack.lower(0))
        .args(["-o", &format!("transport={transport}{options}")])
        .arg("--upper")
        .arg(stack.upper())
        .arg("--work")
        .arg(stack.work())
        .arg(stack.merged());
    command.output().unwrap()
}

/// A failure: one line that says what, exit code 1, nothing mounted, no daemon, and the directories
/// are free.
fn assert_failed(stack: &Stack, output: &Output, says: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    assert!(message.starts_with("unionmount: "), "{message}");
    assert!(message.contains(says), "{message}");
    assert_eq!(connection(&stack.merged()), None, "something is mounted");
    assert_eq!(names(stack.merged()), [""; 0]);
}

#[test]
fn what_cannot_be_served_is_reported_by_the_command_and_not_left_mounted() {
    support::need_fuse!();
    if !uring_is_here() {
        return;
    }
    on("uring", 60, |_, limit| {
        let stack = stack("uring", 1);
        stack.file(0, "f", "f");
        // More rings than there may be descriptors.
        let limits = ["--nofile=160:160"];
        let output = mount_limited(&stack, "uring", &limits, ",threads=200");
        assert_failed(&stack, &output, "cannot serve the mount");
        // In the foreground, too.
        let mut command = bounded("prlimit");
        command
            .args(limits)
            .arg(binary())
            .args(["mount", "--foreground", "--lower"]);
        command
            .arg(stack.lower(0))
            .args(["-o", "transport=uring,threads=200"]);
        let output = command.arg(stack.merged()).output().unwrap();
        assert_failed(&stack, &output, "cannot serve the mount");
        let mount = limit.mount(&stack);
        assert_eq!(read(mount.path("f")), "f");
        mount.unmount();
    });
}

/// Where the rings cannot be had, `auto` serves without them.
#[test]
fn auto_serves_where_rings_cannot_be_made() {
    support::need_fuse!();
    if !uring_is_here() || std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    on("auto", 60, |_, limit| {
        let stack = stack("auto", 1);
        stack.file(0, "f", "f");
        // Too few descriptors for so many rings on each processor, enough for so many threads.
        let output = mount_limited(&stack, "auto", &["--nofile=160:160"], ",threads=90");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{message}");
        let mount = support::Mount::found(stack.merged());
        limit.watch(&mount);
        assert_eq!(read(mount.path("f")), "f");
        fs::write(mount.path("new"), "new").unwrap();
        let names = threads(mount.pid.unwrap());
        assert!(
            names.iter().any(|name| name == "unionmount-dev"),
            "{names:?}"
        );
        assert!(
            !names.iter().any(|name| name == "unionmount-0"),
            "{names:?}"
        );
        mount.unmount();
        stack.assert_work_is_empty();
    });
}

#[test]
fn a_daemon_without_threads_is_a_failure() {
    support::need_fuse!();
    for transport in own_transports() {
        on(transport, 60, |name, _| {
            // An ordinary user's limit of processes: the command and the daemon are all that there
            // may be.
            let dir = tempfile::Builder::new()
                .prefix("unionmount-few.")
                .tempdir_in("/var/tmp")
                .unwrap();
            let user = 64_200 + u32::from(name == "uring");
            let script =
                "set -eu; cp \"$B\" prog; mkdir l m; echo f > l/f; chown -R $U .; chmod 755 .";
            let made = Command::new("bash")
                .args(["-c", script])
                .current_dir(dir.path())
                .env("B", binary())
                .env("U", user.to_string())
                .status()
                .unwrap();
            assert!(made.success());
            let id = user.to_string();
            let program = dir.path().join("prog");
            let output = bounded("setpriv")
                .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
                .args(["unshare", "-Urm", "prlimit", "--nproc=2"])
                .arg(&program)
                .args([
                    "mount",
                    "--lower",
                    "l",
                    "-o",
                    &format!("transport={name}"),
                    "m",
                ])
                .current_dir(dir.path())
                .output()
                .unwrap();
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{message}");
            assert_eq!(message.trim_end().lines().count(), 1, "{message}");
            let left = support::programs::program("pgrep")
                .args(["-f", program.to_str().unwrap()])
                .output()
                .unwrap();
            assert!(left.stdout.is_empty(), "a daemon is left: {left:?}");
        });
    }
}

#[test]
fn two_mounts_at_once_under_load() {
    support::need_fuse!();
    on_each(60, |transport, limit: &mut Limit| {
        let stacks: Vec<_> = (0..2).map(|_| stack(transport, 1)).collect();
        let mounts: Vec<_> = stacks
            .iter()
            .enumerate()
            .map(|(n, stack)| {
                stack.file(0, "who", &n.to_string());
                limit.mount(stack)
            })
            .collect();
        assert_ne!(mounts[0].connection, mounts[1].connection);
        let loads: Vec<_> = (0..6)
            .map(|n| Load::start(&mounts[n % 2].at, &n.to_string(), None))
            .collect();
        for _ in 0..100 {
            for (n, mount) in mounts.iter().enumerate() {
                assert_eq!(read(mount.path("who")), n.to_string());
                fs::write(mount.path("mine"), n.to_string()).unwrap();
            }
        }
        let mut mounts = mounts.into_iter();
        // One ends while the other is busy.
        let mut loads = loads.into_iter().enumerate().collect::<Vec<_>>();
        let (first, second): (Vec<_>, Vec<_>) = loads.drain(..).partition(|(n, _)| n % 2 == 0);
        for (_, load) in first {
            assert!(load.end() > 0);
        }
        mounts.next().unwrap().unmount();
        let mount = mounts.next().unwrap();
        assert_eq!(read(mount.path("mine")), "1");
        for (_, load) in second {
            assert!(load.end() > 0);
        }
        assert_eq!(names(&mount.at), ["mine", "who"]);
        mount.unmount();
        for (n, stack) in stacks.iter().enumerate() {
            stack.assert_work_is_empty();
            assert_eq!(read(stack.upper().join("mine")), n.to_string());
        }
    });
}
