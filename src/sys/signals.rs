//! The signals that end a daemon.

use std::io;
use std::mem::MaybeUninit;

/// SIGTERM, SIGINT and SIGHUP, blocked in every thread that is started after [`Termination::block`].
#[derive(Clone, Copy)]
pub struct Termination(libc::sigset_t);

impl std::fmt::Debug for Termination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Termination")
    }
}

impl Termination {
    /// Blocks them in the calling thread and those it starts, so that [`Termination::wait`] can take them.
    ///
    /// # Errors
    /// Those of pthread_sigmask(3).
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; the other calls get a valid set
        // and valid signal numbers.
        let (set, result) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let set = set.assume_init();
            let result = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            (set, result)
        };
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        Ok(Self(set))
    }

    /// Waits for one of them and gives its number.
    ///
    /// # Errors
    /// Those of sigwait(3).
    pub fn wait(&self) -> io::Result<i32> {
        let mut signal = 0;
        // SAFETY: the set was initialised by `block`, and `signal` may be written.
        match unsafe { libc::sigwait(&self.0, &mut signal) } {
            0 => Ok(signal),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
