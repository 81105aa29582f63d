//! A bounded cache of open descriptors.
//!
//! The kernel need not tell a FUSE daemon when a file is opened or closed, so descriptors belong to
//! objects (a directory of a layer, the data of an inode) and are closed when too many are open:
//! the least recently used ones first, by the second-chance rule. A user of a descriptor holds an
//! [`Arc`] of it, so closing never pulls it away from a running system call.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::io::{Errno, Result};

use crate::sync::lock;

/// The shared budget of open descriptors.
#[derive(Debug)]
pub(crate) struct FdCache {
    limit: usize,
    open: AtomicUsize,
    /// Lock order: after a slot's lock was released, never before one is waited for: closing a slot
    /// only tries its lock.
    ring: Mutex<VecDeque<Weak<FdSlot>>>,
}

impl FdCache {
    /// A cache that keeps at most about `limit` descriptors open (at least 16).
    #[must_use]
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(16),
            open: AtomicUsize::new(0),
            ring: Mutex::new(VecDeque::new()),
        })
    }

    /// How many descriptors the cache holds open.
    #[must_use]
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The bound it was made with.
    #[must_use]
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn admit(&self, slot: &Arc<FdSlot>) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut ring = lock(&self.ring);
        ring.push_back(Arc::downgrade(slot));
        self.shrink_to(&mut ring, self.limit);
        if ring.len() > 2 * self.limit + 64 {
            ring.retain(|weak| weak.strong_count() > 0);
        }
    }

    /// Closes descriptors until at most `target` are open or every slot was looked at twice.
    fn shrink_to(&self, ring: &mut VecDeque<Weak<FdSlot>>, target: usize) {
        let mut chances = 2 * ring.len();
        while self.open() > target && chances > 0 {
            chances -= 1;
            let Some(weak) = ring.pop_front() else { return };
            let Some(slot) = weak.upgrade() else { continue };
            if slot.recent.swap(false, Ordering::Relaxed) || !slot.try_close() {
                ring.push_back(weak);
            }
        }
    }

    /// Releases the memory of slots that are gone. For an idle process.
    pub(crate) fn rest(&self) {
        let mut ring = lock(&self.ring);
        ring.retain(|slot| slot.strong_count() > 0);
        ring.shrink_to_fit();
    }

    /// Closes everything that is open, except what is being opened at the moment. For when nothing
    /// will be opened any more.
    pub(crate) fn close_all(&self) {
        let slots = std::mem::take(&mut *lock(&self.ring));
        for slot in slots.iter().filter_map(Weak::upgrade) {
            slot.try_close();
        }
    }

    /// Closes half of what is open: the answer to EMFILE.
    fn relieve(&self) {
        let mut ring = lock(&self.ring);
        let target = self.open() / 2;
        self.shrink_to(&mut ring, target);
    }
}

/// The place of one descriptor that may be open or not.
#[derive(Debug)]
pub(crate) struct FdSlot {
    cache: Arc<FdCache>,
    /// Lock order: for a statement or two, after the place of a directory.
    fd: Mutex<Option<Arc<OwnedFd>>>,
    recent: AtomicBool,
}

impl FdSlot {
    /// An empty slot of `cache`.
    #[must_use]
    pub(crate) fn new(cache: &Arc<FdCache>) -> Arc<Self> {
        Arc::new(Self {
            cache: Arc::clone(cache),
            fd: Mutex::new(None),
            recent: AtomicBool::new(false),
        })
    }

    /// The descriptor if it is open.
    #[must_use]
    pub(crate) fn get(&self) -> Option<Arc<OwnedFd>> {
        let fd = lock(&self.fd).clone();
        if fd.is_some() {
            self.recent.store(true, Ordering::Relaxed);
        }
        fd
    }

    /// The descriptor, opened with `open` when it is not. EMFILE and ENFILE make room and try once
    /// more.
    pub(crate) fn get_or_open(
        self: &Arc<Self>,
        open: impl Fn() -> Result<OwnedFd>,
    ) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.get() {
            return Ok(fd);
        }
        let fresh = match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.cache.relieve();
                open()?
            }
            other => other?,
        };
        Ok(self.put(Arc::new(fresh)))
    }

    /// Puts a descriptor in, unless another thread was faster; the one that is in is returned.
    pub(crate) fn put(self: &Arc<Self>, fd: Arc<OwnedFd>) -> Arc<OwnedFd> {
        {
            let mut held = lock(&self.fd);
            if let Some(fd) = held.as_ref() {
                return Arc::clone(fd);
            }
            *held = Some(Arc::clone(&fd));
        }
        self.recent.store(true, Ordering::Relaxed);
        self.cache.admit(self);
        fd
    }

    /// Empties the slot; the descriptor stays open for those who use it.
    pub(crate) fn clear(&self) {
        if lock(&self.fd).take().is_some() {
            self.cache.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn try_close(&self) -> bool {
        let Ok(mut held) = self.fd.try_lock() else {
            return false;
        };
        if held.take().is_some() {
            self.cache.open.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }
}

impl Drop for FdSlot {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn null() -> Result<OwnedFd> {
        rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )
    }

    #[test]
    fn stays_within_its_limit() {
        let cache = FdCache::new(16);
        let slots: Vec<_> = (0..100).map(|_| FdSlot::new(&cache)).collect();
        for slot in &slots {
            slot.get_or_open(null).unwrap();
            assert!(cache.open() <= 17);
        }
        assert!(slots[0].get().is_none());
        assert!(slots[99].get().is_some());
        drop(slots);
        assert_eq!(cache.open(), 0);
    }

    #[test]
    fn a_descriptor_in_use_survives_closing() {
        let cache = FdCache::new(16);
        let slot = FdSlot::new(&cache);
        let fd = slot.get_or_open(null).unwrap();
        slot.clear();
        assert!(rustix::fs::fstat(&fd).is_ok());
        assert_eq!(cache.open(), 0);
    }

    #[test]
    fn dead_slots_do_not_fill_the_ring() {
        let cache = FdCache::new(16);
        for _ in 0..10_000 {
            FdSlot::new(&cache).get_or_open(null).unwrap();
        }
        assert!(lock(&cache.ring).len() < 200);
        cache.rest();
        assert!(lock(&cache.ring).is_empty());
    }
}
