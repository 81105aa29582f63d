//! Power cuts and failing disks: what is on the upper's disk when a command or a call has returned.
//!
//! The disk is an image on a loop device that is not synced unasked (`commit=300`). A power cut is
//! a copy of the image as it is: what was not written yet is not in it. Copies are mounted, which
//! replays the file system's log, and looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use support::images::{Mounted, empty_with, is_here, mount};
use support::transport::transports;
use support::{Mount, Stack, binary, names, read, shell};

/// An upper on a disk of its own, below one layer.
struct Disk {
    mounted: Mounted,
    stack: Stack,
    image: PathBuf,
}

impl Disk {
    fn new(kind: &str, options: &[&str]) -> Self {
        let mut stack = Stack::new(1);
        for option in options {
            stack = stack.option(option);
        }
        // xfs has no such option, and writes its log every 30 s.
        let seldom = if kind == "xfs" { "" } else { ",commit=300" };
        let mounted = empty_with(stack.dir.path(), "disk", kind, seldom);
        stack.upper = Some(mounted.at.join("upper"));
        stack.work = Some(mounted.at.join("work"));
        fs::create_dir(mounted.at.join("upper")).unwrap();
        fs::create_dir(mounted.at.join("work")).unwrap();
        let image = stack.dir.path().join("disk.img");
        let disk = Self {
            mounted,
            stack,
            image,
        };
        disk.sync();
        disk
    }

    fn sync(&self) {
        shell(&self.mounted.at, "sync -f .");
    }

    /// The disk as it is after a power cut now.
    fn cut(&self) -> Cut {
        let dir = self.stack.dir.path();
        shell(dir, "cp --sparse=always disk.img cut.img");
        let nouuid = if self.is_xfs() { ",nouuid" } else { "" };
        let mounted = mount(dir, "cut", &format!("-o loop{nouuid} cut.img"));
        Cut { mounted }
    }

    fn is_xfs(&self) -> bool {
        let mut magic = [0; 4];
        File::open(&self.image)
            .unwrap()
            .read_exact(&mut magic)
            .unwrap();
        &magic == b"XFSB"
    }
}

/// A disk after a power cut.
struct Cut {
    mounted: Mounted,
}

impl Cut {
    fn upper(&self) -> PathBuf {
        self.mounted.at.join("upper")
    }
}

fn umount(at: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(binary());
    command.arg("umount").args(arguments).arg(at);
    command.output().unwrap()
}

fn wait_for_end(mount: &Mount) {
    let begun = Instant::now();
    while Path::new(&format!("/proc/{}/fd/0", mount.pid.unwrap())).exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the daemon ends");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The ways in which a mount ends.
const ENDS: [&str; 4] = ["umount", "umount --lazy", "umount(2)", "SIGTERM"];

fn end(mount: &Mount, way: &str) {
    match way {
        "umount" => assert!(umount(&mount.at, &[]).status.success()),
        "umount --lazy" => assert!(umount(&mount.at, &["--lazy"]).status.success()),
        "umount(2)" => {
            rustix::mount::unmount(&mount.at, rustix::mount::UnmountFlags::empty()).unwrap();
            wait_for_end(mount);
        }
        _ => {
            let pid = rustix::process::Pid::from_raw(mount.pid.unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            wait_for_end(mount);
        }
    }
}

#[test]
fn what_was_written_before_an_unmount_is_on_the_disk() {
    support::need_fuse!();
    let content = "0123456789abcdef".repeat(20_000);
    for kind in ["ext4", "btrfs", "xfs"]
        .into_iter()
        .filter(|kind| is_here(kind))
    {
        for transport in transports() {
            let disk = Disk::new(kind, &[&format!("transport={transport}")]);
            disk.stack.file(0, "d/f", "low\n");
            for way in ENDS {
                let mounted = disk.stack.mount();
                fs::write(mounted.path("new"), &content).unwrap();
                let append = OpenOptions::new().append(true).open(mounted.path("d/f"));
                append.unwrap().write_all(b"more\n").unwrap();
                fs::create_dir_all(mounted.path("x/y")).unwrap();
                end(&mounted, way);
                let cut = disk.cut();
                let context = format!("{kind}, {transport}, {way}");
                assert!(read(cut.upper().join("new")) == content, "{context}");
                assert_eq!(read(cut.upper().join("d/f")), "low\nmore\n", "{context}");
                assert!(cut.upper().join("x/y").is_dir(), "{context}");
                drop((cut, mounted));
                for name in names(disk.stack.upper()) {
                    shell(disk.stack.upper(), &format!("rm -r '{name}'"));
                }
                disk.sync();
            }
        }
    }
}

#[test]
fn nothing_of_a_volatile_mount_is_synced() {
    support::need_fuse!();
    if !is_here("ext4") {
        return;
    }
    let disk = Disk::new("ext4", &["volatile"]);
    let mounted = disk.stack.mount();
    fs::write(mounted.path("new"), "new").unwrap();
    end(&mounted, "umount");
    assert!(names(disk.cut().upper()).is_empty());
}

/// A disk that takes no more: its image is on a file system that has no room, though the disk
/// itself believes to have some.
fn full_below() -> (Mounted, Mounted, Stack) {
    let stack = Stack::new(1);
    let dir = stack.dir.path();
    let below = mount(dir, "below", "-t tmpfs -o size=16m tmpfs");
    shell(
        &below.at,
        "truncate -s 96M img; mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -J size=4 img",
    );
    let image = below.at.join("img");
    let disk = mount(
        dir,
        "disk",
        &format!("-o loop,commit=300 {}", image.display()),
    );
    let mut stack = stack;
    stack.upper = Some(disk.at.join("upper"));
    stack.work = Some(disk.at.join("work"));
    shell(&disk.at, "mkdir upper work; sync -f .");
    (disk, below, stack)
}

#[test]
fn a_disk_that_did_not_take_everything_is_named_by_umount() {
    support::need_fuse!();
    if !is_here("ext4") {
        return;
    }
    for transport in transports() {
        let (disk, below, stack) = full_below();
        let stack = stack.option(&format!("transport={transport}"));
        let mounted = stack.mount();
        fs::write(mounted.path("new"), vec![b'x'; 32 << 20]).unwrap();
        // Also the second time: what is lost does not come back.
        for _ in 0..2 {
            let refused = umount(&mounted.at, &[]);
            let said = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{transport}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(
                said.contains("the upper's disk of") && said.contains("umount --force"),
                "{said}"
            );
        }
        assert!(read(stack.log()).contains("syncfs of the upper's disk"));
        assert!(umount(&mounted.at, &["--force"]).status.success());
        drop((mounted, disk, below));
    }
}

#[test]
fn a_disk_that_fails_behind_umount_2_is_in_the_log() {
    support::need_fuse!();
    if !is_here("ext4") {
        return;
    }
    let (disk, below, stack) = full_below();
    let mounted = stack.mount();
    fs::write(mounted.path("new"), vec![b'x'; 32 << 20]).unwrap();
    end(&mounted, "umount(2)");
    let log = read(stack.log());
    assert!(log.contains("at the end of the mount"), "{log}");
    drop((mounted, disk, below));
}

/// The lines of a log that tell of a call.
fn lines_of(log: &str, call: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(call));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_a_disk_refuses_is_logged_with_path_and_layer_in_one_line() {
    support::need_fuse!();
    if !is_here("ext4") {
        return;
    }
    for transport in transports() {
        let (disk, below, stack) = full_below();
        let stack = stack.option(&format!("transport={transport}"));
        let mounted = stack.mount();
        fs::create_dir(mounted.path("dir")).unwrap();
        let mut file = File::create(mounted.path("dir/new")).unwrap();
        file.write_all(&vec![b'x'; 32 << 20]).unwrap();
        assert!(file.sync_all().is_err(), "{transport}");
        let log = read(stack.log());
        let lines = lines_of(&log, "fsync");
        assert_eq!(lines.len(), 1, "{transport}: {log}");
        let real = disk.at.join("upper/dir/new").canonicalize().unwrap();
        // EIO or ENOSPC, as the loop device has it.
        let (call, cause) = ("fsync \"/dir/new\": fsync: ", " (os error ");
        let real = format!("); upper layer \"{}\"", real.display());
        assert!(
            lines[0].contains(call) && lines[0].contains(cause) && lines[0].ends_with(&real),
            "{transport}: {log}"
        );
        drop(file);
        assert!(umount(&mounted.at, &["--force"]).status.success());
        drop((mounted, disk, below));
    }
}

#[test]
fn a_disk_that_stays_full_does_not_fill_the_log() {
    support::need_fuse!();
    for transport in transports() {
        let mut stack = Stack::new(1).option(&format!("transport={transport}"));
        let disk = mount(stack.dir.path(), "disk", "-t tmpfs -o size=1m tmpfs");
        stack.upper = Some(disk.at.join("upper"));
        stack.work = Some(disk.at.join("work"));
        shell(&disk.at, "mkdir upper work");
        let mounted = stack.mount();
        let file = File::create(mounted.path("new")).unwrap();
        let begun = Instant::now();
        let mut refused = 0;
        for at in 0..200 {
            use std::os::unix::fs::FileExt;
            let piece = [b'x'; 16 << 10];
            refused += u64::from(file.write_all_at(&piece, at * (16 << 10)).is_err());
        }
        let seconds = begun.elapsed().as_secs();
        assert!(refused > 100, "{transport}");
        let log = read(stack.log());
        let lines = lines_of(&log, "write \"/new\"");
        assert!(
            !lines.is_empty() && lines.len() as u64 <= seconds + 1,
            "{transport}: {log}"
        );
        assert!(lines[0].contains("upper layer"), "{transport}: {log}");
        drop((file, mounted, disk));
    }
}

/// Changes one byte of a file and syncs it: the disk's log takes along what it likes.
fn sync_one_byte(path: &Path) {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"X").unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_was_renamed_is_under_one_name_after_a_power_cut() {
    support::need_fuse!();
    for kind in ["btrfs", "ext4"].into_iter().filter(|kind| is_here(kind)) {
        for form in ["wh", "char"] {
            let disk = Disk::new(kind, &[&format!("whiteout={form}")]);
            let objects = ["dir1", "dir2", "file1", "file2"];
            for dir in &objects[..2] {
                disk.stack.file(0, &format!("t/{dir}/in/f"), "F");
                disk.stack.file(0, &format!("t/{dir}/g"), "G");
            }
            for file in &objects[2..] {
                disk.stack.file(0, &format!("t/{file}"), "F");
            }
            disk.stack.file(0, "other", "o");
            let mounted = disk.stack.mount();
            for name in objects {
                let (from, to) = (format!("t/{name}"), format!("t/new-{name}"));
                fs::rename(mounted.path(&from), mounted.path(&to)).unwrap();
                // A file of it is synced, or another one.
                sync_one_byte(&match name {
                    "dir1" => mounted.path(&to).join("in/f"),
                    "file1" => mounted.path(&to),
                    _ => mounted.path("other"),
                });
            }
            let cut = disk.cut();
            let mut after = Stack::new(1);
            after.lowers = disk.stack.lowers.clone();
            after.options = disk.stack.options.clone();
            after.upper = Some(cut.upper());
            after.work = Some(cut.mounted.at.join("work"));
            let seen = after.mount();
            for name in objects {
                let there = [name.to_owned(), format!("new-{name}")]
                    .map(|name| seen.path(format!("t/{name}")))
                    .into_iter()
                    .filter(|path| path.exists())
                    .collect::<Vec<_>>();
                let [one] = there.as_slice() else {
                    panic!("{kind}, {form}: {there:?}");
                };
                if one.is_dir() {
                    assert_eq!(names(one), ["g", "in"], "{kind}, {form}");
                    assert_eq!(read(one.join("g")), "G");
                    assert!(["F", "X"].contains(&read(one.join("in/f")).as_str()));
                } else {
                    assert!(["F", "X"].contains(&read(one).as_str()));
                }
            }
            seen.unmount();
            mounted.unmount();
            drop(cut);
        }
    }
}

/// ext4 made without a journal, and ext2, have ext4's magic number and not its order of changes:
/// there a mark is synced as well as the copy.
#[test]
fn ext4_without_a_journal_is_not_taken_for_ext4() {
    support::need_fuse!();
    if !is_here("ext4") {
        return;
    }
    for (features, syncs) in [("has_journal", 1), ("^has_journal", 2)] {
        let stack = Stack::new(1);
        stack.file(0, "f", "f");
        let dir = stack.dir.path();
        shell(
            dir,
            &format!("truncate -s 64M img; mkfs.ext4 -q -O {features} img"),
        );
        let disk = mount(dir, "disk", "-o loop img");
        shell(&disk.at, "mkdir upper work");
        let said = dir.join("calls");
        let daemon = support::programs::program("strace")
            .args(["-f", "-e", "trace=fsync", "-o"])
            .arg(&said)
            .arg(binary())
            .args(["mount", "--foreground", "-o", "transport=dev", "--lower"])
            .arg(stack.lower(0))
            .arg("--upper")
            .arg(disk.at.join("upper"))
            .arg("--work")
            .arg(disk.at.join("work"))
            .arg(stack.merged())
            .spawn();
        let mut daemon = support::Running(daemon.unwrap());
        let begun = Instant::now();
        while support::transport::connection(&stack.merged()).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is mounted");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mounted = Mount::found(stack.merged());
        fs::rename(mounted.path("f"), mounted.path("g")).unwrap();
        assert!(umount(&mounted.at, &[]).status.success());
        daemon.0.wait().unwrap();
        let calls = read(&said);
        let counted = calls.lines().filter(|line| line.contains("fsync(")).count();
        assert_eq!(counted, syncs, "{features}: {calls}");
        drop((mounted, disk));
    }
}
