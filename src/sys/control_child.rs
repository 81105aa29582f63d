//! Calls on a mount whose daemon may not answer.
//!
//! A process that waits for a suspended FUSE daemon cannot be woken, once the daemon has begun with
//! its request not even by SIGKILL, and a process does not end before all its threads have. So a
//! child waits in the place of the command.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::readable::readable_before;

/// What is done on a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlRequest {
    /// syncfs(2) first.
    pub syncfs: bool,
    /// The number of an ioctl(2) without argument.
    pub ioctl: u32,
}

/// How it ended: what failed, with its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All of it was done.
    Done,
    /// The mount's root could not be opened.
    Open(Errno),
    /// syncfs(2) failed.
    Syncfs(Errno),
    /// ioctl(2) failed.
    Ioctl(Errno),
}

/// A child that is asking. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct ControlChild {
    child: libc::pid_t,
    answer: File,
}

const STEPS: [fn(Errno) -> Answer; 3] = [Answer::Open, Answer::Syncfs, Answer::Ioctl];

impl ControlChild {
    /// Starts a child that opens `root`, a directory, and does what `question` says.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM, EMFILE.
    pub(crate) fn start(root: &CStr, question: ControlRequest) -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
        let parent = std::process::id();
        // SAFETY: the child calls nothing but system calls, on memory that was made before, and
        // ends by _exit(2).
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => ask(root, question, write.as_raw_fd(), parent),
            child => Ok(Self {
                child,
                answer: File::from(read),
            }),
        }
    }

    /// The answer, if it comes within `limit`.
    ///
    /// # Errors
    /// The child was killed; those of poll(2).
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Option<Answer>> {
        if !readable_before(&self.answer, Instant::now() + limit)? {
            return Ok(None);
        }
        let mut said = [0; 5];
        self.answer.read_exact(&mut said)?;
        let [step, errno @ ..] = said;
        let failed = STEPS.get(usize::from(step));
        let errno = || Errno::from_raw_os_error(i32::from_ne_bytes(errno));
        Ok(Some(failed.map_or(Answer::Done, |step| step(errno()))))
    }
}

impl Drop for ControlChild {
    fn drop(&mut self) {
        // SAFETY: the child is ours and was not waited for, so that its number is not another
        // process's.
        unsafe {
            libc::kill(self.child, libc::SIGKILL);
            // One that cannot be killed is left to init(1).
            libc::waitpid(self.child, std::ptr::null_mut(), libc::WNOHANG);
        }
    }
}

/// The child. What the parent has open, locks among it, is not kept by it.
fn ask(root: &CStr, question: ControlRequest, answer: i32, parent: u32) -> ! {
    // SAFETY: system calls on descriptors of this process's own, which the parent does not see, and
    // on memory that the caller lends.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if u32::try_from(libc::getppid()) != Ok(parent) {
            libc::_exit(1);
        }
        libc::dup2(answer, 0);
        libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let fd = libc::open(root.as_ptr(), flags);
        let failed = if fd < 0 {
            0
        } else if question.syncfs && libc::syncfs(fd) < 0 {
            1
        } else if libc::ioctl(fd, question.ioctl.into()) < 0 {
            2
        } else {
            u8::MAX
        };
        let [a, b, c, d] = (*libc::__errno_location()).to_ne_bytes();
        // The parent may unmount as soon as it has the answer.
        libc::close(fd);
        let said = [failed, a, b, c, d];
        libc::write(0, said.as_ptr().cast(), said.len());
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const QUESTION: ControlRequest = ControlRequest {
        syncfs: true,
        ioctl: 0x5550,
    };
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn the_call_that_failed_is_reported() {
        let mut asking = ControlChild::start(c"/nowhere", QUESTION).unwrap();
        assert_eq!(asking.wait(SOON).unwrap(), Some(Answer::Open(Errno::NOENT)));
        // No disk knows the number.
        let mut asking = ControlChild::start(c"/proc", QUESTION).unwrap();
        assert_eq!(
            asking.wait(SOON).unwrap(),
            Some(Answer::Ioctl(Errno::NOTTY))
        );
    }
}
