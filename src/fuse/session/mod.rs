//! A mount from beginning to end: mount, go to the background, serve, unmount.

mod handshake;
mod labels;
mod options;
mod unmounting;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use fuser::{Config, Filesystem, Session};

use crate::fuse::init::TransportKind;
use crate::fuse::settings::{Settings, Transport};
use crate::fuse::transport;
use crate::fuse::transport::fuser::Adapter;
use crate::sys::daemon::{self, ReadySender, Side};
use crate::sys::signals::Termination;
use crate::union::{SetupError, Union};
use handshake::Handshake;
use options::{cannot_mount, session_config};
use unmounting::{minor_of, unmount_on_signal, unmount_ours};

/// How far the kernel reads ahead, in KiB: one largest request.
const READ_AHEAD_KIB: u32 = 1024;

/// Mounts a union and serves it until it is unmounted.
///
/// In the background (the default) the process forks as soon as the mount is usable, and the parent
/// ends with exit code 0 inside this call; in the foreground, and in the daemon, the process ends
/// with exit code 0 when the mount has ended. So the call returns only to say what went wrong.
///
/// # Errors
/// What the kernel or fusermount3 refused, with its cure; nothing is mounted then.
pub(crate) fn mount(union: Union, settings: Settings) -> Result<(), SetupError> {
    // Modes are decided by the callers' umasks, which come with each request.
    rustix::process::umask(rustix::fs::Mode::empty());
    // From here on a signal waits until it can be answered by unmounting; the daemon inherits that.
    let blocked = if settings.foreground {
        Termination::block_for_foreground()
    } else {
        Termination::block()
    };
    let termination = blocked.map_err(|error| {
        SetupError::new(
            format!("cannot block signals: {error}"),
            "report this, it should not happen",
        )
        .caused_by(&error)
    })?;
    let kind = transport_kind(&settings)?;
    let union = Arc::new(union);
    let plan = Plan {
        settings,
        termination,
    };
    let end = match plan.mount_and_serve(&union, kind) {
        // The mount is gone again: no program has used it, and another one may do.
        Err(Failed::Start(reason)) if plan.may_do_without(kind) => {
            log::warn!("{reason}; going on without io_uring");
            plan.mount_and_serve(&union, TransportKind::Dev)
        }
        end => end,
    };
    end.map_err(|failed| match failed {
        Failed::Start(reason) => cannot_serve(&reason),
        Failed::ForGood(error) => error,
    })
}

/// How requests will come. Errors: io_uring was asked for and is not there.
fn transport_kind(settings: &Settings) -> Result<TransportKind, SetupError> {
    let usable = crate::sys::ring_probe::usable;
    match settings.transport {
        Transport::Fuser => Ok(TransportKind::Fuser),
        Transport::Dev => Ok(TransportKind::Dev),
        Transport::Uring => match usable() {
            Ok(()) => Ok(TransportKind::Uring),
            Err(why) => Err(SetupError::new(
                format!("io_uring cannot be used: {why}"),
                "mount with -o transport=dev or transport=auto",
            )),
        },
        Transport::Auto => match usable() {
            Ok(()) => Ok(TransportKind::Uring),
            Err(why) => {
                log::debug!("no io_uring: {why}");
                Ok(TransportKind::Dev)
            }
        },
    }
}

fn open_session<F: Filesystem>(
    filesystem: F,
    mountpoint: &Path,
    config: Config,
) -> Result<Session<F>, SetupError> {
    match descriptor(mountpoint) {
        Some(fd) => {
            let fd = inherited(fd)?;
            let acl = config.acl;
            Session::from_fd(filesystem, fd, acl, config)
        }
        None => Session::new(filesystem, mountpoint, &config),
    }
    .map_err(|error| cannot_mount(mountpoint, &error))
}

/// Why nothing is served.
enum Failed {
    /// The mount was made, could not be served, and is gone again.
    Start(String),
    /// Anything else.
    ForGood(SetupError),
}

impl From<SetupError> for Failed {
    fn from(error: SetupError) -> Self {
        Self::ForGood(error)
    }
}

/// What is asked for, whatever the requests come by.
struct Plan {
    settings: Settings,
    termination: Termination,
}

impl Plan {
    /// Whether another mount may be made where this one could not be served.
    fn may_do_without(&self, kind: TransportKind) -> bool {
        let ours_to_mount = descriptor(&self.settings.mountpoint).is_none();
        kind == TransportKind::Uring && self.settings.transport == Transport::Auto && ours_to_mount
    }

    /// Writes to standard output where the mount is. That it cannot be written is no failure of the
    /// mount.
    fn announce(&self) {
        use std::io::Write as _;
        if let Some(line) = &self.settings.announce {
            let mut out = io::stdout().lock();
            if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                log::debug!("standard output: {error}");
            }
        }
    }

    fn mount_and_serve(&self, union: &Arc<Union>, kind: TransportKind) -> Result<(), Failed> {
        let settings = &self.settings;
        let config = session_config(settings, union.is_wholly_read_only());
        let served = Arc::clone(union);
        let union = Arc::clone(union);
        // A session that is dropped unmounts whatever is at the mount point by then: none ever is.
        if kind == TransportKind::Fuser {
            let adapter = Adapter::new(union, settings.clone(), config.n_threads.unwrap_or(1));
            let begin = adapter.begin();
            let session = ManuallyDrop::new(open_session(adapter, &settings.mountpoint, config)?);
            let connection = session.as_fd().try_clone_to_owned();
            return self.serve(served, move || {
                begin.begin(connection?)?;
                // When the session is over the adapter ends the process.
                Ok(move || format!("{:?}", ManuallyDrop::into_inner(session).run()))
            });
        }
        let handshake = Handshake::new(Arc::clone(&union), settings.clone(), kind);
        let agreed = handshake.agreed();
        let session = ManuallyDrop::new(open_session(handshake, &settings.mountpoint, config)?);
        // Who waits for a mount that could not be served is freed by closing its device: all of
        // them must be ours to close.
        let device = session
            .as_fd()
            .try_clone_to_owned()
            .and_then(|device| daemon::release(session.as_fd()).map(|()| device));
        let must_be_uring = settings.transport == Transport::Uring;
        let threads = settings.threads;
        let held = settings.held.clone();
        self.serve(served, move || {
            let agreed = agreed.get().copied().unwrap_or_default();
            if must_be_uring && !agreed.uring {
                return Err(io::Error::other("the kernel did not agree to use io_uring"));
            }
            let running = transport::start(union, agreed, device?, threads)?;
            Ok(move || {
                running.join(&held);
                daemon::exit_now(0)
            })
        })
    }

    /// Goes to the background, starts serving, says that the mount is usable, and serves until it
    /// ends. `start` returns what waits for the end and says why it came.
    fn serve<W: FnOnce() -> String>(
        &self,
        union: Arc<Union>,
        start: impl FnOnce() -> io::Result<W>,
    ) -> Result<(), Failed> {
        // Before the mount is announced, and something could be mounted over it.
        let minor = minor_of(&self.settings.mountpoint);
        let parent = self.go_to_background(minor)?;
        let detached = match &parent {
            Some(_) => daemon::detach(),
            None => Ok(()),
        };
        let end = match detached.and_then(|()| start()) {
            Ok(end) => end,
            Err(error) => return Err(self.cannot_start(&error, minor, parent)),
        };
        // A signal that came meanwhile is answered now.
        let mountpoint = self.settings.mountpoint.clone();
        unmount_on_signal(self.termination, mountpoint, minor, union);
        set_read_ahead(minor);
        match parent {
            None => self.announce(),
            // The parent may be gone: the mount is there all the same.
            Some(parent) => {
                if let Err(error) = parent.ready() {
                    log::warn!("report to the parent: {error}");
                }
            }
        }
        let ended = end();
        Err(Failed::ForGood(SetupError::new(
            format!("the session broke off: {ended}"),
            "see the log, unmount with 'unionmount umount --force', and mount again",
        )))
    }

    /// Forks, unless the mount stays in the foreground; returns what tells the parent. The parent
    /// ends here when the mount is usable.
    fn go_to_background(&self, minor: Option<u32>) -> Result<Option<ReadySender>, Failed> {
        if self.settings.foreground {
            return Ok(None);
        }
        let mountpoint = &self.settings.mountpoint;
        match daemon::fork() {
            Ok(Side::Child(parent)) => Ok(Some(parent)),
            Ok(Side::Parent(child)) => match child.wait() {
                Ok(()) => {
                    self.announce();
                    daemon::exit_now(0)
                }
                Err(reason) => {
                    // The daemon has unmounted unless it was killed.
                    unmount_ours(mountpoint, minor);
                    Err(Failed::Start(reason))
                }
            },
            Err(error) => {
                unmount_ours(mountpoint, minor);
                Err(Failed::ForGood(
                    SetupError::new(
                        format!("cannot go to the background: {error}"),
                        "free memory or processes, or mount with --foreground",
                    )
                    .caused_by(&error),
                ))
            }
        }
    }

    /// Unmounts what could not be served. Does not return in a daemon, which leaves the message to
    /// its parent.
    fn cannot_start(
        &self,
        error: &io::Error,
        minor: Option<u32>,
        parent: Option<ReadySender>,
    ) -> Failed {
        unmount_ours(&self.settings.mountpoint, minor);
        let Some(parent) = parent else {
            return Failed::Start(error.to_string());
        };
        if let Err(unheard) = parent.failed(&error.to_string()) {
            log::error!("{error}; and the parent is gone: {unheard}");
        }
        daemon::exit_now(1)
    }
}

/// The mount was made and given up again.
fn cannot_serve(reason: &str) -> SetupError {
    let reason = if reason.is_empty() {
        "the daemon died"
    } else {
        reason
    };
    SetupError::new(
        format!("cannot serve the mount: {reason}"),
        "mount with -o transport=dev, or see the log (--log-file)",
    )
}

/// The descriptor that a mount point of the form `/dev/fd/N` names: a FUSE device that was opened
/// already (mount.fuse3(8), `drop_privileges`).
#[must_use]
pub(crate) fn descriptor(mountpoint: &Path) -> Option<RawFd> {
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
            "pass the number of an open /dev/fuse descriptor",
        )
        .caused_by(&error)
    };
    std::fs::read_link(&path).map_err(bad)?;
    daemon::duplicate(fd).map_err(bad)
}

/// Lets the kernel read ahead by whole requests. FUSE's INIT can only lower the system's default;
/// raising it needs root and is not necessary, so failing is fine.
fn set_read_ahead(minor: Option<u32>) {
    let Some(minor) = minor else { return };
    let path = format!("/sys/class/bdi/0:{minor}/read_ahead_kb");
    match std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        Ok(()) => log::debug!("{path}: {READ_AHEAD_KIB}"),
        Err(error) => log::debug!("{path}: {error}"),
    }
}
