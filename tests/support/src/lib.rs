//! What the suites share: a stack of layers in a temporary directory, and mounts of it that are
//! taken down even when a test fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub mod caches;
pub mod client;
pub mod corpus;
pub mod images;
pub mod programs;
#[cfg(feature = "random")]
pub mod random;
pub mod transport;

/// The program under test: `UNIONMOUNT_BIN`, else the one that cargo has built beside the suites.
pub fn binary() -> PathBuf {
    let built = || profile().join("unionmount");
    std::env::var_os("UNIONMOUNT_BIN").map_or_else(built, PathBuf::from)
}

/// `target/PROFILE`: a suite is a program in its directory `deps`.
fn profile() -> PathBuf {
    let suite = std::env::current_exe().unwrap();
    suite.ancestors().nth(2).unwrap().to_owned()
}

/// `target/tmp`, where tests make their directories.
pub fn scratch() -> PathBuf {
    profile().parent().unwrap().join("tmp")
}

/// Whether a test that cannot run here has failed: `UNIONMOUNT_REQUIRE_FUSE=1`, as in CI.
pub fn skips_are_failures() -> bool {
    std::env::var_os("UNIONMOUNT_REQUIRE_FUSE").is_some_and(|value| value == "1")
}

/// Says why a test is left out; where that is a failure it ends here.
pub fn skip(reason: &str) {
    assert!(!skips_are_failures(), "it is required, but: {reason}");
    eprintln!("skipped: {reason}");
}

/// Whether mounts can be tested here; says why not. With `UNIONMOUNT_REQUIRE_FUSE=1` that is a
/// failure.
pub fn fuse_is_here() -> bool {
    let reason = if !Path::new("/dev/fuse").exists() {
        "no /dev/fuse"
    } else if !rustix::process::geteuid().is_root() {
        "not root"
    } else {
        return true;
    };
    skip(reason);
    false
}

/// Ends the test early where mounts cannot be tested.
#[macro_export]
macro_rules! need_fuse {
    () => {
        if !$crate::fuse_is_here() {
            return;
        }
    };
}

/// How long mounting may take: a hang is a failure.
const MOUNT_LIMIT_SECONDS: &str = "60";

/// Layers on the disk under `target/`, with an upper and a work directory.
pub struct Stack {
    pub dir: TempDir,
    pub lowers: Vec<PathBuf>,
    pub options: Vec<String>,
    pub read_only: bool,
    /// Upper and work directory come with the options.
    pub without_directories: bool,
    /// Where the upper and the work directory are, when not beside the layers.
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
}

impl Stack {
    /// A stack of `lowers` empty layers; number 0 is the newest.
    pub fn new(lowers: usize) -> Self {
        // The files that tests make have the modes they ask for.
        rustix::process::umask(rustix::fs::Mode::empty());
        let dir = tempfile::Builder::new()
            .prefix("stack.")
            .tempdir_in(scratch())
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lowers = (0..lowers)
            .map(|i| {
                let lower = dir.path().join(format!("l{i}"));
                fs::create_dir(&lower).unwrap();
                fs::set_permissions(&lower, fs::Permissions::from_mode(0o755)).unwrap();
                lower
            })
            .collect();
        Self {
            dir,
            lowers,
            options: Vec::new(),
            read_only: false,
            without_directories: false,
            upper: None,
            work: None,
        }
    }

    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    pub fn lower(&self, layer: usize) -> &Path {
        &self.lowers[layer]
    }

    pub fn upper(&self) -> PathBuf {
        let beside = || self.dir.path().join("upper");
        self.upper.clone().unwrap_or_else(beside)
    }

    pub fn work(&self) -> PathBuf {
        let beside = || self.dir.path().join("work");
        self.work.clone().unwrap_or_else(beside)
    }

    pub fn merged(&self) -> PathBuf {
        self.dir.path().join("merged")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Writes a file into a lower layer, with its directories.
    pub fn file(&self, layer: usize, path: &str, content: &str) -> PathBuf {
        let path = self.lower(layer).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn directory(&self, layer: usize, path: &str) -> PathBuf {
        let path = self.lower(layer).join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn link(&self, layer: usize, path: &str, target: &str) -> PathBuf {
        let path = self.lower(layer).join(path);
        symlink(target, &path).unwrap();
        path
    }

    fn command(&self, mountpoint: &Path, read_only: bool) -> Command {
        // A mount whose first access hangs must not hang the test. The daemon has a session of its
        // own: it stays.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", MOUNT_LIMIT_SECONDS]);
        command.arg(binary()).arg("mount");
        for lower in &self.lowers {
            command.arg("--lower").arg(lower);
        }
        if self.without_directories {
        } else if read_only {
            command.arg("--upper").arg(self.upper());
            command.arg("--read-only");
        } else {
            command.arg("--upper").arg(self.upper());
            command.arg("--work").arg(self.work());
        }
        for option in transport::with_chosen(&self.options) {
            command.arg("-o").arg(option);
        }
        command.arg("--log-file").arg(self.log());
        command.arg(mountpoint);
        command
    }

    /// What the mount command says.
    pub fn try_mount(&self) -> Output {
        self.command(&self.merged(), self.read_only)
            .output()
            .unwrap()
    }

    /// Mounts the stack.
    pub fn mount(&self) -> Mount {
        self.mount_at(self.merged(), self.read_only)
    }

    /// A read-only mount of the same directories somewhere else.
    pub fn mount_read_only(&self, name: &str) -> Mount {
        let at = self.dir.path().join(name);
        fs::create_dir_all(&at).unwrap();
        self.mount_at(at, true)
    }

    fn mount_at(&self, at: PathBuf, read_only: bool) -> Mount {
        let output = self.command(&at, read_only).output().unwrap();
        assert!(
            output.status.success(),
            "mount: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Mount::found(at)
    }

    /// A mount of the same directories by kernel overlayfs, with further `options`
    /// (",redirect_dir=on").
    pub fn mount_by_kernel(&self, options: &str) -> Mount {
        let at = self.merged();
        let data = format!(
            "lowerdir={},upperdir={},workdir={}{options}",
            self.lower(0).display(),
            self.upper().display(),
            self.work().display()
        );
        shell(
            "/",
            &format!("mount -t overlay overlay -o {data} {}", at.display()),
        );
        Mount::found(at)
    }

    /// Runs `check` on a mount made by `before`, and once more after a remount.
    pub fn twice(&self, before: impl FnOnce(&Path), check: impl Fn(&Path)) {
        let mount = self.mount();
        before(&mount.at);
        check(&mount.at);
        mount.unmount();
        self.assert_work_is_empty();
        let mount = self.mount();
        check(&mount.at);
        mount.unmount();
        self.assert_work_is_empty();
    }

    pub fn assert_work_is_empty(&self) {
        let left: Vec<_> = fs::read_dir(self.work().join("work"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "left in the work directory: {left:?}");
    }
}

/// The process that serves a mount: the one of ours whose command line names it.
fn daemon_of(at: &Path) -> Option<i32> {
    let name = at.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if line.split(|b| *b == 0).any(|arg| arg == name)
            && fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == binary())
        {
            return Some(pid);
        }
    }
    None
}

/// A live mount.
pub struct Mount {
    pub at: PathBuf,
    pub pid: Option<i32>,
    /// Its connection's number, when it is one of ours.
    pub connection: Option<u32>,
}

impl Mount {
    /// What is mounted there.
    pub fn found(at: PathBuf) -> Self {
        let pid = daemon_of(&at);
        let connection = transport::connection(&at);
        Self {
            at,
            pid,
            connection,
        }
    }

    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.at.join(path)
    }

    /// Unmounts as a user does.
    pub fn unmount(self) {
        let umount = || {
            let mut command = Command::new(binary());
            command.arg("umount").arg(&self.at).output().unwrap()
        };
        let mut output = umount();
        let begun = Instant::now();
        // A program that another test is starting has a copy of all descriptors until it is
        // executed.
        while String::from_utf8_lossy(&output.stderr).contains(" is in use by process ")
            && begun.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(20));
            output = umount();
        }
        assert!(
            output.status.success(),
            "umount: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A line of /proc/PID/status of the daemon, in KiB or plain.
    pub fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.unwrap())).unwrap();
        let line = status.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open descriptors of the daemon.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid.unwrap()))
            .unwrap()
            .count()
    }

    /// Kills the daemon as a crash would, and takes the dead mount away.
    pub fn kill(self) {
        let pid = rustix::process::Pid::from_raw(self.pid.unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        wait_for_the_end(self.pid.unwrap());
    }
}

/// Waits for a process to end: what it has open stays busy until then.
fn wait_for_the_end(pid: i32) {
    let start = Instant::now();
    while alive(pid) && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn alive(pid: i32) -> bool {
    // While other threads are on their way out what the process has open stays open, though the
    // first one is a zombie.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") || threads > 1)
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that failed may have left callers that wait for ever. The number may be another
        // mount's by now.
        if std::thread::panicking()
            && let Some(connection) = self.connection
            && (transport::connection(&self.at) == Some(connection)
                || self
                    .pid
                    .is_some_and(|pid| transport::serves(pid, connection)))
        {
            transport::abort(connection);
        }
        // After `unmount` there is nothing left to detach, which is fine.
        let detached = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
        // What the test does next with the directories must not meet the daemon on its way out.
        if let (Ok(()), Some(pid)) = (detached, self.pid)
            && !std::thread::panicking()
        {
            wait_for_the_end(pid);
        }
    }
}

/// Ends a process that the test started, also when the test fails.
pub struct Running(pub std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ended = self.0.kill();
        }
        let _status = self.0.wait();
    }
}

/// Names in a directory, sorted.
pub fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

pub fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// Runs a shell script in a directory; panics with its output when it fails.
pub fn shell(dir: impl AsRef<OsStr>, script: &str) -> String {
    let output = Command::new("bash")
        .arg("-euc")
        .arg(format!("cd \"$1\"\n{script}"))
        .arg("shell")
        .arg(dir.as_ref())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if let Some(missing) = programs::missing_in(&complaint).filter(|_| !output.status.success()) {
        panic!("{missing}");
    }
    assert!(
        output.status.success(),
        "{script}\n{}\n{complaint}",
        String::from_utf8_lossy(&output.stdout),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The blocks of 512 bytes that a tree takes on the disk, without its directories.
pub fn blocks(dir: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            total += blocks(&entry.path());
        } else {
            total += meta.blocks();
        }
    }
    total
}
