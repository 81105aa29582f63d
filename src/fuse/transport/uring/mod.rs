//! FUSE over io_uring: requests are served on the processor on which they were made.
//!
//! The kernel has one queue for each possible processor. Each queue gets some threads, which stay
//! on that processor where they can, and each thread has one entry of its own. The kernel hands a
//! request to a free entry, the last one that became free first. So a thread that waits for a slow
//! disk holds up its own request and no other, and a caller that waits for its reply is succeeded
//! on its processor by the thread that makes the reply.
//!
//! Queues whose threads are kept by long requests get more of them (`load.rs`). The kernel gives a
//! new entry only requests that come after it, and what waits already to the next thread of that
//! queue that finishes something. So a thread that came to help makes a request itself, and when it
//! is done gets the one that has waited longest.
//!
//! FORGET and INTERRUPT never come through the rings, and nothing does before every queue has an
//! entry; the device itself is read beside (`dev.rs`).

mod queues;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use crate::fuse::serve::Server;
use crate::sys::{cpu, idle};
use queues::{Queues, all_well};

/// Most threads that a queue starts with.
const MOST_THREADS: usize = 8;
/// Fewest threads for a processor that runs.
const FEWEST_THREADS: usize = 2;
/// How many threads all queues together should have at least.
const THREADS_IN_ALL: usize = 16;

/// Threads that serve a connection.
#[derive(Debug)]
pub(super) struct Rings {
    shared: Arc<Queues>,
    watcher: JoinHandle<()>,
}

/// Why a transport did not start.
#[derive(Debug)]
pub(super) enum StartError {
    /// Nothing was asked of the kernel yet. It holds back every request until the device is closed
    /// or the connection aborted; plain unmounting is EBUSY as soon as a request waits.
    Unprepared(io::Error),
    /// The kernel refused an entry. Unless it had begun to use the other ones it now sends all
    /// requests to the device; which of both it did is not known, so only unmounting is safe.
    Refused(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unprepared(error) => write!(f, "cannot set up io_uring: {error}"),
            Self::Refused(error) => write!(f, "the kernel refuses FUSE over io_uring: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl Rings {
    /// Serves the connection behind `device`, whose INIT has been answered, by threads with payload
    /// buffers of `payload` bytes: the largest of its `max_write` and its `max_pages` pages.
    /// `threads` is how many each running processor gets at first.
    ///
    /// When this returns, the kernel has an entry for every thread.
    ///
    /// # Errors
    /// Then no thread is left.
    pub(super) fn start(
        device: BorrowedFd<'_>,
        server: &Arc<Server>,
        payload: usize,
        threads: Option<usize>,
    ) -> Result<Self, StartError> {
        let each = |online| threads.unwrap_or_else(|| threads_each(online)).max(1);
        let start = Starting::prepare(device, server, payload, each);
        let (start, watcher) = start
            .and_then(Starting::watch)
            .map_err(StartError::Unprepared)?;
        let rings = Self {
            shared: Arc::clone(&start.shared),
            watcher,
        };
        if let Err(error) = start.register() {
            rings.stop();
            rings.join();
            return Err(StartError::Refused(error));
        }
        Ok(rings)
    }

    /// Ends the threads, each when it has made the reply that it is making. What is asked of the
    /// mount afterwards waits for ever, so it must be unmounted or aborted.
    pub(super) fn stop(&self) {
        if let Err(error) = rustix::io::write(&*self.shared.stop, &1u64.to_ne_bytes()) {
            log::error!("cannot stop the io_uring transport: {error}");
        }
    }

    /// Waits until the threads have ended, as they do with the connection.
    pub(super) fn join(self) {
        self.shared.join();
        self.shared.monitor.end();
        if self.watcher.join().is_err() {
            log::error!("the watcher of the io_uring transport panicked");
        }
        // Those that it added meanwhile.
        self.shared.join();
    }
}

/// The start of all queues: the threads make their rings, each for itself, and lend them to the
/// kernel when all stand.
struct Starting<'s> {
    shared: Arc<Queues>,
    server: &'s Arc<Server>,
    /// What the threads report.
    results: Receiver<io::Result<()>>,
    /// What lets each thread go on.
    gates: Vec<Sender<()>>,
}

impl<'s> Starting<'s> {
    /// Starts the threads; each running processor gets as many as `each` says for their number.
    /// Errors: no ring can be made; then no thread is left.
    fn prepare(
        device: BorrowedFd<'_>,
        server: &'s Arc<Server>,
        payload: usize,
        each: impl Fn(usize) -> usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Queues::new(device.try_clone_to_owned()?, payload)?);
        let (queues, online) = (cpu::possible()?, cpu::online()?);
        let (reports, results) = channel();
        let mut gates = Vec::new();
        let mut spawned = Ok(());
        for queue in 0..queues {
            let wanted = if online.contains(&queue) {
                each(online.len())
            } else {
                1
            };
            for _ in 0..wanted {
                match shared.spawn(queue, server, reports.clone(), false) {
                    Ok(gate) => gates.push(gate),
                    Err(error) => spawned = Err(error),
                }
            }
        }
        drop(reports);
        if let Err(error) = idle::accept_wakeups() {
            log::warn!("memory is not released when idle: {error}");
        }
        let starting = Self {
            shared,
            server,
            results,
            gates,
        };
        match spawned.and_then(|()| all_well(&starting.results, starting.gates.len())) {
            Ok(()) => Ok(starting),
            Err(error) => Err(starting.give_up(error)),
        }
    }

    /// Starts what watches the load. Errors: EAGAIN; then no thread is left.
    fn watch(self) -> io::Result<(Self, JoinHandle<()>)> {
        let (shared, server) = (Arc::clone(&self.shared), Arc::clone(self.server));
        let watcher = Builder::new()
            .name("unionmount-load".into())
            .spawn(move || {
                let idle = || {
                    server.union().rest();
                    idle::release_memory();
                    shared.monitor.wake_idle();
                };
                let add = |queue| shared.reinforce(queue, &server);
                shared.monitor.run(add, idle);
            });
        match watcher {
            Ok(watcher) => Ok((self, watcher)),
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Has each thread lend its ring to the kernel. Errors: the first refusal.
    fn register(&self) -> io::Result<()> {
        for gate in &self.gates {
            // A thread that is gone does not report, which shows below.
            gate.send(()).unwrap_or_default();
        }
        all_well(&self.results, self.gates.len())
    }

    /// Waits for the threads, which find their gates closed.
    fn give_up(self, error: io::Error) -> io::Error {
        drop(self.gates);
        self.shared.join();
        error
    }
}

/// How many threads each of `online` processors gets by default: enough for some slow requests at a
/// time, and not many more than 16 in all.
fn threads_each(online: usize) -> usize {
    (THREADS_IN_ALL / online.max(1)).clamp(FEWEST_THREADS, MOST_THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_processors_get_more_threads_each() {
        for (online, threads) in [(0, 8), (1, 8), (2, 8), (4, 4), (8, 2), (64, 2)] {
            assert_eq!(threads_each(online), threads, "{online}");
        }
    }
}
