//! Waking threads that wait in a system call, so that they notice that the command is cancelled.

use std::io;

/// Ignored by default, and sent by nothing else in practice (a socket's urgent data).
const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_signal: libc::c_int) {}

/// From now on [`wake_all`] makes system calls that wait answer EINTR.
///
/// # Errors
/// Those of sigaction(2).
pub(crate) fn enable() -> io::Result<()> {
    // SAFETY: zeroes are a valid sigaction with an empty mask and without SA_RESTART, and `nothing`
    // may be called at any time.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigaction(SIGNAL, &action, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Wakes all threads of the process but the calling one. Only after [`enable`].
pub(crate) fn wake_all() {
    let process = std::process::id();
    let own = rustix::thread::gettid().as_raw_pid();
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let ids = threads
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok());
    let mut woken = false;
    for id in ids.filter(|id| *id != own) {
        woken = true;
        send(process, id);
    }
    // Without /proc only the main thread is known.
    if !woken && let Ok(main) = libc::pid_t::try_from(process) {
        send(process, main);
    }
}

fn send(process: u32, thread: libc::pid_t) {
    // SAFETY: tgkill(2) takes numbers only. A thread that has ended answers ESRCH, which is fine.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGNAL) };
    if result != 0 {
        log::trace!("tgkill {thread}: {}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{ErrorKind, Read as _};

    /// Only that thread is woken: others run other tests.
    #[test]
    fn a_waiting_read_ends() {
        enable().unwrap();
        let (mut reader, _writer) = std::io::pipe().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_pid()).unwrap();
            reader.read(&mut [0]).map_err(|err| err.kind())
        });
        let thread = told.recv().unwrap();
        while !waiting.is_finished() {
            send(std::process::id(), thread);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(waiting.join().unwrap(), Err(ErrorKind::Interrupted));
    }
}
