//! What an interrupted command takes back, and what it must not be interrupted in.
//!
//! Whoever makes something that is to go away again says how ([`Undo::new`]). Whoever does what must be done as a whole, such as
//! giving things their places, holds the gate meanwhile ([`hold`]). When the command is interrupted, [`all`] waits for the
//! gate, closes it for good, and takes everything back; whoever comes to the gate then waits there for the end of the process. So
//! what is being taken back is never published, and nothing is said of the errors that other threads run into by then.
//!
//! Where nobody calls [`all`], as in a library or a daemon, this is a list that nobody reads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::sync::{lock, read, write};

/// Takes something back; the error says what stays, and why. It may be called again after an error.
type TakeBack = Box<dyn FnMut() -> Result<(), String> + Send>;

/// What is under way in a process.
#[derive(Default)]
struct Pending {
    gate: RwLock<()>,
    /// By age.
    list: Mutex<BTreeMap<u64, TakeBack>>,
    next: AtomicU64,
}

static PROCESS: Pending = Pending {
    gate: RwLock::new(()),
    list: Mutex::new(BTreeMap::new()),
    next: AtomicU64::new(0),
};

/// How long other threads may put new things where something is being removed, before they stumble over what is gone.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// After so long the user is told why nothing happens.
const PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// How often this thread holds the gate: only the first time counts, since a lock that is asked for twice by one thread
    /// may keep it waiting for itself.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Something that is taken back when the command is interrupted, as long as this lives.
pub struct Undo {
    of: &'static Pending,
    number: u64,
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Undo").field(&self.number).finish()
    }
}

impl Undo {
    /// `take_back` is called from another thread.
    pub fn new(take_back: impl FnMut() -> Result<(), String> + Send + 'static) -> Self {
        PROCESS.undo(Box::new(take_back))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        // What it captured is dropped after the lock is given back.
        let _forgotten = lock(&self.of.list).remove(&self.number);
    }
}

/// While it lives the command is not interrupted.
#[derive(Debug)]
pub struct Held {
    gate: Option<RwLockReadGuard<'static, ()>>,
    /// It is counted by the thread.
    _not_send: PhantomData<*const ()>,
}

/// Holds off an interruption. When there was one already, it does not return.
#[must_use]
pub fn hold() -> Held {
    PROCESS.hold()
}

impl Held {
    /// From here to its end the command is not interrupted any more: what it does now cannot be taken back.
    pub fn to_the_end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(1));
        self.gate = None;
    }
}

/// Takes everything back, the newest first, once nobody holds the gate, which stays closed. `waiting` is called when that takes
/// longer. Gives what stays, and why.
pub fn all(waiting: impl FnOnce()) -> Vec<String> {
    PROCESS.all(waiting)
}

impl Pending {
    fn undo(&'static self, take_back: TakeBack) -> Undo {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.list).insert(number, take_back);
        Undo { of: self, number }
    }

    fn hold(&'static self) -> Held {
        let is_first = HELD.replace(HELD.get() + 1) == 0;
        Held {
            gate: is_first.then(|| read(&self.gate)),
            _not_send: PhantomData,
        }
    }

    fn all(&'static self, waiting: impl FnOnce()) -> Vec<String> {
        let begun = Instant::now();
        let mut closed = None;
        while closed.is_none() && begun.elapsed() < PATIENCE {
            match self.gate.try_write() {
                Ok(gate) => closed = Some(gate),
                Err(TryLockError::Poisoned(gate)) => closed = Some(gate.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            }
        }
        let closed = closed.unwrap_or_else(|| {
            waiting();
            write(&self.gate)
        });
        std::mem::forget(closed);
        let list = std::mem::take(&mut *lock(&self.list));
        list.into_values().rev().filter_map(taken_back).collect()
    }
}

fn taken_back(mut take_back: TakeBack) -> Option<String> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match take_back() {
            Ok(()) => return None,
            Err(why) if attempt == ATTEMPTS => return Some(why),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_newest_goes_first_when_nobody_holds_the_gate() {
        // Its own: the gate is closed for good.
        let pending: &'static Pending = Box::leak(Box::default());
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = |word: &'static str, mut fails: u32| {
            let said = Arc::clone(&said);
            pending.undo(Box::new(move || {
                if fails > 0 {
                    fails -= 1;
                    return Err(word.to_owned());
                }
                lock(&said).push(word);
                Ok(())
            }))
        };
        let _old = saying("old", 0);
        drop(saying("done", 0));
        let _stubborn = saying("stubborn", ATTEMPTS);
        let _new = saying("new", 3);
        let (outer, inner) = (pending.hold(), pending.hold());
        let interrupted = std::thread::spawn(|| pending.all(|| {}));
        std::thread::sleep(PAUSE * 5);
        assert!(lock(&said).is_empty());
        // The same thread may come again, although somebody waits to close the gate.
        drop(pending.hold());
        drop(inner);
        assert!(lock(&said).is_empty());
        drop(outer);
        assert_eq!(interrupted.join().ok(), Some(vec!["stubborn".to_owned()]));
        assert_eq!(*lock(&said), ["new", "old"]);
    }
}
