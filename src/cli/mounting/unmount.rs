//! Unmounting: have everything written to the disks, take the mount away, wait until its daemon has
//! ended.
//!
//! The order matters: who serves the mount is only known while it is mounted, so the daemon is
//! found first; a script that mounts the same directories again right after this command finds the
//! work directory unlocked.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::holders::{self, Daemon};
use super::privilege;
use super::write_back::{Unwritten, this_command, write_back};
use crate::cli::ui::exit::{Failure, complain};
use crate::cli::ui::shown;
use crate::sys::mountinfo::{self, Mount};

/// How long a daemon may take to write back and end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How long a daemon may take that was told to give up.
const FORCED_END_LIMIT: Duration = Duration::from_secs(2);

/// How long a mount may be busy without a user that can be seen.
const A_MOMENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Where the kernel lists FUSE connections (fusectl, `Documentation/filesystems/fuse.rst`).
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// What is to be unmounted, and how.
#[derive(Debug)]
pub(in crate::cli) struct Unmount {
    /// Detach now, even when it is in use.
    pub lazy: bool,
    /// The daemon was killed or hangs: what it had not written is lost.
    pub force: bool,
    /// Where the union is mounted.
    pub mountpoint: PathBuf,
}

/// Unmounts. Returns the source of what was mounted.
///
/// # Errors
/// [`Failure::Operation`]: no union is mounted there, it is in use, it is not permitted, or the
/// daemon does not end.
pub(in crate::cli) fn take_away(args: &Unmount) -> Result<String, Failure> {
    let mounts = mountinfo::read().map_err(|err| {
        Failure::Operation(format!(
            "cannot read /proc/self/mountinfo: {err}; mount proc on /proc"
        ))
    })?;
    let mount = find(&mounts, &args.mountpoint)?;
    let daemons = holders::daemons(mount.minor);
    if args.force {
        force(mount, daemons)?;
    } else if args.lazy {
        match write_back(mount, &daemons) {
            // It may write when it goes on.
            Err(Unwritten::Silent(message)) => complain(&message),
            other => other?,
        }
        detach(mount, UnmountFlags::DETACH)?;
    } else {
        write_back(mount, &daemons)?;
        detach(mount, UnmountFlags::empty())?;
        await_end(mount, daemons)?;
    }
    Ok(mount.source.clone())
}

/// Finds the mount at a path. The mountpoint itself is touched only when it has to be: on a dead
/// mount that fails, on a hung one it never returns.
fn find<'a>(mounts: &'a [Mount], given: &Path) -> Result<&'a Mount, Failure> {
    let mount = beside(given)
        .and_then(|path| mountinfo::at(mounts, &path))
        .or_else(|| mountinfo::at(mounts, &given.canonicalize().ok()?));
    match mount {
        Some(mount) if mount.is_ours() => Ok(mount),
        Some(mount) => Err(Failure::Operation(format!(
            "{} is a mount of type {}, not a union; use umount(8) or fusermount3 -u",
            shown(given),
            mount.fs_type
        ))),
        None => Err(match given.symlink_metadata() {
            Ok(_) => Failure::Operation(format!(
                "nothing is mounted on {}; see 'findmnt -t fuse.unionmount,fuse.fuse-overlayfs'",
                shown(given)
            )),
            Err(err) => Failure::Operation(format!(
                "{}: {err}; name the directory of a mounted union",
                shown(given)
            )),
        }),
    }
}

/// The absolute path of a directory entry, found through its parent.
fn beside(given: &Path) -> Option<PathBuf> {
    let name = given.file_name()?;
    let parent = match given.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Some(parent.canonicalize().ok()?.join(name))
}

/// Takes the mount away, through the helper where the caller may not do it.
fn detach(mount: &Mount, flags: UnmountFlags) -> Result<(), Failure> {
    let begun = Instant::now();
    let unmounted = loop {
        match unmount(&mount.mountpoint, flags | UnmountFlags::NOFOLLOW) {
            // A process that looks through /proc, or starts a program, may hold it for a moment.
            Err(Errno::BUSY) if begun.elapsed() < A_MOMENT && has_no_visible_user(mount) => {
                std::thread::sleep(PAUSE);
            }
            other => break other,
        }
    };
    match unmounted {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy(mount)),
        Err(Errno::PERM) => detach_by_helper(mount, flags.contains(UnmountFlags::DETACH)),
        Err(err) => Err(refused(mount, err)),
    }
}

/// Whether neither a process nor another mount is seen to keep a mount busy.
fn has_no_visible_user(mount: &Mount) -> bool {
    holders::users(&mount.mountpoint).is_empty() && mount_below(mount).is_none()
}

/// A mount on this one.
fn mount_below(mount: &Mount) -> Option<Mount> {
    let mounts = mountinfo::read().unwrap_or_default();
    mounts
        .into_iter()
        .find(|other| other.parent == mount.id && other.mountpoint != mount.mountpoint)
}

fn detach_by_helper(mount: &Mount, lazy: bool) -> Result<(), Failure> {
    let path = shown(&mount.mountpoint);
    let Some(helper) = privilege::find_helper() else {
        return Err(Failure::Operation(format!(
            "no permission to unmount {path}; install fuse3 (for fusermount3), or run as root"
        )));
    };
    let output = Command::new(&helper)
        .arg("-u")
        .args(lazy.then_some("-z"))
        .arg("--")
        .arg(&mount.mountpoint)
        .output()
        .map_err(|err| {
            Failure::Operation(format!(
                "cannot run {}: {err}; repair the package fuse3",
                shown(&helper)
            ))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Err(busy(mount));
    }
    if wants_mount_table(&said) {
        return Err(Failure::Operation(format!(
            "cannot unmount {path}: {} reads /etc/mtab, which is missing; run 'ln -s /proc/self/mounts /etc/mtab' as root, or unmount it as root",
            shown(&helper)
        )));
    }
    Err(Failure::Operation(format!(
        "no permission to unmount {path}, and {} cannot: {}; unmount it as the user who mounted it, or as root",
        shown(&helper),
        without_prefix(&said)
    )))
}

/// Whether fusermount3 failed for the table of mounts alone, which it knows under an old name only.
fn wants_mount_table(said: &str) -> bool {
    said.contains("/etc/mtab") && said.contains("No such file") && !Path::new("/etc/mtab").exists()
}

/// The first line of what a program said, without its name in front.
fn without_prefix(said: &str) -> &str {
    let line = said.trim().lines().next().unwrap_or("no reason given");
    line.split_once(": ")
        .filter(|(name, _)| name.contains("fusermount") && !name.contains(' '))
        .map_or(line, |(_, rest)| rest)
}

fn refused(mount: &Mount, err: Errno) -> Failure {
    // A mount that a user namespace inherited is locked to what lies below it
    // (mount_namespaces(7)).
    let cure = if err == Errno::INVAL {
        "unmount it in the mount namespace where it was mounted"
    } else {
        "see whether it is still listed by findmnt"
    };
    Failure::Operation(format!(
        "cannot unmount {}: {err}; {cure}",
        shown(&mount.mountpoint)
    ))
}

fn busy(mount: &Mount) -> Failure {
    let path = shown(&mount.mountpoint);
    let lazy = this_command("--lazy", mount);
    let below = mount_below(mount);
    let users = holders::users(&mount.mountpoint);
    Failure::Operation(match (below, users.is_empty()) {
        (Some(below), _) => {
            format!(
                "{path} is in use: {} is mounted on it; unmount that first",
                shown(&below.mountpoint)
            )
        }
        (None, true) => format!("{path} is in use; run {lazy}"),
        (None, false) => format!(
            "{path} is in use by process {}; end it, or run {lazy}",
            users.join(", ")
        ),
    })
}

fn await_end(mount: &Mount, daemons: Vec<Daemon>) -> Result<(), Failure> {
    let left = holders::wait(daemons, END_LIMIT);
    match left.first() {
        None => Ok(()),
        Some(daemon) => Err(Failure::Operation(format!(
            "{} is unmounted here, but its daemon (process {}) still runs after {} s; it is mounted in another mount namespace (a container?), or it hangs: then end it with kill",
            shown(&mount.mountpoint),
            daemon.pid,
            END_LIMIT.as_secs()
        ))),
    }
}

/// Aborts the connection first, so that nothing waits for the daemon any more; each way is tried
/// because which one is permitted depends on who is asking.
fn force(mount: &Mount, daemons: Vec<Daemon>) -> Result<(), Failure> {
    abort(mount.minor);
    match unmount(
        &mount.mountpoint,
        UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    ) {
        Ok(()) => {}
        // Forcing needs root of the whole machine, detaching only root of the user namespace.
        Err(Errno::PERM) => detach(mount, UnmountFlags::DETACH)?,
        Err(err) => return Err(refused(mount, err)),
    }
    // Nothing reaches it any more, and what it has not written yet was given up: it only keeps the
    // directories busy.
    let stuck = holders::wait(daemons, FORCED_END_LIMIT);
    for daemon in &stuck {
        if let Err(err) = daemon.kill() {
            log::debug!("kill process {}: {err}", daemon.pid);
        }
    }
    for daemon in holders::wait(stuck, FORCED_END_LIMIT) {
        complain(&format!(
            "{} is unmounted, but its daemon (process {}) cannot be ended; see whether a disk of its layers hangs",
            shown(&mount.mountpoint),
            daemon.pid
        ));
    }
    Ok(())
}

fn abort(connection: u32) {
    let path = Path::new(CONNECTIONS)
        .join(connection.to_string())
        .join("abort");
    let result = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(b"1"));
    if let Err(err) = result {
        // fusectl is not mounted, or the mount is another user's: unmounting by force is still
        // there.
        log::debug!("abort through {}: {err}", path.display());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn mount(path: &Path, fs_type: &str) -> Mount {
        Mount {
            id: 1,
            parent: 0,
            minor: 5,
            mountpoint: path.to_owned(),
            fs_type: fs_type.to_owned(),
            source: String::new(),
        }
    }

    #[test]
    fn a_mount_is_found_by_any_path_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("a/m")).unwrap();
        std::os::unix::fs::symlink("a", top.join("link")).unwrap();
        std::os::unix::fs::symlink("a/m", top.join("direct")).unwrap();
        let mounts = [mount(&top.join("a/m"), "fuse.unionmount")];
        for path in [
            "a/m",
            "a/m/",
            "link/m",
            "link/../a/m",
            "direct",
            "a/m/.",
            "a/m/../m",
        ] {
            assert!(find(&mounts, &top.join(path)).is_ok(), "{path}");
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let message = |mounts: &[Mount], path: &Path| find(mounts, path).unwrap_err().to_string();
        assert!(
            message(&[mount(&path, "tmpfs")], &path)
                .contains("of type tmpfs, not a union; use umount(8)")
        );
        assert!(message(&[], &path).contains("nothing is mounted on"));
        assert!(message(&[], &path.join("missing")).contains("No such file or directory"));
    }

    #[test]
    fn what_the_helper_said() {
        let cases = [
            (
                "fusermount3: entry for /m not found in /etc/mtab\n",
                "entry for /m not found in /etc/mtab",
            ),
            ("/usr/bin/fusermount3: no\n", "no"),
            ("odd: thing\nmore", "odd: thing"),
            ("", "no reason given"),
        ];
        for (said, expected) in cases {
            assert_eq!(without_prefix(said), expected);
        }
    }

    #[test]
    fn a_relative_path_is_found_through_the_current_directory() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            beside(Path::new("x")).unwrap(),
            here.canonicalize().unwrap().join("x")
        );
        assert_eq!(beside(Path::new("/")), None);
    }
}
