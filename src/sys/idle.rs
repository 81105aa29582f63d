//! Releasing memory when there is nothing to do.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Mutex;

use crate::sync::lock;

/// What wakes a thread that waits for requests. It is ignored by default.
const WAKEUP: i32 = libc::SIGURG;

/// A thread of this process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread(libc::pid_t);

impl Thread {
    /// The calling thread.
    #[must_use]
    pub(crate) fn current() -> Self {
        // SAFETY: gettid has no arguments and cannot fail.
        Self(unsafe { libc::gettid() })
    }

    /// Has the call fail with EINTR in which the thread waits, if it can be interrupted. Only after
    /// [`accept_wakeups`].
    ///
    /// # Errors
    /// ESRCH when the thread has ended.
    pub(crate) fn wake(self) -> io::Result<()> {
        // SAFETY: a signal to a thread of this process, or to none; no memory is passed.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, WAKEUP) };
        if result == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
}

extern "C" fn nothing(_signal: i32) {}

/// From now on a wakeup interrupts the call that a thread waits in.
///
/// # Errors
/// Those of sigaction(2).
pub(crate) fn accept_wakeups() -> io::Result<()> {
    let mut action: libc::sigaction = {
        let zeroed = MaybeUninit::zeroed();
        // SAFETY: zeroes are a valid sigaction: no flags, no restorer, the default action.
        unsafe { zeroed.assume_init() }
    };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the mask may be written; the handler touches nothing; the old action is not asked
    // for. Without SA_RESTART, so that the call fails.
    let result = unsafe {
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(WAKEUP, &raw const action, std::ptr::null_mut())
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Returns to the system what the allocator keeps for later, but for the ends of other threads'
/// arenas: those [`release_own_memory`] returns.
pub(crate) fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    release_own_memory();
}

/// Returns the end of the calling thread's arena to the system. malloc_trim(3) does so for the main
/// one only; of another one the end goes back when a large piece beside it is freed, and if it is
/// longer than `M_TRIM_THRESHOLD`, which glibc raises to 64 MiB by itself.
pub(crate) fn release_own_memory() {
    #[cfg(target_env = "gnu")]
    {
        /// Large enough to be looked at when it is freed, too small for a mapping of its own.
        const PIECE: usize = 96 * 1024;
        /// While requests come the end is needed again at once.
        const WHEN_BUSY: libc::c_int = 4 * 1024 * 1024;
        const WHEN_IDLE: libc::c_int = 64 * 1024;
        /// The threshold is the process's. Lock order: the last.
        static THRESHOLD: Mutex<()> = Mutex::new(());
        let _mine = lock(&THRESHOLD);
        // SAFETY: mallopt takes numbers; the piece is not used between malloc and free, and free
        // takes a null pointer.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, WHEN_IDLE);
            libc::free(std::hint::black_box(libc::malloc(PIECE)));
            libc::mallopt(libc::M_TRIM_THRESHOLD, WHEN_BUSY);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    #[cfg(target_env = "gnu")]
    fn a_threads_arena_gives_its_end_back() {
        // What the process has in memory of the mapping that an address is in: other tests have
        // mappings of their own.
        let resident = |address: usize| {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut inside = false;
            for line in maps.lines() {
                let mut words = line.split_whitespace();
                let first = words.next().unwrap();
                if let Some((start, end)) = first.split_once('-')
                    && let (Ok(start), Ok(end)) = (
                        usize::from_str_radix(start, 16),
                        usize::from_str_radix(end, 16),
                    )
                {
                    inside = (start..end).contains(&address);
                }
                if inside && first == "Rss:" {
                    return words.next().unwrap().parse::<u64>().unwrap();
                }
            }
            0
        };
        // In a thread, since the first one has the main arena.
        let (full, empty) = std::thread::spawn(move || {
            let pieces: Vec<Vec<u8>> = (0..40_000).map(|_| vec![1; 1000]).collect();
            let address = pieces[0].as_ptr().addr();
            let full = resident(address);
            drop(pieces);
            release_memory();
            (full, resident(address))
        })
        .join()
        .unwrap();
        assert!(empty + 30_000 < full, "{full} KiB, then {empty}");
    }

    #[test]
    fn a_wakeup_interrupts_a_waiting_thread() {
        accept_wakeups().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            sender.send(Thread::current()).unwrap();
            rustix::io::read(read.as_fd(), &mut [0; 1]).unwrap_err();
            sender.send(Thread::current()).unwrap();
            read.read_exact(&mut [0; 1])
        });
        let thread = receiver.recv().unwrap();
        // It may not wait yet.
        while receiver
            .recv_timeout(std::time::Duration::from_millis(5))
            .is_err()
        {
            thread.wake().unwrap();
        }
        drop(write);
        assert!(waiting.join().unwrap().is_err(), "the end");
        release_memory();
    }
}
