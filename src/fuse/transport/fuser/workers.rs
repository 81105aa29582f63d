//! Threads for requests that take their time.
//!
//! The threads that read requests answer most of them within microseconds. A request that copies or
//! syncs data may keep its thread for seconds, which is fine as long as another one still reads
//! requests; when all but one are kept, the next long request gets a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most threads of their own at a time; what comes beyond is done by the thread that read it.
const MOST: usize = 64;

/// Who is busy with long requests.
#[derive(Debug, Default)]
pub(super) struct Workers {
    /// Threads that read requests.
    readers: usize,
    /// Those of them that are busy with a long request.
    kept: AtomicUsize,
    /// Threads of their own.
    busy: Arc<AtomicUsize>,
}

/// Counts for as long as it lives.
struct Counted<T: std::ops::Deref<Target = AtomicUsize>>(T);

impl<T: std::ops::Deref<Target = AtomicUsize>> Counted<T> {
    /// One more, unless that makes more than `most`.
    fn up_to(counter: T, most: usize) -> Option<Self> {
        if counter.fetch_add(1, Ordering::AcqRel) >= most {
            counter.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self(counter))
    }
}

impl<T: std::ops::Deref<Target = AtomicUsize>> Drop for Counted<T> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Workers {
    /// For a session in which `readers` threads read requests.
    pub(super) fn new(readers: usize) -> Self {
        Self {
            readers,
            ..Self::default()
        }
    }

    /// Does `work`: here while another thread is left to read requests, else in a thread of its
    /// own.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(_kept) = Counted::up_to(&self.kept, self.readers.saturating_sub(1)) {
            return work();
        }
        match Counted::up_to(Arc::clone(&self.busy), MOST) {
            Some(busy) => spawn(work, busy),
            None => work(),
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static, busy: Counted<Arc<AtomicUsize>>) {
    // Lock order: the slot is locked for one statement, and no other lock meanwhile.
    // The work goes through a slot so that it is still here when the thread cannot be made.
    let slot = Arc::new(std::sync::Mutex::new(Some((work, busy))));
    let taken = Arc::clone(&slot);
    let spawned = std::thread::Builder::new()
        .name("unionmount-io".into())
        .spawn(move || finish(&taken));
    if let Err(error) = spawned {
        log::warn!("cannot start a thread, working on: {error}");
        finish(&slot);
    }
}

fn finish<W: FnOnce(), B>(slot: &std::sync::Mutex<Option<(W, B)>>) {
    let held = crate::sync::lock(slot).take();
    if let Some((work, busy)) = held {
        work();
        drop(busy);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn everything_is_done_however_much_there_is() {
        let workers = Workers::new(2);
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
