//! A mount from beginning to end: mount, go to the background, serve, unmount.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::fuser::Adapter;
use super::mountinfo;
use super::settings::{AllowOther, MountFlags, Settings};
use crate::sys::daemon::{self, Side};
use crate::sys::signals::Termination;
use crate::union::{SetupError, Union};

/// Fewest threads: one that waits for a slow disk must not be the only one.
const FEWEST_THREADS: usize = 2;
/// Most threads that are started without being asked for.
const MOST_THREADS: usize = 8;
/// How far the kernel reads ahead, in KiB: one largest request.
const READ_AHEAD_KIB: u32 = 1024;

/// Mounts a union and serves it until it is unmounted.
///
/// In the background (the default) the process forks as soon as the mount is usable, and the parent ends with
/// exit code 0 inside this call; in the foreground, and in the daemon, the process ends with exit code 0 when the
/// mount has ended. So the call returns only to say what went wrong.
///
/// # Errors
/// What the kernel or fusermount3 refused, with its cure; nothing is mounted then.
pub fn mount(union: Union, settings: Settings) -> Result<(), SetupError> {
    // Modes are decided by the callers' umasks, which come with each request.
    rustix::process::umask(rustix::fs::Mode::empty());
    // From here on a signal waits until it can be answered by unmounting; the daemon inherits that.
    let termination = Termination::block().map_err(|error| {
        SetupError::new(
            format!("cannot block signals: {error}"),
            "report this, it should not happen",
        )
    })?;
    let config = session_config(&settings, union.is_read_only());
    let adapter = Adapter::new(union, settings.clone(), config.n_threads.unwrap_or(1));
    let serving = adapter.serving();
    let session = match descriptor(&settings.mountpoint) {
        Some(fd) => {
            let fd = inherited(fd)?;
            let acl = config.acl;
            Session::from_fd(adapter, fd, acl, config)
        }
        None => Session::new(adapter, &settings.mountpoint, &config),
    }
    .map_err(|error| cannot_mount(&settings.mountpoint, &error))?;
    // Before anybody is told that it is mounted, and could mount something over it.
    let minor = minor_of(&settings.mountpoint);
    if !settings.foreground {
        match daemon::fork().and_then(|side| {
            if side == Side::Child {
                daemon::detach()?;
            }
            Ok(side)
        }) {
            Ok(Side::Parent) => daemon::exit_now(0),
            Ok(Side::Child) => {}
            Err(error) => {
                return Err(SetupError::new(
                    format!("cannot go to the background: {error}"),
                    "free memory or processes, or mount with --foreground",
                ));
            }
        }
    }
    unmount_on_signal(termination, settings.mountpoint.clone(), minor);
    set_read_ahead(minor);
    serving.store(true, Ordering::Release);
    // When the session is over the adapter ends the process.
    let ended = session.run();
    Err(SetupError::new(
        format!("the session broke off: {ended:?}"),
        "see the log, unmount with 'unionmount umount --force', and mount again",
    ))
}

/// The descriptor that a mount point of the form `/dev/fd/N` names: a FUSE device that was opened already
/// (mount.fuse3(8), `drop_privileges`).
#[must_use]
pub fn descriptor(mountpoint: &Path) -> Option<RawFd> {
    let number = mountpoint.to_str()?.strip_prefix("/dev/fd/")?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse().ok()
}

/// Takes over an inherited descriptor by a duplicate; the original is never touched again.
fn inherited(fd: RawFd) -> Result<OwnedFd, SetupError> {
    let path = format!("/proc/self/fd/{fd}");
    let bad = |error: io::Error| {
        SetupError::new(
            format!("/dev/fd/{fd}: {error}"),
            "give the number of an open /dev/fuse descriptor",
        )
    };
    std::fs::read_link(&path).map_err(bad)?;
    daemon::duplicate(fd).map_err(bad)
}

fn session_config(settings: &Settings, read_only: bool) -> Config {
    let mut options = vec![
        MountOption::FSName(settings.fsname.clone()),
        // fuser keeps its own Subtype from the kernel when it mounts directly; as a plain option it arrives.
        MountOption::CUSTOM(format!("subtype={}", settings.subtype)),
    ];
    if !settings.no_default_permissions {
        options.push(MountOption::DefaultPermissions);
    }
    let MountFlags {
        dev,
        suid,
        exec,
        noatime,
        nodiratime: _,
        sync,
        dirsync,
    } = settings.flags;
    let choose = |set, yes, no| if set { yes } else { no };
    options.push(choose(dev, MountOption::Dev, MountOption::NoDev));
    options.push(choose(suid, MountOption::Suid, MountOption::NoSuid));
    options.push(choose(exec, MountOption::Exec, MountOption::NoExec));
    if noatime {
        options.push(MountOption::NoAtime);
    }
    if sync {
        options.push(MountOption::Sync);
    }
    if dirsync {
        options.push(MountOption::DirSync);
    }
    if read_only {
        options.push(MountOption::RO);
    }
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = if allows_others(settings.allow_other) {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let cpus = std::thread::available_parallelism().map_or(FEWEST_THREADS, usize::from);
    let threads = cpus.clamp(FEWEST_THREADS, MOST_THREADS);
    config.n_threads = Some(settings.threads.unwrap_or(threads).max(1));
    config.clone_fd = true;
    config
}

/// Whether other users may use the mount: root may always allow it, others when `/etc/fuse.conf` says so.
fn allows_others(wish: AllowOther) -> bool {
    match wish {
        AllowOther::Yes => true,
        AllowOther::No => false,
        AllowOther::WhenPermitted => {
            rustix::process::geteuid().is_root()
                || File::open("/etc/fuse.conf").is_ok_and(|conf| {
                    BufReader::new(conf)
                        .lines()
                        .map_while(Result::ok)
                        .any(|line| line.trim() == "user_allow_other")
                })
        }
    }
}

fn cannot_mount(mountpoint: &Path, error: &io::Error) -> SetupError {
    let text = error.to_string();
    // fusermount3's own message ends with a line break and starts with its name.
    let text = text.trim().lines().next().unwrap_or("unknown error");
    let cure = if text.contains("user_allow_other") {
        "mount without allow_other, or ask root to set user_allow_other in /etc/fuse.conf"
    } else {
        match error.raw_os_error() {
            Some(libc::EACCES) => "make /dev/fuse accessible to you (chmod 666 /dev/fuse as root)",
            Some(libc::ENOENT) => "load the fuse module (modprobe fuse), or create the mount point",
            Some(libc::EPERM) => {
                "mount as root, in a user namespace (unshare -Urm), or install fuse3"
            }
            _ => "see dmesg, and whether fusermount3 (package fuse3) is installed",
        }
    };
    SetupError::new(
        format!("cannot mount at {}: {text}", mountpoint.display()),
        cure,
    )
}

/// SIGTERM, SIGINT, SIGHUP: unmount, lazily when somebody is still using the mount; the session then ends with
/// the last user.
fn unmount_on_signal(termination: Termination, mountpoint: PathBuf, minor: Option<u32>) {
    let waiter = std::thread::Builder::new()
        .name("unionmount-signals".into())
        .spawn(move || {
            loop {
                match termination.wait() {
                    Ok(signal) => log::info!("signal {signal}: unmounting"),
                    Err(error) => return log::error!("sigwait: {error}"),
                }
                // Behind an inherited descriptor is somebody else's mount: it stays, without us.
                if minor.is_none() {
                    crate::sys::daemon::exit_now(0);
                }
                // Only our own mount: meanwhile another one may be there.
                if minor.is_some() && minor == minor_of(&mountpoint) {
                    unmount(&mountpoint);
                }
            }
        });
    if let Err(error) = waiter {
        log::error!("cannot start the thread that waits for signals: {error}");
    }
}

fn unmount(mountpoint: &Path) {
    let result = rustix::mount::unmount(mountpoint, UnmountFlags::NOFOLLOW).or_else(|errno| {
        log::info!("unmount: {errno}; detaching instead");
        rustix::mount::unmount(mountpoint, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
    });
    match result {
        Ok(()) => {}
        Err(Errno::PERM) => unmount_by_helper(mountpoint),
        Err(errno) => log::error!("detach {}: {errno}", mountpoint.display()),
    }
}

/// What an ordinary user has mounted through fusermount3 is unmounted by it.
fn unmount_by_helper(mountpoint: &Path) {
    let helper = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(mountpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match helper {
        Ok(status) if status.success() => {}
        Ok(status) => log::error!("fusermount3 -u {}: {status}", mountpoint.display()),
        Err(error) => log::error!("fusermount3: {error}"),
    }
}

/// Lets the kernel read ahead by whole requests. FUSE's INIT can only lower the system's default; raising it
/// needs root and is not necessary, so failing is fine.
fn set_read_ahead(minor: Option<u32>) {
    let Some(minor) = minor else { return };
    let path = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    match std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        Ok(()) => log::debug!("{path}: {READ_AHEAD_KIB}"),
        Err(error) => log::debug!("{path}: {error}"),
    }
}

/// The minor device number of a mount, found without asking the mount itself.
fn minor_of(mountpoint: &Path) -> Option<u32> {
    let mounts = mountinfo::read().ok()?;
    mountinfo::at(&mounts, mountpoint).map(|mount| mount.minor)
}
