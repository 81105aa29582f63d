//! Containers whose daemon is suspended: nothing that is done with the store waits for it.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::env::Env;
use crate::make::{Image, Layer, PLAIN, Pack, write_dir};
use support::{Mount, transport};

/// How long a command may take that meets such a daemon, on a machine that has other things to do.
const BOUND: Duration = Duration::from_secs(25);

/// A daemon that does not answer, until this is dropped.
struct Suspended(Pid);

impl Drop for Suspended {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _gone = kill_process(self.0, Signal::CONT);
    }
}

/// The process that serves the mount there: containers' daemons do not name their mountpoint.
fn suspend(at: &Path) -> Suspended {
    let connection = transport::connection(at).unwrap();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pid = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| transport::serves(*pid, connection))
        .unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    Suspended(pid)
}

fn bounded(env: &Env, args: &[&str]) -> Output {
    let begun = Instant::now();
    let mut command = support::programs::program("timeout");
    command.args(["--kill-after=5", "60"]);
    command.arg(support::binary()).args(args);
    command.current_dir(env.dir.path());
    command.env("UNIONMOUNT_ROOT", env.root());
    let output = command.output().unwrap();
    assert!(begun.elapsed() < BOUND, "{args:?}: {:?}", begun.elapsed());
    output
}

fn container(env: &Env) -> std::path::PathBuf {
    let image = Image::new(vec![Layer::new().file("f", b"f", &PLAIN).tar()], Pack::Gzip);
    write_dir(&image.layout("app:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
    env.ok(&["container", "create", "--name", "box", "app:1"]);
    let at = env.mount("box");
    fs::write(at.join("new"), "new").unwrap();
    at
}

#[test]
fn what_only_looks_does_not_wait_for_a_suspended_daemon() {
    support::need_fuse!();
    let env = Env::new();
    let at = container(&env);
    let suspended = suspend(&at);
    for args in [
        &["system", "check"][..],
        &["system", "check", "--deep"],
        &["system", "df", "-v"],
        &["container", "ls", "-s"],
        &["container", "inspect", "box"],
        &["container", "diff", "box"],
        &["container", "export", "box", "-o", "box.tar"],
        &["container", "commit", "box", "app:2"],
        &["system", "prune", "-f"],
    ] {
        let output = bounded(&env, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    }
    drop(suspended);
    assert_eq!(fs::read(at.join("new")).unwrap(), b"new");
}

#[test]
fn a_container_whose_daemon_is_suspended_is_not_unmounted_but_by_force() {
    support::need_fuse!();
    let env = Env::new();
    let at = container(&env);
    let suspended = suspend(&at);
    let refused = bounded(&env, &["container", "umount", "box"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("is suspended") && said.contains("kill -CONT"),
        "{said}"
    );
    let refused = bounded(&env, &["container", "rm", "box"]);
    assert_eq!(refused.status.code(), Some(1));
    let forced = bounded(&env, &["container", "umount", "--force", "box"]);
    assert!(forced.status.success(), "{forced:?}");
    drop(suspended);
    let at = env.mount("box");
    assert_eq!(fs::read(at.join("new")).unwrap(), b"new");
}

#[test]
fn a_container_whose_daemon_is_suspended_is_removed_by_force() {
    support::need_fuse!();
    let env = Env::new();
    let at = container(&env);
    let suspended = suspend(&at);
    let removed = bounded(&env, &["container", "rm", "-f", "box"]);
    let said = String::from_utf8_lossy(&removed.stderr);
    assert!(removed.status.success(), "{said}");
    assert_eq!(env.ok(&["container", "ls", "-q"]), "");
    drop((suspended, Mount::found(at)));
    env.ok(&["system", "prune", "-f"]);
    env.is_sound();
}
