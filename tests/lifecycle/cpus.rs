//! Processors that come and go, and a daemon that may not use all of them.

use std::fs;
use std::time::Duration;

use super::guard::{Load, on_each, stack, wait_until};
use support::{binary, names, read};

/// The last processor's switch; not there where it cannot be switched.
const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";

/// CPU 1 is offline while this lives.
struct Offline;

impl Offline {
    fn new() -> Self {
        let guard = Self;
        fs::write(SWITCH, "0").unwrap();
        assert_eq!(read(SWITCH).trim(), "0");
        guard
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        // More than once: it may be busy for a moment.
        for _ in 0..100 {
            if fs::write(SWITCH, "1").is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("CPU 1 stays offline: echo 1 > {SWITCH}");
    }
}

/// One test at a time may switch processors.
fn switchable() -> Option<std::sync::MutexGuard<'static, ()>> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    if fs::read_to_string(SWITCH).is_ok_and(|value| value.trim() == "1") {
        return Some(
            ONE.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
    }
    eprintln!("skipped: there is no {SWITCH} to switch");
    None
}

#[test]
fn a_processor_goes_and_comes_back_under_load() {
    support::need_fuse!();
    let Some(_one) = switchable() else { return };
    on_each(180, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        let mount = limit.mount(&stack);
        let loads: Vec<_> = (0..3)
            .map(|n| Load::start(&mount.at, &n.to_string(), None))
            .collect();
        wait_until("the load is at work", || {
            names(&mount.at)
                .iter()
                .any(|name| name.starts_with("load-"))
        });
        for round in 0..3 {
            let offline = Offline::new();
            for n in 0..5 {
                fs::write(mount.path(format!("off-{round}-{n}")), "x").unwrap();
            }
            drop(offline);
            for n in 0..5 {
                assert_eq!(read(mount.path(format!("off-{round}-{n}"))), "x");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Requests that are made on the processor that came back are served.
        let pinned = Load::start(&mount.at, "pinned", Some(1));
        std::thread::sleep(Duration::from_millis(300));
        assert!(pinned.end() > 3);
        for load in loads {
            assert!(load.end() > 0);
        }
        mount.unmount();
        stack.assert_work_is_empty();
    });
}

#[test]
fn a_mount_made_while_a_processor_is_offline_serves_it_when_it_is_back() {
    support::need_fuse!();
    let Some(_one) = switchable() else { return };
    on_each(120, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        let offline = Offline::new();
        let mount = limit.mount(&stack);
        assert_eq!(read(mount.path("f")), "f");
        let load = Load::start(&mount.at, "0", Some(0));
        std::thread::sleep(Duration::from_millis(100));
        drop(offline);
        let back = Load::start(&mount.at, "1", Some(1));
        std::thread::sleep(Duration::from_millis(300));
        assert!(back.end() > 3);
        assert!(load.end() > 3);
        mount.unmount();
        stack.assert_work_is_empty();
    });
}

/// Two processors are needed for one that the daemon does not use.
fn several() -> bool {
    let several = std::thread::available_parallelism().unwrap().get() > 1;
    if !several {
        eprintln!("skipped: one processor only");
    }
    several
}

/// The processors that each thread of a process may use.
fn allowed(pid: i32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .map(|status| {
            let line = status
                .lines()
                .find(|line| line.starts_with("Cpus_allowed_list:"));
            line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_daemon_kept_on_one_processor_serves_the_other() {
    support::need_fuse!();
    if !several() {
        return;
    }
    on_each(120, |transport, limit| {
        let stack = stack(transport, 1);
        stack.file(0, "f", "f");
        // What it starts inherits it.
        let output = support::programs::program("taskset")
            .args(["-c", "0", "timeout", "60"])
            .arg(binary())
            .args(["mount", "--lower"])
            .arg(stack.lower(0))
            .args(["-o", &format!("transport={transport}")])
            .arg("--upper")
            .arg(stack.upper())
            .arg("--work")
            .arg(stack.work())
            .arg(stack.merged())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let mount = support::Mount::found(stack.merged());
        limit.watch(&mount);
        let there = Load::start(&mount.at, "1", Some(1));
        let here = Load::start(&mount.at, "0", Some(0));
        std::thread::sleep(Duration::from_millis(500));
        assert!(there.end() > 3);
        assert!(here.end() > 3);
        let allowed = allowed(mount.pid.unwrap());
        assert!(allowed.iter().all(|list| list == "0"), "{allowed:?}");
        mount.unmount();
        stack.assert_work_is_empty();
    });
}
