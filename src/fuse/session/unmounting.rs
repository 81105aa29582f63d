//! Unmounting: on signals, and when a mount that was made cannot be served.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::fuse::serve::sync_at_end;
use crate::sys::mountinfo;
use crate::sys::signals::Termination;
use crate::union::Union;

/// SIGTERM, SIGINT, SIGHUP: unmount, lazily when the mount is in use; the session then ends with
/// the last user.
pub(super) fn unmount_on_signal(
    termination: Termination,
    mountpoint: PathBuf,
    minor: Option<u32>,
    union: Arc<Union>,
) {
    let waiter = std::thread::Builder::new()
        .name("unionmount-signals".into())
        .spawn(move || {
            loop {
                match termination.wait() {
                    Ok(signal) => log::info!("signal {signal}: unmounting"),
                    Err(error) => return log::error!("sigwait: {error}"),
                }
                // Behind an inherited descriptor is another program's mount: it stays, without this
                // daemon.
                if minor.is_none() {
                    sync_at_end(&union);
                    crate::sys::daemon::exit_now(0);
                }
                unmount_ours(&mountpoint, minor);
            }
        });
    if let Err(error) = waiter {
        log::error!("cannot start the thread that waits for signals: {error}");
    }
}

/// Unmounts what has this device number; another mount may be there meanwhile, which stays.
pub(super) fn unmount_ours(mountpoint: &Path, minor: Option<u32>) {
    if minor.is_some() && minor == minor_of(mountpoint) {
        unmount(mountpoint);
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
        Ok(status) => log::error!(
            "fusermount3 -u {}: {status}{}",
            mountpoint.display(),
            match Path::new("/etc/mtab").exists() {
                true => "",
                false => "; it reads /etc/mtab, which is missing (a link to /proc/self/mounts)",
            }
        ),
        Err(error) => log::error!("fusermount3: {error}"),
    }
}

/// The minor device number of a mount, found without asking the mount itself.
pub(super) fn minor_of(mountpoint: &Path) -> Option<u32> {
    let mounts = mountinfo::read().ok()?;
    mountinfo::at(&mounts, mountpoint).map(|mount| mount.minor)
}
