//! A real Debian root, dealt over four layers, in which people work: packages
//! are installed, programs compiled, trees deleted, remade and renamed. Then
//! the whole tree is compared with itself after a remount and with a plain copy
//! on which the same was done, as root and as an ordinary user.
//!
//! What is done and compared is in `scripts/real-root.sh`, which can also be
//! run by itself; this file runs it under `cargo test`, with the binary that
//! cargo built or the one that `UNIONMOUNT_BIN` names.
//!
//! Where it cannot run (no /dev/fuse, no root, no network for the first time)
//! it is skipped with the reason printed, unless `UNIONMOUNT_REQUIRE_FUSE=1`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Building the layers for the first time takes one to three minutes, a test a
/// minute: after this long something hangs.
const LIMIT_SECONDS: &str = "900";

/// The exit status with which the script says that it cannot run here.
const SKIPPED: i32 = 77;

#[test]
fn a_debian_root_lives_on_a_mount_of_root() {
    live_in_a_real_root("root");
}

#[test]
fn a_debian_root_lives_on_a_mount_in_a_user_namespace() {
    live_in_a_real_root("user");
}

fn live_in_a_real_root(mode: &str) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = env::var_os("UNIONMOUNT_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_unionmount").into(), PathBuf::from);
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    let cache = target.join("real-root");
    fs::create_dir_all(&cache).unwrap();
    let log = cache.join(format!("{mode}.log"));
    let output = File::create(&log).unwrap();

    // timeout(1) makes a process group and passes signals on to all of it.
    let mut script = Script(
        Command::new("timeout")
            .args(["--kill-after=60", LIMIT_SECONDS, "bash"])
            .arg(repository.join("scripts/real-root.sh"))
            .arg("--mount-program")
            .arg(&program)
            .arg("--cache")
            .arg(&cache)
            .arg(mode)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap(),
    );
    let status = script.0.wait().unwrap();

    print!("{}", String::from_utf8_lossy(&fs::read(&log).unwrap()));
    match status.code() {
        Some(0 | SKIPPED) => {}
        Some(124) => panic!("no end after {LIMIT_SECONDS} s; see {}", log.display()),
        _ => panic!("the test in a real root failed: {status}"),
    }
}

/// The running script. If the test ends before it, it is told to end, which
/// unmounts what it mounted.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let told = Command::new("kill").arg(self.0.id().to_string()).status();
            if told.is_ok_and(|status| status.success()) {
                self.0.wait().ok();
            }
        }
    }
}
