//! Threads for requests that take their time.
//!
//! The threads that read requests answer most of them within microseconds. A request that copies or syncs data
//! would keep one of them for seconds, and with it every request queued behind; it gets a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most threads at a time; what comes beyond is done by the thread that read it.
const MOST: usize = 64;

/// The threads that are out.
#[derive(Debug, Default)]
pub(super) struct Workers {
    busy: Arc<AtomicUsize>,
}

struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Workers {
    /// Does `work` in a thread of its own, or here when there are too many or none can be had.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        let busy = Busy(Arc::clone(&self.busy));
        if self.busy.fetch_add(1, Ordering::AcqRel) >= MOST {
            work();
            return;
        }
        // The work goes through a slot so that it is still here when the thread cannot be made.
        let slot = Arc::new(std::sync::Mutex::new(Some((work, busy))));
        let taken = Arc::clone(&slot);
        let take = move || crate::sync::lock(&taken).take();
        let spawned = std::thread::Builder::new()
            .name("unionmount-io".into())
            .spawn(move || {
                if let Some((work, busy)) = take() {
                    work();
                    drop(busy);
                }
            });
        if let Err(error) = spawned {
            log::warn!("cannot start a thread, working on: {error}");
            let held = crate::sync::lock(&slot).take();
            if let Some((work, busy)) = held {
                work();
                drop(busy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn everything_is_done_however_much_there_is() {
        let workers = Workers::default();
        let (send, receive) = channel();
        for i in 0..3 * MOST {
            let send = send.clone();
            workers.run(move || send.send(i).unwrap());
        }
        drop(send);
        let mut done: Vec<_> = receive.iter().collect();
        done.sort_unstable();
        assert_eq!(done, (0..3 * MOST).collect::<Vec<_>>());
    }
}
