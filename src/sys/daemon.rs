//! Leaving the terminal: fork, and what a daemon must let go of.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The process that was started.
    Parent,
    /// The new one.
    Child,
}

/// fork(2). Only to be called while the process has a single thread: the child has only the calling one, and
/// locks that others held would stay locked.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> io::Result<Side> {
    // SAFETY: fork itself touches no memory of ours; the caller promises that there is one thread only, so that
    // the child may use everything that the parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        _ => Ok(Side::Parent),
    }
}

/// Ends the process at once, without running destructors: the parent must not unmount what the child serves.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// A session of its own, `/` as current directory, and `/dev/null` in the place of the standard streams: whoever
/// waits for the end of a pipe that it gave us as standard error must not wait for ever.
///
/// # Errors
/// Those of setsid(2), chdir(2), open(2), dup2(2).
pub fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Closes every descriptor above the standard streams but `keep`. Only to be called first thing in a process:
/// then all of them were inherited, and no part of the program owns one.
///
/// # Errors
/// Those of close_range(2), except that it is missing (kernels before 5.9).
pub fn close_inherited(keep: Option<RawFd>) -> io::Result<()> {
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

/// A descriptor of our own for one that another program handed to us by number.
///
/// # Errors
/// EBADF when there is none, EMFILE.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is not negative, and the borrow ends with this call, which fails with EBADF when the
    // descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}
