//! FUSE over io_uring: requests are served on the processor on which they were made.
//!
//! The kernel has one queue for each possible processor. Each queue gets some threads, which stay on that processor
//! where they can, and each thread has one entry of its own. The kernel hands a request to a free entry, the last one
//! that became free first. So a thread that waits for a slow disk holds up its own request and no other, and a
//! caller that waits for its reply is succeeded on its processor by the thread that makes the reply.
//!
//! Queues whose threads are kept by long requests get more of them (`load.rs`). The kernel gives a new entry only requests that come
//! after it, and what waits already to the next thread of that queue that finishes something. So a thread that came to
//! help makes a request itself, and when it is done gets the one that has waited longest.
//!
//! FORGET and INTERRUPT never come through the rings, and nothing does before every queue has an entry; the device
//! itself is read beside (`dev.rs`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use zerocopy::FromBytes;

use super::load::{Activity, LoadMonitor};
use crate::fuse::proto::notify::Notification;
use crate::fuse::proto::{InHeader, Opcode};
use crate::fuse::serve::{Outcome, Server};
use crate::sync::lock;
use crate::sys::cpu::{self, Allowed};
use crate::sys::idle;
use crate::sys::ring::{Arrived, Lost, Ring};

/// Most threads that a queue starts with.
const MOST_THREADS: usize = 8;
/// Fewest threads for a processor that runs.
const FEWEST_THREADS: usize = 2;
/// How many threads all queues together should have at least.
const THREADS_IN_ALL: usize = 16;

/// After how many requests a thread looks whether it is where it should be. Its processor may have been offline.
const PIN_AGAIN: u32 = 1024;

/// Threads that serve a connection.
#[derive(Debug)]
pub(super) struct Rings {
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

/// Why a transport did not start.
#[derive(Debug)]
pub(super) enum StartError {
    /// Nothing was asked of the kernel yet. It holds back every request until the device is closed or the connection
    /// aborted; plain unmounting is EBUSY as soon as a request waits.
    Unprepared(io::Error),
    /// The kernel refused an entry. Unless it had begun to use the other ones it now sends all requests to the device;
    /// the kernel does not tell, so only unmounting is safe.
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

/// What all threads need, whatever is served.
#[derive(Debug)]
struct Shared {
    device: OwnedFd,
    /// Bytes of each payload buffer.
    payload: usize,
    /// Readable when all threads are to end.
    stop: Arc<OwnedFd>,
    /// Where threads may be.
    allowed: Allowed,
    monitor: LoadMonitor,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many requests were made here, see [`Shared::ask_for_nothing`].
    asked: AtomicU64,
}

/// How a thread and the one that starts it find together.
struct Start {
    /// Others are there already, and requests may wait for them.
    helps: bool,
    /// Says how each phase went.
    reports: Sender<io::Result<()>>,
    /// Opens when every thread has its ring; closed when one has not.
    gate: Receiver<()>,
}

impl Rings {
    /// Serves the connection behind `device`, whose INIT has been answered, by threads with payload buffers of
    /// `payload` bytes: the largest of its `max_write` and its `max_pages` pages. `threads` is how many each running
    /// processor gets at first.
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
        let prepared = (|| {
            let shared = Shared {
                device: device.try_clone_to_owned()?,
                payload,
                stop: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?),
                allowed: Allowed::here(),
                monitor: LoadMonitor::default(),
                threads: Mutex::default(),
                asked: AtomicU64::new(0),
            };
            io::Result::Ok((cpu::possible()?, cpu::online()?, Arc::new(shared)))
        })();
        let (queues, online, shared) = prepared.map_err(StartError::Unprepared)?;
        let each = threads.unwrap_or_else(|| threads_each(online.len())).max(1);
        let (reports, results) = channel();
        let mut gates = Vec::new();
        let mut ready = Ok(());
        for queue in 0..queues {
            let wanted = if online.contains(&queue) { each } else { 1 };
            for _ in 0..wanted {
                match shared.spawn(queue, server, reports.clone(), false) {
                    Ok(gate) => gates.push(gate),
                    Err(error) => ready = Err(error),
                }
            }
        }
        drop(reports);
        if let Err(error) = idle::accept_wakeups() {
            log::warn!("memory is not given back: {error}");
        }
        let watcher = ready
            .and_then(|()| all_well(&results, gates.len()))
            .and_then(|()| {
                let (shared, server) = (Arc::clone(&shared), Arc::clone(server));
                Builder::new()
                    .name("unionmount-load".into())
                    .spawn(move || {
                        let rest = || {
                            server.union().rest();
                            idle::release_memory();
                            shared.monitor.wake_idle();
                        };
                        let add = |queue| shared.reinforce(queue, &server);
                        shared.monitor.run(add, rest);
                    })
            });
        let watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                // The threads find their gates closed.
                drop(gates);
                shared.join();
                return Err(StartError::Unprepared(error));
            }
        };
        let rings = Self { shared, watcher };
        for gate in &gates {
            // A thread that is gone does not report, which shows below.
            gate.send(()).unwrap_or_default();
        }
        if let Err(error) = all_well(&results, gates.len()) {
            rings.stop();
            rings.join();
            return Err(StartError::Refused(error));
        }
        Ok(rings)
    }

    /// Ends the threads, each when it has made the reply that it is making. What is asked of the mount afterwards
    /// waits for ever, so it must be unmounted or aborted.
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

/// How many threads each of `online` processors gets unless told: enough for some slow requests at a time, and not
/// many more than 16 in all.
fn threads_each(online: usize) -> usize {
    (THREADS_IN_ALL / online.max(1)).clamp(FEWEST_THREADS, MOST_THREADS)
}

/// Waits for the reports of `threads` threads. Errors: the first failure that is reported.
fn all_well(results: &Receiver<io::Result<()>>, threads: usize) -> io::Result<()> {
    let mut all = Ok(());
    for _ in 0..threads {
        let one = results
            .recv()
            .unwrap_or_else(|_gone| Err(io::Error::other("a thread ended early")));
        if all.is_ok() {
            all = one;
        }
    }
    all
}

impl Shared {
    /// Starts a thread for a queue. Returns what opens the thread's gate.
    fn spawn(
        self: &Arc<Self>,
        queue: usize,
        server: &Arc<Server>,
        reports: Sender<io::Result<()>>,
        helps: bool,
    ) -> io::Result<Sender<()>> {
        let (open, gate) = channel();
        let start = Start {
            helps,
            reports,
            gate,
        };
        let (shared, server) = (Arc::clone(self), Arc::clone(server));
        let thread = Builder::new()
            .name(format!("unionmount-{queue}"))
            .spawn(move || shared.serve(queue, start, &server))?;
        lock(&self.threads).push(thread);
        Ok(open)
    }

    /// One more thread for a queue whose threads are busy for long. Whether there is one now.
    fn reinforce(self: &Arc<Self>, queue: usize, server: &Arc<Server>) -> bool {
        let (reports, results) = channel();
        let started = self.spawn(queue, server, reports, true).and_then(|gate| {
            all_well(&results, 1)?;
            gate.send(()).unwrap_or_default();
            all_well(&results, 1)
        });
        match started {
            Ok(()) => log::debug!("queue {queue}: one more thread"),
            Err(ref error) => log::warn!("queue {queue}: no more threads: {error}"),
        }
        started.is_ok()
    }

    /// Waits for all threads that there are.
    fn join(&self) {
        loop {
            // Not under the lock, under which the watcher adds threads.
            let Some(thread) = lock(&self.threads).pop() else {
                return;
            };
            if thread.join().is_err() {
                log::error!("a thread of the io_uring transport panicked");
            }
        }
    }

    /// What a thread does from its start to its end.
    fn serve(&self, queue: usize, start: Start, server: &Server) {
        self.allowed.pin(queue);
        let Some((ring, number)) = self.take_part(queue, &start) else {
            return;
        };
        let activity = self.monitor.join(queue);
        if start.helps {
            self.ask_for_nothing(queue);
        }
        drop(start);
        let mut answers = 0u32;
        let ended = self.serve_ring(ring, number, server, |arrived| {
            answers = answers.wrapping_add(1);
            // The request comes from there, so that processor runs now.
            if answers.is_multiple_of(PIN_AGAIN) && cpu::current() != queue {
                self.allowed.pin(queue);
            }
            self.monitor
                .busy(&activity, || answer(arrived, server, &activity))
        });
        self.monitor.leave(&activity);
        if let Err(error) = ended {
            log::error!("queue {queue} has a thread less: {error}");
        }
    }

    /// Makes a request that needs no answer, in the queue of the processor on which this runs. It comes to a free entry at
    /// once; the thread that finishes it is then given what waits.
    ///
    /// The only one that can be made without a descriptor on the mount, which would keep it busy, is about the cached data
    /// of a regular file that the kernel knows: it knows those that the others are kept by.
    fn ask_for_nothing(&self, queue: usize) {
        // No request of the kernel's gets that far.
        const FIRST: u64 = 1 << 63;
        if cpu::current() != queue {
            return;
        }
        let mut message = Vec::new();
        for node in self.monitor.files() {
            let unique = FIRST + 2 * self.asked.fetch_add(1, Ordering::Relaxed);
            message.clear();
            Notification::RetrieveNothing { unique, node }.encode(&mut message);
            match rustix::io::write(&self.device, &message) {
                Ok(_) => return,
                // ENOENT: forgotten meanwhile.
                Err(errno) => log::debug!("queue {queue}: ask about node {node}: {errno}"),
            }
        }
    }

    /// The two phases of the start: all threads make their rings; then all lend them to the kernel.
    fn take_part(&self, queue: usize, start: &Start) -> Option<(Ring, u16)> {
        let made = u16::try_from(queue)
            .map_err(io::Error::other)
            .and_then(|number| {
                let mut ring = Ring::new(self.payload)?;
                ring.watch(Arc::clone(&self.stop))?;
                Ok((ring, number))
            });
        let (mut ring, number) = start.report(made)?;
        start.gate.recv().ok()?;
        start.report(ring.register(self.device.as_fd(), number))?;
        Some((ring, number))
    }

    /// Answers what comes until nothing more will.
    fn serve_ring(
        &self,
        mut ring: Ring,
        queue: u16,
        server: &Server,
        mut answer: impl FnMut(Arrived<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut refused = false;
        loop {
            match ring.wait() {
                Ok(arrived) => {
                    refused = false;
                    answer(arrived)?;
                }
                Err(Lost::Ended) => {
                    server.ended();
                    return Ok(());
                }
                Err(Lost::Stopped) => return Ok(()),
                Err(Lost::Refused(error)) if !refused => {
                    refused = true;
                    log::error!("queue {queue}: the kernel refused a reply: {error}");
                    ring.register(self.device.as_fd(), queue)?;
                }
                Err(Lost::Refused(error) | Lost::Broken(error)) => return Err(error),
            }
        }
    }
}

impl Start {
    /// Reports how a phase went; returns its result if the start is to go on.
    fn report<T>(&self, result: io::Result<T>) -> Option<T> {
        let (value, report) = match result {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.reports.send(report).ok()?;
        value
    }
}

/// Makes the reply. Whatever happens there is one, else the entry would be lost.
fn answer(mut arrived: Arrived<'_>, server: &Server, activity: &Activity) -> io::Result<()> {
    let parts = arrived.parts();
    let outcome = match InHeader::read_from_bytes(parts.header) {
        Ok(header) => {
            if matches!(
                Opcode::from_number(header.opcode),
                Some(Opcode::Read | Opcode::Write)
            ) {
                activity.works_on(header.nodeid);
            }
            server.handle(&header, parts.fixed, parts.rest, parts.out)
        }
        Err(_) => Outcome::Error(libc::EIO),
    };
    match outcome {
        Outcome::Reply(len) => arrived.commit(0, len),
        Outcome::Error(errno) => arrived.commit(errno, 0),
        Outcome::Silent => arrived.commit(0, 0),
    }
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
