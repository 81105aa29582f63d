//! What a process inherits, and a daemon that serves others must not have: resource limits, and
//! signals that are blocked or ignored.

use std::mem::MaybeUninit;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits that would make another process's request fail, or end the daemon (getrlimit(2)). Those
/// with a name are set on purpose for the program that is started; the others are always there.
/// That of descriptors is looked at where they are counted, and those of core files, priorities and
/// locks concern no other process.
const LIFTED: [(Resource, Option<&str>); 8] = [
    (Resource::Fsize, Some("bytes in a file")),
    (Resource::Cpu, Some("seconds of processor time")),
    (
        Resource::Rttime,
        Some("microseconds of real-time processor time"),
    ),
    (Resource::As, Some("bytes of address space")),
    (Resource::Data, Some("bytes of data")),
    (Resource::Nproc, None),
    (Resource::Memlock, None),
    (Resource::Sigpending, None),
];

/// Takes the limits off this process and those that it starts, as far as it may: without
/// CAP_SYS_RESOURCE up to the hard ones. Returns those that have a name and remain, as "COUNT
/// UNITS".
#[must_use]
pub(crate) fn lift() -> Vec<String> {
    let mut left = Vec::new();
    for (resource, name) in LIFTED {
        let limit = getrlimit(resource);
        if limit.current.is_none() {
            continue;
        }
        let lifted = |to| Rlimit {
            current: to,
            maximum: to,
        };
        if let Err(errno) = setrlimit(resource, lifted(None))
            .or_else(|_| setrlimit(resource, lifted(limit.maximum)))
        {
            log::debug!("setrlimit({resource:?}): {errno}");
        }
        if let (Some(now), Some(name)) = (getrlimit(resource).current, name) {
            left.push(format!("{now} {name}"));
        }
    }
    left
}

/// Unblocks every signal, lets children be waited for, and makes it an error (EFBIG) to write
/// behind a limit of the size of files. Threads have stacks of the usual size, regardless of
/// `RUST_MIN_STACK`. First thing in a process, before it has threads.
pub(crate) fn reset() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that pthread_sigmask reads; no handler of ours is
    // there yet, so that signals do what they do by default or nothing. No other thread reads the
    // environment.
    unsafe {
        std::env::remove_var("RUST_MIN_STACK");
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        // Ignored, a child could not be waited for (wait(2), ECHILD).
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// A daemon is not ended by a soft limit of the processor's time.
pub(crate) fn ignore_processor_time() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe {
        libc::signal(libc::SIGXCPU, libc::SIG_IGN);
    }
}
