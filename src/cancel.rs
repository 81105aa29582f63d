//! Cancellation: whether the command is to end early, and what has to be done before it may.
//!
//! A signal asks for the end (`request`). Work asks whether it was asked for where bytes move and
//! where names are listed (`check`), and fails then as it would fail of anything else: error paths
//! and `Drop` remove what is not complete. The process ends by the signal
//!
//! * at once where nothing has to be removed: no `Cleanup` and no `WholeStep` lives;
//! * else when the command has returned (`conclude`), or the last of those is dropped.
//!
//! What cannot be taken back is done to its end: `commit` settles it, and a later signal changes
//! nothing. Where `request` is never called, as in a library or a daemon, all of this counts and
//! decides nothing.
//!
//! # Locks
//! One mutex, held for a few assignments; nothing is called under it. When the process ends it is
//! kept, so that nothing begins any more: a thread that asks for it then waits for the end of the
//! process.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::lock;

/// The command is to end early. It is never shown: the last line of the command names the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Cancelled {}

impl From<Cancelled> for io::Error {
    /// Not of kind `Interrupted`, which means to try again.
    fn from(cancelled: Cancelled) -> Self {
        Self::other(cancelled)
    }
}

/// What a process is asked for, and what it has begun.
struct Cancellation {
    /// The end is asked for, and not settled before. Read without the lock.
    requested: AtomicBool,
    /// Lock order: no other lock is taken under it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cleanups: usize,
    /// Steps and removals that are done as a whole.
    steps: usize,
    removals: usize,
    /// It is too late to end early.
    settled: bool,
    /// The command has returned.
    concluded: bool,
    /// What stays although it should have been removed.
    removed_dir: Vec<String>,
}

static PROCESS: Cancellation = Cancellation::new();

/// Asks for the end of the command.
pub(crate) fn request() {
    PROCESS.request();
}

/// Whether the command may go on.
///
/// # Errors
/// [`Cancelled`] when its end was asked for.
pub(crate) fn check() -> Result<(), Cancelled> {
    PROCESS.check()
}

/// From here on the command is done to its end.
///
/// # Errors
/// [`Cancelled`] when its end was asked for before.
pub(crate) fn commit() -> Result<(), Cancelled> {
    PROCESS.commit()
}

/// The command has returned. Does not return itself when the end was asked for: the process ends by
/// the signal then.
pub(crate) fn conclude() {
    if PROCESS.conclude() {
        loop {
            std::thread::park();
        }
    }
}

/// Reports something that stays although it should have been removed: in the log, or in the last
/// line of the command that is interrupted.
pub(crate) fn removed_dir(why: String) {
    PROCESS.removed_dir(why);
}

/// Whether the process may end now, after [`request`].
pub(crate) fn ending() -> Ending {
    PROCESS.ending()
}

/// How far a command is with ending.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The process may end; nothing is begun any more. These stay although they should have been
    /// removed.
    Now(Vec<String>),
    /// Work has not noticed yet: threads that wait may be woken.
    Working,
    /// Something incomplete is being removed.
    Removing,
    /// A step is done that cannot be taken back.
    Whole,
}

/// While it lives, something exists that is removed when the command ends early: its owner removes
/// it on errors and on `Drop`, and drops this afterwards.
#[derive(Debug)]
pub(crate) struct Cleanup(());

impl Cleanup {
    /// To be called before the thing is made.
    ///
    /// # Errors
    /// [`Cancelled`] when the end of the command was asked for: nothing new is to be made.
    pub(crate) fn begin() -> Result<Self, Cancelled> {
        PROCESS.check()?;
        Ok(Self::of_existing())
    }

    /// For a thing that is there already and is to go in any case.
    pub(crate) fn of_existing() -> Self {
        PROCESS.with(|state| state.cleanups += 1);
        Self(())
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        PROCESS.with(|state| state.cleanups -= 1);
    }
}

/// While it lives, something incomplete is being removed, which is not disturbed.
#[derive(Debug)]
pub(crate) struct Removing(());

impl Removing {
    /// To be called before the removal.
    pub(crate) fn begin() -> Self {
        PROCESS.with(|state| state.removals += 1);
        Self(())
    }
}

impl Drop for Removing {
    fn drop(&mut self) {
        PROCESS.with(|state| state.removals -= 1);
    }
}

/// While it lives, something is done that is done as a whole; a command that is interrupted
/// meanwhile ends afterwards.
#[derive(Debug)]
pub(crate) struct WholeStep(());

impl WholeStep {
    /// # Errors
    /// [`Cancelled`] when the end of the command was asked for before.
    pub(crate) fn begin() -> Result<Self, Cancelled> {
        PROCESS.check()?;
        PROCESS.with(|state| state.steps += 1);
        Ok(Self(()))
    }
}

impl Drop for WholeStep {
    fn drop(&mut self) {
        PROCESS.with(|state| state.steps -= 1);
    }
}

/// Reads and writes until the command is cancelled. What is wrapped must not repeat a call that
/// answers EINTR: each repetition has to come by here, or a thread that waits would never notice.
#[derive(Debug)]
pub(crate) struct Cancellable<R>(pub(crate) R);

impl<R: Read> Read for Cancellable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check()?;
        self.0.read(buffer)
    }
}

impl<W: Write> Write for Cancellable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        check()?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Cancellation {
    const fn new() -> Self {
        Self {
            requested: AtomicBool::new(false),
            state: Mutex::new(State {
                cleanups: 0,
                steps: 0,
                removals: 0,
                settled: false,
                concluded: false,
                removed_dir: Vec::new(),
            }),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut lock(&self.state))
    }

    fn request(&self) {
        let state = lock(&self.state);
        if !state.settled {
            self.requested.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Result<(), Cancelled> {
        match self.requested.load(Ordering::Relaxed) {
            true => Err(Cancelled),
            false => Ok(()),
        }
    }

    fn commit(&self) -> Result<(), Cancelled> {
        let mut state = lock(&self.state);
        self.check()?;
        state.settled = true;
        Ok(())
    }

    /// Returns whether the end was asked for in time.
    fn conclude(&self) -> bool {
        let mut state = lock(&self.state);
        let ends = self.check().is_err();
        state.concluded = true;
        state.settled |= !ends;
        ends
    }

    fn removed_dir(&self, why: String) {
        match self.check() {
            Ok(()) => log::warn!("this stays, remove it: {why}"),
            Err(Cancelled) => self.with(|state| state.removed_dir.push(why)),
        }
    }

    /// Keeps the lock when the process may end.
    fn ending(&self) -> Ending {
        let mut state = lock(&self.state);
        let is_free = state.concluded || state.cleanups + state.steps + state.removals == 0;
        if state.settled || state.steps > 0 {
            return Ending::Whole;
        }
        if !is_free {
            return match state.removals {
                0 => Ending::Working,
                _ => Ending::Removing,
            };
        }
        let removed_dir = std::mem::take(&mut state.removed_dir);
        std::mem::forget(state);
        Ending::Now(removed_dir)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_ends_when_nothing_is_left_to_be_removed() {
        // Its own: the lock is kept at the end.
        let process = Cancellation::new();
        process.with(|state| state.cleanups = 2);
        assert_eq!(process.check(), Ok(()));
        process.request();
        assert_eq!(process.check(), Err(Cancelled));
        assert_eq!(process.commit(), Err(Cancelled));
        assert_eq!(process.ending(), Ending::Working);
        process.with(|state| state.removals = 1);
        assert_eq!(process.ending(), Ending::Removing);
        process.removed_dir("this".to_owned());
        process.with(|state| (state.steps, state.removals, state.cleanups) = (1, 0, 0));
        assert_eq!(process.ending(), Ending::Whole);
        process.with(|state| state.steps = 0);
        assert_eq!(process.ending(), Ending::Now(vec!["this".to_owned()]));
        assert!(process.state.try_lock().is_err());
    }

    #[test]
    fn what_is_settled_is_not_cancelled_any_more() {
        for settle in [
            |process: &Cancellation| process.commit().unwrap(),
            |process: &Cancellation| assert!(!process.conclude()),
        ] {
            let process = Cancellation::new();
            settle(&process);
            process.request();
            assert_eq!(process.check(), Ok(()));
            assert_eq!(process.ending(), Ending::Whole);
        }
    }

    #[test]
    fn a_command_that_returned_has_nothing_left_to_do() {
        let process = Cancellation::new();
        process.with(|state| state.cleanups = 1);
        process.request();
        assert!(process.conclude());
        assert_eq!(process.ending(), Ending::Now(Vec::new()));
    }
}
