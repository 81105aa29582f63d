//! Looks whether a queue runs out of threads.
//!
//! A request in the queue of one processor is served by the threads of that queue alone, even when
//! all of them wait for a slow disk and those of other queues have nothing to do. So a queue whose
//! threads are kept by long requests gets more of them.
//!
//! It gets them before the last one is kept where that is possible. When many long requests come at
//! once, and keep all threads, it gets twice as many until some are free.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{Thread, park, park_timeout};
use std::time::Duration;

use crate::sync::lock;
use crate::sys::idle as sys;

/// How often it looks while requests come: a request that is still running at the next look is
/// long.
const TICK: Duration = Duration::from_millis(50);
/// How long nothing must happen before memory is released.
const IDLE: Duration = Duration::from_secs(1);
/// After how little work that is not worth it: transitions of all threads.
const LITTLE: u64 = 128;
/// How many threads of a queue should be free of long requests.
const FREE: usize = 2;
/// Most threads of a queue: so many requests may wait for a slow disk before others have to wait,
/// too.
const MOST: usize = 128;

/// What a thread shows of its work. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Activity {
    /// How often it began or finished a request: odd while it works on one.
    transitions: AtomicU64,
    /// The last regular file whose data it was asked for; 0 for none.
    file: AtomicU64,
}

impl Activity {
    /// The request is about the data of a regular file.
    pub(super) fn works_on(&self, file: u64) {
        self.file.store(file, Ordering::Relaxed);
    }
}

/// A thread that serves a queue.
#[derive(Debug)]
struct ServingThread {
    queue: usize,
    activity: Arc<Activity>,
    thread: sys::Thread,
}

/// The activities of all threads.
#[derive(Debug, Default)]
pub(super) struct LoadMonitor {
    /// Lock order: no other lock is taken while it is held.
    threads: Mutex<Vec<ServingThread>>,
    /// Set while the watcher sleeps since nothing happened; the thread that works next wakes it.
    asleep: AtomicBool,
    ended: AtomicBool,
    watcher: OnceLock<Thread>,
}

impl LoadMonitor {
    /// The calling thread serves queue `queue` from now on. Returns its activity.
    pub(super) fn join(&self, queue: usize) -> Arc<Activity> {
        let activity = Arc::default();
        lock(&self.threads).push(ServingThread {
            queue,
            activity: Arc::clone(&activity),
            thread: sys::Thread::current(),
        });
        activity
    }

    /// The thread is gone.
    pub(super) fn leave(&self, activity: &Arc<Activity>) {
        lock(&self.threads).retain(|serving| !Arc::ptr_eq(activity, &serving.activity));
    }

    /// Interrupts all threads in their waiting, so that they release what they need for large
    /// requests. Not in their work, which a slow disk would end with EINTR.
    pub(super) fn wake_idle(&self) {
        for serving in lock(&self.threads).iter() {
            let is_working = serving.activity.transitions.load(Ordering::SeqCst) % 2 == 1;
            if !is_working && let Err(error) = serving.thread.wake() {
                log::debug!("wake a thread: {error}");
            }
        }
    }

    /// Regular files that were worked on lately; those that are being worked on among them.
    pub(super) fn files(&self) -> Vec<u64> {
        let threads = lock(&self.threads);
        let files = threads
            .iter()
            .map(|serving| serving.activity.file.load(Ordering::Relaxed));
        files.filter(|file| *file != 0).collect()
    }

    /// Does `work`, seen by the watcher.
    pub(super) fn busy<T>(&self, activity: &Activity, work: impl FnOnce() -> T) -> T {
        // In one order with what the watcher does before it sleeps: one of the two sees the other.
        activity.transitions.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        let result = work();
        activity.transitions.fetch_add(1, Ordering::Release);
        result
    }

    #[cold]
    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Some(watcher) = self.watcher.get()
        {
            watcher.unpark();
        }
    }

    /// Ends [`LoadMonitor::run`].
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// Looks until [`LoadMonitor::end`], and calls `add` with a queue for each thread that it
    /// needs. `add` says whether there is one more now; when not, that queue is left alone from
    /// then on. `idle` is called when there was much to do, and then nothing for a while.
    pub(super) fn run(&self, mut add: impl FnMut(usize) -> bool, mut idle: impl FnMut()) {
        let watcher = self.watcher.get_or_init(std::thread::current);
        debug_assert_eq!(watcher.id(), std::thread::current().id());
        let mut before = Vec::new();
        let mut given_up = Vec::new();
        let mut last_idle = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let now = self.look();
            let quiet = before == now && now.iter().all(|(_, transitions)| transitions % 2 == 0);
            if quiet {
                self.asleep.store(true, Ordering::SeqCst);
                // A thread may have begun before that and not have seen it.
                let work: u64 = now.iter().map(|(_, transitions)| transitions).sum();
                let nothing = || self.look() == now && !self.ended.load(Ordering::SeqCst);
                if nothing() && work.abs_diff(last_idle) > LITTLE {
                    park_timeout(IDLE);
                    if nothing() {
                        idle();
                        last_idle = self.look().iter().map(|(_, transitions)| transitions).sum();
                    }
                } else if nothing() {
                    park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                continue;
            }
            for (queue, more) in short_of_threads(&before, &now) {
                for _ in 0..more {
                    if !given_up.contains(&queue) && !add(queue) {
                        given_up.push(queue);
                    }
                }
            }
            before = now;
            park_timeout(TICK);
        }
    }

    fn look(&self) -> Vec<(usize, u64)> {
        let transitions = |serving: &ServingThread| {
            (
                serving.queue,
                serving.activity.transitions.load(Ordering::SeqCst),
            )
        };
        lock(&self.threads).iter().map(transitions).collect()
    }
}

/// The queues in which too few threads are free of long requests, by two looks at (queue,
/// transitions), and how many more each needs.
fn short_of_threads(before: &[(usize, u64)], now: &[(usize, u64)]) -> Vec<(usize, usize)> {
    // A thread that came or went shifts the ones behind it; then some long requests are seen a look
    // later.
    let kept = |at: usize| now[at].1 % 2 == 1 && before.get(at) == Some(&now[at]);
    let mut queues: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for (at, (queue, _)) in now.iter().enumerate() {
        let (all, free) = queues.entry(*queue).or_default();
        *all += 1;
        *free += usize::from(!kept(at));
    }
    queues
        .into_iter()
        // A queue without a long request has what it was given, be it one thread.
        .filter(|(_, (all, free))| free < all && *free < FREE && *all < MOST)
        .map(|(queue, (all, free))| match free {
            // More may wait already than there are threads.
            0 => (queue, all.min(MOST - all)),
            _ => (queue, 1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn only_long_requests_make_a_queue_short() {
        let none: [(usize, usize); 0] = [];
        // One thread, idle or beating: enough.
        assert_eq!(short_of_threads(&[(0, 4)], &[(0, 4)]), none);
        assert_eq!(short_of_threads(&[(0, 3)], &[(0, 5)]), none);
        // One of one, one of two, two of three are kept.
        assert_eq!(short_of_threads(&[(0, 3)], &[(0, 3)]), [(0, 1)]);
        let two = [(1, 3), (1, 2)];
        assert_eq!(short_of_threads(&two, &two), [(1, 1)]);
        let three = [(2, 3), (2, 2), (2, 2)];
        assert_eq!(short_of_threads(&three, &three), none);
        // Another queue's threads are no help.
        let two = [(0, 3), (1, 2), (1, 2), (0, 7)];
        assert_eq!(short_of_threads(&two, &two), [(0, 2)]);
        // There is an end.
        let many = vec![(0, 1); MOST - 3];
        assert_eq!(short_of_threads(&many, &many), [(0, 3)]);
        let many = vec![(0, 1); MOST];
        assert_eq!(short_of_threads(&many, &many), none);
    }

    #[test]
    fn long_requests_bring_threads_and_an_idle_watcher_wakes() {
        let watch = LoadMonitor::default();
        let (asked, asks) = channel();
        std::thread::scope(|scope| {
            let activity = watch.join(7);
            scope.spawn(|| {
                watch.run(
                    |queue| {
                        let answered = watch.join(queue);
                        asked.send((queue, Arc::strong_count(&answered))).unwrap();
                        true
                    },
                    || {},
                );
            });
            for _ in 0..2 {
                // Long enough to fall asleep.
                std::thread::sleep(TICK * 4);
                watch.busy(&activity, || std::thread::sleep(TICK * 6));
            }
            watch.end();
        });
        // One thread was kept: two others are enough, for both times.
        let asks: Vec<_> = asks.try_iter().map(|(queue, _)| queue).collect();
        assert_eq!(asks, [7, 7]);
    }

    #[test]
    fn after_much_work_idle_is_reported_once() {
        let watch = LoadMonitor::default();
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let activity = watch.join(0);
            scope.spawn(|| watch.run(|_| true, || sender.send(()).unwrap()));
            let work = |times| {
                for _ in 0..times {
                    watch.busy(&activity, || {});
                }
            };
            work(LITTLE / 2);
            assert!(receiver.recv_timeout(IDLE * 2).is_err(), "not worth it");
            work(LITTLE);
            assert!(receiver.recv_timeout(IDLE * 3).is_ok());
            assert!(receiver.recv_timeout(IDLE * 2).is_err(), "once");
            watch.end();
        });
    }
}
