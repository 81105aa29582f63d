//! Giving memory back when there is nothing to do.

use std::io;
use std::mem::MaybeUninit;

/// What wakes a thread that waits for requests. It is ignored unless somebody asks for it.
const NUDGE: i32 = libc::SIGURG;

/// A thread of this process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread(libc::pid_t);

impl Thread {
    /// The calling thread.
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: gettid has no arguments and cannot fail.
        Self(unsafe { libc::gettid() })
    }

    /// Has the call fail with EINTR in which the thread waits, if it can be interrupted. Only after [`accept_nudges`].
    ///
    /// # Errors
    /// ESRCH when the thread has ended.
    pub fn nudge(self) -> io::Result<()> {
        // SAFETY: a signal to a thread of this process, or to none; no memory is passed.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, NUDGE) };
        if result == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
}

extern "C" fn nothing(_signal: i32) {}

/// From now on a nudge interrupts the call that a thread waits in.
///
/// # Errors
/// Those of sigaction(2).
pub fn accept_nudges() -> io::Result<()> {
    let mut action: libc::sigaction = {
        let zeroed = MaybeUninit::zeroed();
        // SAFETY: zeroes are a valid sigaction: no flags, no restorer, the default action.
        unsafe { zeroed.assume_init() }
    };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the mask may be written; the handler touches nothing; the old action is not asked for. Without SA_RESTART,
    // so that the call fails.
    let result = unsafe {
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(NUDGE, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Gives back to the system what the allocator keeps for later.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn a_nudge_interrupts_who_waits() {
        accept_nudges().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            tell.send(Thread::current()).unwrap();
            rustix::io::read(read.as_fd(), &mut [0; 1]).unwrap_err();
            tell.send(Thread::current()).unwrap();
            read.read_exact(&mut [0; 1])
        });
        let thread = told.recv().unwrap();
        // It may not wait yet.
        while told
            .recv_timeout(std::time::Duration::from_millis(5))
            .is_err()
        {
            thread.nudge().unwrap();
        }
        drop(write);
        assert!(waiting.join().unwrap().is_err(), "the end");
        trim();
    }
}
