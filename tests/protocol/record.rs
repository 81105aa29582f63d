//! Recording: a mount of the layout over /dev/fuse, and a script that works in it.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::layout::Layout;
use crate::stream::{Stream, path};

/// What the log puts in front of each line of the wire.
const PREFIX: &str = "unionmount::fuse::wire] ";

/// Records `NAME.txt` while `NAME.sh` runs in a mount. The script's first line, `# -o OPTIONS`,
/// says how it is mounted; the word `ro` there leaves the upper out.
pub fn record(name: &str) {
    let script = path(&format!("{name}.sh"));
    let text = fs::read_to_string(&script).unwrap();
    let options = text.lines().next().unwrap().strip_prefix("# -o ").unwrap();
    let writable = !options.split(',').any(|option| option == "ro");
    let layout = Layout::new(writable);
    let log = layout.at("log");
    let merged = layout.at("merged");
    let mut mount = Command::new(env!("CARGO_BIN_EXE_unionmount"));
    mount
        .arg("mount")
        .arg("--lower")
        .arg(layout.at("new"))
        .arg("--lower")
        .arg(layout.at("old"));
    if writable {
        mount
            .arg("--upper")
            .arg(layout.at("upper"))
            .arg("--work")
            .arg(layout.at("work"));
    }
    mount.args(["-o", "transport=dev,threads=1", "-o", options]);
    mount.arg("--log-file").arg(&log).arg(&merged);
    mount.env("RUST_LOG", "unionmount::fuse::wire=trace");
    assert!(mount.status().unwrap().success());
    let worked = Command::new("sh")
        .arg("-eu")
        .arg(&script)
        .current_dir(&merged)
        .status();
    // In peace, so that what the kernel says by itself is not mixed with the unmounting.
    std::thread::sleep(Duration::from_millis(500));
    let unmounted = Command::new("umount").arg(&merged).status();
    assert!(worked.unwrap().success() && unmounted.unwrap().success());
    std::thread::sleep(Duration::from_millis(500));
    let mut recorded = String::new();
    writeln!(
        recorded,
        "# Recorded by tests/protocol while {name}.sh worked in a mount; see there."
    )
    .unwrap();
    writeln!(
        recorded,
        "# Linux {}",
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap()
            .trim()
    )
    .unwrap();
    if !writable {
        writeln!(recorded, "read-only").unwrap();
    }
    for line in fs::read_to_string(&log).unwrap().lines() {
        if let Some((_, line)) = line.split_once(PREFIX) {
            writeln!(recorded, "{line}").unwrap();
        }
    }
    // That it can be read again is the least.
    Stream::parse(&recorded);
    fs::write(path(&format!("{name}.txt")), recorded).unwrap();
}
