//! Our own transports: what was agreed on decides which one serves a connection.

mod dev;
pub(super) mod fuser;
mod load;
mod uring;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::fuse::init::{MAX_WRITE, Negotiated};
use crate::fuse::serve::Server;
use crate::fuse::serve::notifier;
use crate::fuse::settings::Held;
use crate::union::Union;
use dev::Dev;
use uring::Rings;

/// Threads on /dev/fuse beside the rings: FORGET and INTERRUPT come that way.
const BESIDE_RINGS: usize = 1;

/// Bytes of the longest reply: the kernel asks for no more than it may write.
const MAX_REPLY: usize = MAX_WRITE as usize;
/// Fewest threads on /dev/fuse: one that waits for a slow disk must not be the only one.
const FEWEST_THREADS: usize = 2;
/// Most threads that are started without being asked for.
const MOST_THREADS: usize = 8;

/// How many threads read /dev/fuse by default: one for each processor, within bounds.
pub(super) fn dev_threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(FEWEST_THREADS, usize::from);
    cpus.clamp(FEWEST_THREADS, MOST_THREADS)
}

/// What serves a connection.
pub(super) struct Running {
    server: Arc<Server>,
    dev: Arc<Dev>,
    rings: Option<Rings>,
}

/// Starts serving; with io_uring, when all rings stand.
///
/// # Errors
/// Threads or rings cannot be made.
pub(super) fn start(
    union: Arc<Union>,
    agreed: Negotiated,
    device: OwnedFd,
    threads: Option<usize>,
) -> io::Result<Running> {
    let server = Arc::new(Server::new(
        Arc::clone(&union),
        agreed,
        Some(device.try_clone()?),
    ));
    let rings = if agreed.uring {
        let started = Rings::start(device.as_fd(), &server, MAX_REPLY, threads);
        Some(started.map_err(io::Error::other)?)
    } else {
        None
    };
    let threads = match &rings {
        Some(_) => BESIDE_RINGS,
        None => threads.unwrap_or_else(dev_threads).max(1),
    };
    // There can be one listener to changes only: when the rings failed, the next attempt is to have
    // it.
    let news = device.try_clone()?;
    let beside = notifier::start(&union, news, agreed.expires, |node| Some(node.0))
        .and_then(|()| Dev::start(Arc::clone(&server), device, threads));
    match beside {
        Ok(dev) => {
            server.settle();
            Ok(Running { server, dev, rings })
        }
        Err(error) => {
            if let Some(rings) = rings {
                rings.stop();
                rings.join();
            }
            Err(error)
        }
    }
}

impl Running {
    /// Waits until the connection has ended, the last request is done, and what was changed is on
    /// the disks. `held` is let go before the last.
    pub(super) fn join(self, held: &Held) {
        self.dev.join();
        if let Some(rings) = self.rings {
            // The kernel notifies each entry that the connection has ended, but not one that was
            // lent in that very moment: its thread is stopped here.
            rings.stop();
            rings.join();
        }
        held.release();
        self.server.finish();
    }
}
