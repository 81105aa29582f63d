//! What is logged of requests that failed.

use std::borrow::Cow;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;
use crate::union::{Error, NodeId, Union};

/// A failing place is logged once in this time.
const PAUSE: Duration = Duration::from_secs(1);
/// How many places are remembered. When more fail within [`PAUSE`], the others are not logged.
const PLACES: usize = 64;

/// What a request was about.
#[derive(Clone, Copy, Debug)]
pub(in crate::fuse) struct Subject<'a> {
    /// The request, by the name of its system call.
    pub(in crate::fuse) call: &'static str,
    /// The node that it is addressed to.
    pub(in crate::fuse) node: NodeId,
    /// The name in that directory, if it is about one.
    pub(in crate::fuse) name: Option<&'a [u8]>,
}

/// A place that failed lately.
#[derive(Debug)]
struct FailingPlace {
    call: &'static str,
    node: NodeId,
    name: Option<Box<[u8]>>,
    logged: Instant,
    /// How often it failed since without being logged.
    unlogged: u64,
}

impl FailingPlace {
    fn is(&self, subject: &Subject<'_>) -> bool {
        (self.call, self.node) == (subject.call, subject.node)
            && self.name.as_deref() == subject.name
    }
}

/// The log of failed requests: one line for each failing call on each file and second. It is a
/// failure what a disk refused; everyday answers, such as ENOENT, are for those who debug.
#[derive(Debug, Default)]
pub(in crate::fuse) struct FailureLog {
    /// Lock order: the last; no other lock is taken while it is held, and no message is written.
    places: Mutex<Vec<FailingPlace>>,
}

impl FailureLog {
    /// Logs that `error` came of a request. Holds no lock of the union when it is called.
    pub(in crate::fuse) fn report(&self, union: &Union, subject: Subject<'_>, error: &Error) {
        let call = subject.call;
        if !error.is_failure() {
            log::debug!("{call}: {error}");
            return;
        }
        let Some(unlogged) = self.is_due(&subject, Instant::now()) else {
            return;
        };
        let location = union.location(subject.node, subject.name);
        let repeated = match unlogged {
            0 => Cow::Borrowed(""),
            count => Cow::Owned(format!(" (and {count} times since the last message)")),
        };
        log::warn!(
            "{call} {}: {error}; {location}{repeated}",
            location.shown_path()
        );
    }

    /// Whether a failure is to be logged now: returns how many of the same place were not, since
    /// the last one that was.
    fn is_due(&self, subject: &Subject<'_>, now: Instant) -> Option<u64> {
        let mut places = lock(&self.places);
        if let Some(place) = places.iter_mut().find(|place| place.is(subject)) {
            if now.saturating_duration_since(place.logged) < PAUSE {
                place.unlogged += 1;
                return None;
            }
            place.logged = now;
            return Some(std::mem::take(&mut place.unlogged));
        }
        if places.len() >= PLACES {
            places.retain(|place| now.saturating_duration_since(place.logged) < PAUSE);
        }
        if places.len() >= PLACES {
            return None;
        }
        places.push(FailingPlace {
            call: subject.call,
            node: subject.node,
            name: subject.name.map(Box::from),
            logged: now,
            unlogged: 0,
        });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(node: u64, name: Option<&[u8]>) -> Subject<'_> {
        Subject {
            call: "write",
            node: NodeId(node),
            name,
        }
    }

    #[test]
    fn a_failing_place_is_logged_once_a_second() {
        let log = FailureLog::default();
        let start = Instant::now();
        let second = start + PAUSE;
        assert_eq!(log.is_due(&subject(1, None), start), Some(0));
        assert_eq!(log.is_due(&subject(1, None), start), None);
        assert_eq!(log.is_due(&subject(1, None), start + PAUSE / 2), None);
        // Other files are other places.
        assert_eq!(log.is_due(&subject(2, None), start), Some(0));
        assert_eq!(log.is_due(&subject(1, Some(b"a")), start), Some(0));
        assert_eq!(log.is_due(&subject(1, None), second), Some(2));
        assert_eq!(log.is_due(&subject(1, None), second), None);
    }

    #[test]
    fn the_log_has_an_end_when_everything_fails() {
        let log = FailureLog::default();
        let start = Instant::now();
        let logged = |now| {
            let due = (0..1000).filter_map(|node| log.is_due(&subject(node, None), now));
            due.count()
        };
        assert_eq!(logged(start), PLACES);
        assert_eq!(logged(start), 0);
        assert_eq!(logged(start + PAUSE), PLACES);
        assert_eq!(lock(&log.places).len(), PLACES);
    }
}
