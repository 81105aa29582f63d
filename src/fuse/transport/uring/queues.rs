//! The threads of the queues, and what each does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};
use zerocopy::FromBytes;

use crate::fuse::proto::notify::Notification;
use crate::fuse::proto::{InHeader, Opcode};
use crate::fuse::serve::{Outcome, Server};
use crate::fuse::transport::load::{Activity, LoadMonitor};
use crate::sync::lock;
use crate::sys::cpu::{self, Allowed};
use crate::sys::ring::{Arrived, Lost, Ring};

/// After how many requests a thread looks whether it is where it should be. Its processor may have
/// been offline.
const PIN_AGAIN: u32 = 1024;

/// What all threads need, whatever is served.
#[derive(Debug)]
pub(super) struct Queues {
    device: OwnedFd,
    /// Bytes of each payload buffer.
    payload: usize,
    /// Readable when all threads are to end.
    pub(super) stop: Arc<OwnedFd>,
    /// Where threads may be.
    allowed: Allowed,
    pub(super) monitor: LoadMonitor,
    /// Lock order: no other lock is taken while it is held.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many requests were made here, see [`Queues::ask_for_nothing`].
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

/// Waits for the reports of `threads` threads. Errors: the first failure that is reported.
pub(super) fn all_well(results: &Receiver<io::Result<()>>, threads: usize) -> io::Result<()> {
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

impl Queues {
    /// For the connection behind `device`, by threads with payload buffers of `payload` bytes.
    /// Errors: EMFILE.
    pub(super) fn new(device: OwnedFd, payload: usize) -> io::Result<Self> {
        Ok(Self {
            device,
            payload,
            stop: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?),
            allowed: Allowed::here(),
            monitor: LoadMonitor::default(),
            threads: Mutex::default(),
            asked: AtomicU64::new(0),
        })
    }

    /// Starts a thread for a queue. Returns what opens the thread's gate.
    pub(super) fn spawn(
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
    pub(super) fn reinforce(self: &Arc<Self>, queue: usize, server: &Arc<Server>) -> bool {
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
    pub(super) fn join(&self) {
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

    /// Makes a request that needs no answer, in the queue of the processor on which this runs. It
    /// comes to a free entry at once; the thread that finishes it is then given what waits.
    ///
    /// The only one that can be made without a descriptor on the mount, which would keep it busy,
    /// is about the cached data of a regular file that the kernel knows: it knows those that the
    /// others are kept by.
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
