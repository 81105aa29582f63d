//! Limits of the process that mounts do not hold for the daemon, which serves others.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use super::guard::{bounded, on_each, stack};
use support::{Mount, Stack, binary, read};

/// Mounts a stack by a program that sets something up first; gives what was said as well.
fn mount_after(stack: &Stack, transport: &str, before: &[&str]) -> (Mount, String) {
    let mut command = bounded(before[0]);
    command.args(&before[1..]).arg(binary());
    command.args(["mount", "-o", &format!("transport={transport}")]);
    command.arg("--lower").arg(stack.lower(0));
    command.arg("--upper").arg(stack.upper());
    command.arg("--work").arg(stack.work());
    let output = command.arg(stack.merged()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{before:?}: {said}");
    (Mount::found(stack.merged()), said)
}

/// A line of /proc/PID/limits or /proc/PID/status.
fn line(mount: &Mount, file: &str, key: &str) -> String {
    let text = read(format!("/proc/{}/{file}", mount.pid.unwrap()));
    let found = text.lines().find(|line| line.starts_with(key));
    found.unwrap().to_owned()
}

/// A set of signals as /proc/PID/status has it (proc_pid_status(5)).
fn signals(mount: &Mount, key: &str) -> u64 {
    let line = line(mount, "status", key);
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[test]
fn soft_limits_of_the_mounting_process_are_raised() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "big", &"x".repeat(1 << 20));
        let limits = [
            "prlimit",
            "--fsize=65536:",
            "--cpu=1:",
            "--nproc=4000:",
            "--as=4294967296:",
        ];
        let (mount, said) = mount_after(&stack, transport, &limits);
        assert_eq!(said, "");
        limit.watch(&mount);
        fs::write(mount.path("new"), vec![b'n'; 1 << 20]).unwrap();
        // A copy-up of more than that.
        fs::write(mount.path("big"), vec![b'b'; 2 << 20]).unwrap();
        for key in ["Max file size", "Max cpu time", "Max address space"] {
            let line = line(&mount, "limits", key);
            assert!(line.contains("unlimited"), "{line}");
        }
        // Who writes has his own.
        let writer = Command::new("bash")
            .args([
                "-c",
                "ulimit -f 64; exec dd if=/dev/zero of=mine bs=10k count=20",
            ])
            .current_dir(&mount.at)
            .output();
        assert_eq!(writer.unwrap().status.signal(), Some(libc::SIGXFSZ));
        assert_eq!(fs::metadata(mount.path("mine")).unwrap().len(), 65536);
        mount.unmount();
    });
}

#[test]
fn a_hard_limit_is_an_error_for_the_writer_and_the_daemon_lives() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        // Without CAP_SYS_RESOURCE root itself cannot raise it.
        let script = "ulimit -f 64; exec setpriv --bounding-set -sys_resource \"$@\"";
        let before = ["bash", "-c", script, "bash"];
        let (mount, said) = mount_after(&stack, transport, &before);
        assert!(said.contains("65536 bytes in a file"), "{said}");
        limit.watch(&mount);
        let refused = fs::write(mount.path("new"), vec![b'n'; 1 << 20]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EFBIG));
        assert_eq!(read(mount.path("f")), "f");
        fs::write(mount.path("small"), "small").unwrap();
        mount.unmount();
    });
}

#[test]
fn signals_that_were_blocked_or_ignored_are_not() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        let before = [
            "env",
            "--block-signal=URG,TERM,CHLD,USR1",
            "--ignore-signal=CHLD,TERM,HUP,INT",
            // Stacks on which nothing could be done.
            "RUST_MIN_STACK=1",
        ];
        let (mount, said) = mount_after(&stack, transport, &before);
        assert_eq!(said, "");
        limit.watch(&mount);
        fs::create_dir_all(mount.path("a/b/c")).unwrap();
        fs::rename(mount.path("a/b"), mount.path("b")).unwrap();
        let ours = bit(libc::SIGTERM) | bit(libc::SIGINT) | bit(libc::SIGHUP);
        assert_eq!(signals(&mount, "SigBlk") & !ours, 0);
        let ignored = signals(&mount, "SigIgn");
        assert_eq!(ignored & bit(libc::SIGCHLD), 0);
        assert_ne!(ignored & bit(libc::SIGXFSZ), 0);
        let pid = rustix::process::Pid::from_raw(mount.pid.unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        super::guard::wait_for_end(&mount);
    });
}

/// Each object that is open without a name takes a descriptor of the daemon: it may have more than
/// who mounted, if it is privileged to; else the one that opens too many is told so, and the mount
/// works on.
#[test]
fn more_can_be_held_open_than_the_mounting_process_may() {
    support::need_fuse!();
    const MANY: usize = 600;
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = read("/proc/self/status");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = u64::from_str_radix(capabilities.unwrap().trim(), 16).unwrap();
    let is_privileged = capabilities & (1 << CAP_SYS_RESOURCE) != 0;
    on_each(60, |transport, limit| {
        let stack = stack(transport, 1);
        let (mount, said) = mount_after(&stack, transport, &["prlimit", "--nofile=300:300"]);
        assert_eq!(said, "");
        limit.watch(&mount);
        let hold = |number: usize| -> std::io::Result<fs::File> {
            let name = mount.path(format!("f{number}"));
            fs::write(&name, number.to_string())?;
            let file = fs::File::open(&name)?;
            fs::remove_file(&name)?;
            Ok(file)
        };
        let mut held = Vec::new();
        for number in 0..MANY {
            match hold(number) {
                Ok(file) => held.push(file),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(24), "{error}");
                    assert!(!is_privileged, "only {number}");
                    break;
                }
            }
        }
        assert!(held.len() > 100, "{}", held.len());
        if is_privileged {
            for (number, file) in held.iter().enumerate() {
                assert_eq!(std::io::read_to_string(file).unwrap(), number.to_string());
            }
        }
        drop(held);
        // The kernel forgets them soon, not at once.
        let file = loop {
            match hold(MANY) {
                Ok(file) => break file,
                Err(error) => assert_eq!(error.raw_os_error(), Some(24), "{error}"),
            }
        };
        assert_eq!(std::io::read_to_string(file).unwrap(), MANY.to_string());
    });
}
