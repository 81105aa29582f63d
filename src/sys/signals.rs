//! The signals that end a daemon, or interrupt a command.

use std::io;
use std::mem::MaybeUninit;

const ALL: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// SIGTERM, SIGINT and SIGHUP, blocked in every thread that is started after
/// [`Termination::block`].
#[derive(Clone, Copy)]
pub(crate) struct Termination(libc::sigset_t);

impl std::fmt::Debug for Termination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Termination")
    }
}

impl Termination {
    /// Blocks them in the calling thread and those it starts, so that [`Termination::wait`] can
    /// take them.
    ///
    /// # Errors
    /// Those of pthread_sigmask(3).
    pub(crate) fn block() -> io::Result<Self> {
        Self::block_these(|_| true)
    }

    /// The same without SIGINT and SIGHUP where they were ignored when the process was started:
    /// `nohup`, a shell's background jobs. SIGTERM is not ignored so on purpose.
    ///
    /// # Errors
    /// As [`Termination::block`].
    pub(crate) fn block_for_foreground() -> io::Result<Self> {
        Self::block_these(|signal| signal == libc::SIGTERM || !is_ignored(signal))
    }

    /// The same without any that were ignored when the process was started.
    ///
    /// # Errors
    /// As [`Termination::block`].
    pub(crate) fn block_unless_ignored() -> io::Result<Self> {
        Self::block_these(|signal| !is_ignored(signal))
    }

    fn block_these(wanted: impl Fn(i32) -> bool) -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; the other calls get a
        // valid set and valid signal numbers.
        let (set, result) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in ALL.into_iter().filter(|signal| wanted(*signal)) {
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

    /// Waits for one of them and returns its number.
    ///
    /// # Errors
    /// Those of sigwait(3).
    pub(crate) fn wait(&self) -> io::Result<i32> {
        let mut signal = 0;
        // SAFETY: the set was initialised by `block`, and `signal` may be written.
        match unsafe { libc::sigwait(&self.0, &mut signal) } {
            0 => Ok(signal),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Ends the process as the signal would have, so that its parent sees by what it ended.
    pub(crate) fn die(&self, signal: i32) -> ! {
        // SAFETY: the set was initialised by `block`; raise takes any number. There is no handler,
        // so a signal that is not blocked ends the process.
        unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.0, std::ptr::null_mut());
            libc::raise(signal);
        }
        super::daemon::exit_now(128 + signal)
    }
}

/// The name of a signal that a [`Termination`] waits for.
#[must_use]
pub(crate) fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGTERM => "SIGTERM",
        libc::SIGINT => "SIGINT",
        _ => "SIGHUP",
    }
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction(2) only fills in the old one; zeroes are one as well.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
