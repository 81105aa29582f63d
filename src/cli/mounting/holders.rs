//! Which processes have to do with a mount: the daemon that serves it, and those that keep it busy.
//!
//! Everything is read from `/proc`, so only processes that the caller may look at are found.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys::readable::readable_before;

/// The line of `/proc/PID/fdinfo/N` that names the connection of an opened `/dev/fuse` (Linux 6.x).
const CONNECTION_FIELD: &str = "fuse_connection:";

/// Busy processes that a message names at most.
const SHOWN_USERS: usize = 5;

/// A process that serves a FUSE connection, held so that its number cannot be mistaken for a later
/// process's.
#[derive(Debug)]
pub(in crate::cli) struct Daemon {
    /// Its process id.
    pub pid: i32,
    handle: OwnedFd,
}

/// The processes that have a FUSE connection open, other than this one. Empty when the kernel does
/// not tell or they belong to others.
#[must_use]
pub(in crate::cli) fn daemons(connection: u32) -> Vec<Daemon> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    pids()
        .filter(|pid| *pid != own && serves(*pid, connection))
        .filter_map(|pid| {
            let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            // Between the look and the opening another process could have got the number.
            serves(pid, connection).then_some(Daemon { pid, handle })
        })
        .collect()
}

/// Waits until all of them have ended; returns those that have not after `limit`.
#[must_use]
pub(in crate::cli) fn wait(daemons: Vec<Daemon>, limit: Duration) -> Vec<Daemon> {
    let deadline = Instant::now() + limit;
    daemons
        .into_iter()
        .filter(|daemon| !daemon.ended_before(deadline))
        .collect()
}

impl Daemon {
    /// Whether it is suspended (SIGSTOP, a debugger).
    #[must_use]
    pub(in crate::cli) fn is_stopped(&self) -> bool {
        // The name of the program, in parentheses, may contain anything (proc_pid_stat(5)).
        let stat = std::fs::read_to_string(process(self.pid).join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|rest| rest.starts_with(['T', 't']))
    }

    /// Kills it.
    ///
    /// # Errors
    /// EPERM; ESRCH when it has ended.
    pub(in crate::cli) fn kill(&self) -> rustix::io::Result<()> {
        pidfd_send_signal(&self.handle, Signal::KILL)
    }

    fn ended_before(&self, deadline: Instant) -> bool {
        readable_before(&self.handle, deadline).unwrap_or_else(|err| {
            log::debug!("poll(pidfd of {}): {err}", self.pid);
            false
        })
    }
}

/// Who keeps a mount busy, as `PID (NAME)`, at most a few; for a message.
#[must_use]
pub(in crate::cli) fn users(mountpoint: &Path) -> Vec<String> {
    pids()
        .filter(|pid| uses(*pid, mountpoint))
        .take(SHOWN_USERS)
        .map(|pid| format!("{pid} ({})", name(pid)))
        .collect()
}

fn pids() -> impl Iterator<Item = i32> {
    names(Path::new("/proc")).filter_map(|name| name.parse().ok())
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    // A process that ended meanwhile, or one of another user, has no entries.
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn serves(pid: i32, connection: u32) -> bool {
    let process = process(pid);
    names(&process.join("fd")).any(|fd| {
        std::fs::read_link(process.join("fd").join(&fd))
            .is_ok_and(|target| target.as_os_str() == "/dev/fuse")
            && std::fs::read_to_string(process.join("fdinfo").join(&fd))
                .is_ok_and(|info| connection_of(&info) == Some(connection))
    })
}

fn connection_of(fdinfo: &str) -> Option<u32> {
    let line = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix(CONNECTION_FIELD))?;
    line.trim().parse().ok()
}

fn uses(pid: i32, mountpoint: &Path) -> bool {
    let process = process(pid);
    let below =
        |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(mountpoint));
    ["cwd", "root", "exe"]
        .iter()
        .any(|link| below(process.join(link)))
        || names(&process.join("fd")).any(|fd| below(process.join("fd").join(fd)))
        || maps(&process, mountpoint)
}

/// A mapped file keeps a mount busy without a descriptor. The path is the sixth column of `maps`.
fn maps(process: &Path, mountpoint: &Path) -> bool {
    std::fs::read(process.join("maps")).is_ok_and(|maps| {
        String::from_utf8_lossy(&maps)
            .lines()
            .filter_map(|line| line.find('/').and_then(|start| line.get(start..)))
            .any(|path| Path::new(path).starts_with(mountpoint))
    })
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(process(pid).join("comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
}

fn process(pid: i32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::process::Command;

    use super::*;

    #[test]
    fn the_connection_is_read_from_fdinfo() {
        assert_eq!(
            connection_of("pos:\t0\nflags:\t02100002\nfuse_connection:\t55\n"),
            Some(55)
        );
        assert_eq!(connection_of("pos:\t0\nflags:\t02100002\n"), None);
        assert_eq!(connection_of("fuse_connection:\tx\n"), None);
    }

    #[test]
    fn users_of_a_directory_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert!(users(&path).is_empty());
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(&path)
            .spawn()
            .unwrap();
        let found = users(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [format!("{} (sleep)", child.id())]);
    }

    #[test]
    fn ends_are_seen() {
        let daemon_of = |child: &std::process::Child| {
            let pid = i32::try_from(child.id()).unwrap();
            let handle = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
            Daemon { pid, handle }
        };
        let mut long = Command::new("sleep").arg("60").spawn().unwrap();
        let mut short = Command::new("sleep").arg("0.05").spawn().unwrap();
        let left = wait(
            vec![daemon_of(&long), daemon_of(&short)],
            Duration::from_millis(500),
        );
        assert_eq!(left.len(), 1);
        assert_eq!(u32::try_from(left[0].pid).unwrap(), long.id());
        long.kill().unwrap();
        long.wait().unwrap();
        short.wait().unwrap();
    }

    #[test]
    fn one_that_is_suspended_is_known_and_can_be_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let daemon = Daemon {
            pid: pid.as_raw_nonzero().get(),
            handle: pidfd_open(pid, PidfdFlags::empty()).unwrap(),
        };
        assert!(!daemon.is_stopped());
        pidfd_send_signal(&daemon.handle, Signal::STOP).unwrap();
        let begun = Instant::now();
        while !daemon.is_stopped() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(daemon.is_stopped());
        daemon.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn no_process_serves_a_connection_that_does_not_exist() {
        assert!(daemons(u32::MAX).is_empty());
    }
}
