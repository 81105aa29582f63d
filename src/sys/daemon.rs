//! Leaving the terminal: fork, and what a daemon must close.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The process that was started.
    Parent(ReadyReceiver),
    /// The new one.
    Child(ReadySender),
}

/// Receives messages of the new process.
#[derive(Debug)]
pub(crate) struct ReadyReceiver(File);

/// Sends messages to the process that was started.
#[derive(Debug)]
pub(crate) struct ReadySender(File);

/// What is said when all is well.
const READY: &[u8] = b"\0";

impl ReadyReceiver {
    /// Waits until the new process is ready; else returns its reason, which is empty when it died
    /// without one.
    ///
    /// # Errors
    /// The reason.
    pub(crate) fn wait(mut self) -> Result<(), String> {
        let mut said = Vec::new();
        match self.0.read_to_end(&mut said) {
            Ok(_) if said == READY => Ok(()),
            Ok(_) => Err(String::from_utf8_lossy(&said).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl ReadySender {
    /// Everything works.
    ///
    /// # Errors
    /// EPIPE when the parent is gone.
    pub(crate) fn ready(mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }

    /// It does not, and why.
    ///
    /// # Errors
    /// EPIPE when the parent is gone.
    pub(crate) fn failed(mut self, reason: &str) -> io::Result<()> {
        self.0.write_all(reason.as_bytes())
    }
}

/// fork(2), with a pipe from the new process to the one that was started. Only to be called while
/// the process has a single thread: the child has only the calling one, and locks that others held
/// would stay locked.
///
/// # Errors
/// EAGAIN, ENOMEM, EMFILE.
pub(crate) fn fork() -> io::Result<Side> {
    let (read, write) = io::pipe()?;
    // SAFETY: fork itself touches no memory of ours; the caller promises that there is one thread
    // only, so that the child may use everything that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child(ReadySender(File::from(OwnedFd::from(write))))),
        _ => Ok(Side::Parent(ReadyReceiver(File::from(OwnedFd::from(read))))),
    }
}

/// Ends the process at once, without running destructors: the parent must not unmount what the
/// child serves.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// A session of its own, `/` as current directory, and `/dev/null` in the place of the standard
/// streams: a process that waits for the end of a pipe that it passed as standard error must not
/// wait for ever.
///
/// # Errors
/// Those of setsid(2), chdir(2), open(2), dup2(2).
pub(crate) fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Closes every descriptor above the standard streams but `keep`. Only to be called first thing in
/// a process: then all of them were inherited, and no part of the program owns one.
///
/// # Errors
/// Those of close_range(2), except that it is missing (kernels before 5.9).
pub(crate) fn close_inherited(keep: Option<RawFd>) -> io::Result<()> {
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(());
        }
        // SAFETY: the caller promises that nothing in this process owns a descriptor of the range.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        }
    };
    match keep
        .and_then(|fd| u32::try_from(fd).ok())
        .filter(|fd| *fd > 2)
    {
        Some(fd) => {
            close(3, fd - 1)?;
            close(fd.saturating_add(1), u32::MAX)
        }
        None => close(3, u32::MAX),
    }
}

/// Puts `/dev/null` in the place of a descriptor that belongs to something which cannot be made to
/// close it.
///
/// # Errors
/// Those of open(2) and dup3(2).
pub(crate) fn release(fd: BorrowedFd<'_>) -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: both descriptors are open; the owner of the second one goes on owning an open
    // descriptor.
    match unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A descriptor of our own for one that another program handed to us by number.
///
/// # Errors
/// EBADF when there is none, EMFILE.
pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is not negative, and the borrow ends with this call, which fails with
    // EBADF when the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}
