//! The transport over /dev/fuse: threads that read requests and write replies.
//!
//! Each thread has a descriptor of its own and two buffers that it uses again and again. There are
//! few threads, since the kernel wakes the one that has slept longest, which costs the more the
//! more there are. While long requests keep them there are more (`load.rs`): however many wait for
//! a slow disk, one reads the next request.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::load::LoadMonitor;
use crate::fuse::init::MAX_WRITE;
use crate::fuse::proto::Opcode;
use crate::fuse::proto::reply::out_header;
use crate::fuse::proto::request::split;
use crate::fuse::proto::wire::InHeader;
use crate::fuse::serve::{Outcome, Server};
use crate::sync::lock;
use crate::sys::mapping::Buffer;
use crate::sys::{device, idle};

/// Bytes in front of the data of a WRITE, and room to begin at a page.
const BEFORE_DATA: usize = 4096;

/// All requests wait in one queue.
const QUEUE: usize = 0;

/// The threads that serve one connection.
#[derive(Debug)]
pub(super) struct Dev {
    server: Arc<Server>,
    connection: OwnedFd,
    monitor: LoadMonitor,
    /// Lock order: no other lock is taken while it is held.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many more there are, since long requests kept the others.
    surplus: AtomicUsize,
    /// How many of those are to end.
    leaving: AtomicUsize,
}

impl Dev {
    /// Starts `threads` threads on `connection`.
    ///
    /// # Errors
    /// EAGAIN when not even one thread can be made.
    pub(super) fn start(
        server: Arc<Server>,
        connection: OwnedFd,
        threads: usize,
    ) -> std::io::Result<Arc<Self>> {
        let dev = Arc::new(Self {
            server,
            connection,
            monitor: LoadMonitor::default(),
            threads: Mutex::default(),
            surplus: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
        });
        if let Err(error) = idle::accept_wakeups() {
            log::warn!("memory is not released when idle: {error}");
        }
        for started in 0..threads {
            match dev.spawn() {
                Err(error) if started == 0 => return Err(error),
                Err(error) => log::warn!("serving with {started} threads: {error}"),
                Ok(()) => {}
            }
        }
        let watcher = Arc::clone(&dev);
        let watching = Builder::new()
            .name("unionmount-load".into())
            .spawn(move || {
                watcher
                    .monitor
                    .run(|_| watcher.reinforce(), || watcher.idle());
            });
        if let Err(error) = watching {
            log::warn!("long requests get no more threads: {error}");
        }
        Ok(dev)
    }

    /// Waits until the connection has ended and the last request is done.
    pub(super) fn join(&self) {
        loop {
            // Not under the lock, under which the watcher adds threads.
            let Some(thread) = lock(&self.threads).pop() else {
                return self.monitor.end();
            };
            if thread.join().is_err() {
                log::error!("a thread that serves requests panicked");
            }
        }
    }

    fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        let dev = Arc::clone(self);
        let thread = Builder::new()
            .name("unionmount-dev".into())
            .spawn(move || dev.serve())?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// One more thread, since long requests keep the others. Whether there is one now.
    fn reinforce(self: &Arc<Self>) -> bool {
        match self.spawn() {
            Ok(()) => {
                self.surplus.fetch_add(1, Ordering::AcqRel);
                log::debug!("one more thread reads requests");
            }
            Err(ref error) => {
                log::warn!("no more threads: {error}");
                return false;
            }
        }
        true
    }

    /// There is nothing to do: threads that came to help go, the others release what large requests
    /// took, and the union what it does not need.
    fn idle(&self) {
        let surplus = self.surplus.swap(0, Ordering::AcqRel);
        self.leaving.fetch_add(surplus, Ordering::AcqRel);
        lock(&self.threads).retain(|thread| !thread.is_finished());
        self.server.union().rest();
        idle::release_memory();
        self.monitor.wake_idle();
    }

    /// Whether the calling thread is one too many.
    fn is_to_leave(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        self.leaving
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less)
            .is_ok()
    }

    /// One thread: reads, answers, until the connection ends.
    fn serve(&self) {
        let clone = clone_connection(self.connection.as_fd());
        if let Err(errno) = &clone {
            log::debug!("clone /dev/fuse: {errno}; sharing one descriptor");
        }
        let fd = clone.as_ref().map_or(self.connection.as_fd(), AsFd::as_fd);
        let buffers = Buffer::new(max_write() + BEFORE_DATA)
            .and_then(|request| Ok((request, Buffer::new(max_write())?)));
        let (mut request, mut reply) = match buffers {
            Ok(buffers) => buffers,
            Err(error) => return log::error!("no memory to serve requests with: {error}"),
        };
        let activity = self.monitor.join(QUEUE);
        loop {
            match rustix::io::read(fd, request.bytes()) {
                Ok(size) => self.monitor.busy(&activity, || {
                    self.answer(fd, &request.bytes()[..size], reply.bytes());
                }),
                // A wakeup, when there is nothing to do.
                Err(Errno::INTR) => {
                    if self.is_to_leave() {
                        break;
                    }
                    request.release();
                    reply.release();
                    idle::release_own_memory();
                }
                // ENOENT: the request was called off before it was read.
                Err(Errno::AGAIN | Errno::NOENT) => {}
                Err(errno) => {
                    // Others may go on after another error.
                    if matches!(errno, Errno::NODEV | Errno::CONNABORTED) {
                        self.server.ended();
                    } else {
                        log::error!("read /dev/fuse: {errno}");
                    }
                    break;
                }
            }
        }
        self.monitor.leave(&activity);
    }

    fn answer(&self, fd: BorrowedFd<'_>, request: &[u8], reply: &mut [u8]) {
        let (unique, outcome) = match split(request, self.server.long_setxattr()) {
            Ok((header, arg, rest)) => {
                (header.unique, self.server.handle(&header, arg, rest, reply))
            }
            Err(errno) => {
                let Some(unique) = number_of(request) else {
                    log::warn!("a request without a header");
                    return;
                };
                log::warn!("request {unique}: its length is not what its opcode has");
                (unique, Outcome::Error(errno.raw_os_error()))
            }
        };
        let outcome = match outcome {
            Outcome::Reply(size) => Ok(size),
            Outcome::Error(errno) => Err(errno),
            Outcome::Silent => return,
        };
        let header = out_header(unique, outcome);
        let body = &reply[..outcome.unwrap_or(0)];
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
        match rustix::io::writev(fd, &parts) {
            Ok(_) => {}
            // Called off meanwhile, or the mount is gone.
            Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
            Err(errno) => {
                log::error!("reply to request {unique}: {errno}");
            }
        }
    }
}

/// The number of a request that is not whole; `None` when there is none to answer, or no process
/// waits for one.
fn number_of(request: &[u8]) -> Option<u64> {
    let (header, _) = <InHeader as zerocopy::FromBytes>::read_from_prefix(request).ok()?;
    let silent = Opcode::from_number(header.opcode).is_some_and(Opcode::is_silent);
    (!silent).then_some(header.unique)
}

fn max_write() -> usize {
    usize::try_from(MAX_WRITE).unwrap_or(usize::MAX)
}

/// One more descriptor of a connection, with its own list of requests that are being served.
fn clone_connection(connection: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let fresh = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    device::clone_connection(connection, fresh.as_fd())?;
    Ok(fresh)
}
