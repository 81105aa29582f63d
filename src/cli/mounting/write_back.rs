//! Having a mount written to its disks before it is taken away, in bounded time whatever its daemon
//! does.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::io::Errno;

use super::holders::Daemon;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::shown;
use crate::fuse::control::{PING, SYNC};
use crate::sys::control_child::{Answer, ControlChild, ControlRequest};
use crate::sys::mountinfo::Mount;

/// How long writing back takes before it is looked whether the daemon lives, and how often then.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// How long a daemon that lives may take to say so.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Why not everything is known to be on the disks.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// The daemon does not answer: it may do so later, or never.
    Silent(String),
    /// There is no daemon, or a disk failed.
    Failed(String),
}

impl From<Unwritten> for Failure {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Silent(message) | Unwritten::Failed(message) => Self::Operation(message),
        }
    }
}

/// Has the kernel write back what it holds, and the daemon sync the upper's disk. Unmounting would
/// do it too, but could not report what went wrong.
///
/// # Errors
/// See [`Unwritten`]. A mount that this user may not look into is no error: it is written back when
/// it is unmounted.
pub(super) fn write_back(mount: &Mount, daemons: &[Daemon]) -> Result<(), Unwritten> {
    let question = ControlRequest {
        syncfs: true,
        ioctl: SYNC,
    };
    let at = shown(&mount.mountpoint);
    let Some(mut asking) = ask(mount, question) else {
        return Ok(());
    };
    let answer = loop {
        match asking.wait(LOOK_AFTER) {
            Ok(Some(answer)) => break answer,
            Ok(None) if lives(mount) => {}
            Ok(None) => return Err(Unwritten::Silent(silent(mount, daemons))),
            Err(err) => {
                log::warn!("{at} is not synced before it is unmounted: {err}");
                return Ok(());
            }
        }
    };
    match answer {
        Answer::Done => Ok(()),
        Answer::Open(Errno::NOTCONN) => Err(Unwritten::Failed(format!(
            "the daemon of {at} was killed; run {}",
            this_command("--force", mount)
        ))),
        // Not even root may look into another user's mount; the daemon still syncs when it is
        // unmounted.
        Answer::Open(err) => {
            log::debug!("open({at}) to sync it: {err}");
            Ok(())
        }
        // A daemon of an earlier version.
        Answer::Ioctl(err @ (Errno::NOTTY | Errno::NOSYS | Errno::ACCESS)) => {
            log::debug!("ask the daemon of {at} to sync: {err}");
            Ok(())
        }
        Answer::Syncfs(err) => Err(Unwritten::Failed(format!(
            "cannot write everything back to the upper of {at}: {err}; make room or repair its disk, or give up the rest with {}",
            this_command("--force", mount)
        ))),
        Answer::Ioctl(err) => Err(Unwritten::Failed(format!(
            "the upper's disk of {at} did not take everything: {err}; what was written since it was last synced may be lost, see dmesg, and unmount with {}",
            this_command("--force", mount)
        ))),
    }
}

/// This command with another option, to be copied from a message into a shell.
pub(super) fn this_command(option: &str, mount: &Mount) -> String {
    format!(
        "`unionmount umount {option} {}`",
        mount.mountpoint.display()
    )
}

fn ask(mount: &Mount, question: ControlRequest) -> Option<ControlChild> {
    let asking = CString::new(mount.mountpoint.as_os_str().as_bytes())
        .map_err(std::io::Error::from)
        .and_then(|root| ControlChild::start(&root, question));
    asking
        .inspect_err(|err| log::warn!("cannot ask {}: {err}", shown(&mount.mountpoint)))
        .ok()
}

/// Whether the daemon answers at all. When that cannot be found out it is believed to.
fn lives(mount: &Mount) -> bool {
    let question = ControlRequest {
        syncfs: false,
        ioctl: PING,
    };
    ask(mount, question).is_none_or(|mut asking| !matches!(asking.wait(ANSWER_WITHIN), Ok(None)))
}

fn silent(mount: &Mount, daemons: &[Daemon]) -> String {
    let at = shown(&mount.mountpoint);
    let give_up = format!(
        "give up what it has not written with {}",
        this_command("--force", mount)
    );
    match daemons {
        [] => format!("the daemon of {at} does not answer; {give_up}"),
        [daemon, ..] if daemon.is_stopped() => format!(
            "the daemon of {at} (process {pid}) is suspended; let it go on with 'kill -CONT {pid}', or {give_up}",
            pid = daemon.pid
        ),
        [daemon, ..] => format!(
            "the daemon of {at} (process {}) does not answer; see whether it is frozen or its disk hangs, or {give_up}",
            daemon.pid
        ),
    }
}
