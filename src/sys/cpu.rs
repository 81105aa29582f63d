//! The machine's processors, as the kernel counts them.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Where the kernel lists its processors.
const SYSFS: &str = "/sys/devices/system/cpu";

/// How many processors there could ever be, offline ones included. FUSE over io_uring has one queue
/// for each.
///
/// # Errors
/// Those of reading sysfs; `InvalidData` for a list that is none.
pub(crate) fn possible() -> io::Result<usize> {
    Ok(list("possible")?.len())
}

/// The numbers of the processors that run now, ascending.
///
/// # Errors
/// Those of reading sysfs; `InvalidData` for a list that is none.
pub(crate) fn online() -> io::Result<Vec<usize>> {
    list("online")
}

fn list(name: &str) -> io::Result<Vec<usize>> {
    let path = format!("{SYSFS}/{name}");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    parse(text.trim()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: '{}' is no list of processors", text.trim()),
        )
    })
}

/// Reads a list as sysfs writes it ("0-3,5"), see cpuset(7), "List format". The empty list is
/// empty.
fn parse(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    if text.is_empty() {
        return Some(numbers);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        // More than any kernel counts would only be memory for a list that is wrong.
        if first > last || last >= CpuSet::MAX_CPU * 64 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// The processors that a thread was allowed to use when it was asked: taskset(1) and the like are
/// respected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed(CpuSet);

impl Allowed {
    /// Those of the calling thread; none when the kernel counts more than 1024.
    #[must_use]
    pub(crate) fn here() -> Self {
        Self(sched_getaffinity(None).unwrap_or_else(|_too_many| CpuSet::new()))
    }

    /// Keeps the calling thread on one processor where that is possible: it is allowed, is online
    /// and belongs to the thread's control group. Otherwise the thread stays where it may be, which
    /// is slower but works.
    pub(crate) fn pin(&self, cpu: usize) -> bool {
        if cpu >= CpuSet::MAX_CPU || !self.0.is_set(cpu) {
            return false;
        }
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).is_ok()
    }
}

/// The processor that the calling thread runs on.
#[must_use]
pub(crate) fn current() -> usize {
    sched_getcpu()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        for (text, numbers) in [
            ("", Some(vec![])),
            ("0", Some(vec![0])),
            ("0-3,5", Some(vec![0, 1, 2, 3, 5])),
            ("0-1,8-9", Some(vec![0, 1, 8, 9])),
            ("3-1", None),
            ("0-", None),
            ("-1", None),
            ("a", None),
            ("0,,1", None),
            ("0-99999999999", None),
        ] {
            assert_eq!(parse(text), numbers, "{text:?}");
        }
    }

    #[test]
    fn every_running_processor_is_possible() {
        let online = online().unwrap();
        assert!(!online.is_empty());
        assert!(possible().unwrap() >= online.len());
    }

    #[test]
    fn threads_are_pinned_where_they_may_run() {
        std::thread::spawn(|| {
            let allowed = Allowed::here();
            assert!(!allowed.pin(usize::MAX));
            assert!(!allowed.pin(CpuSet::MAX_CPU - 1));
            let here = current();
            assert!(allowed.pin(here));
            assert_eq!(current(), here);
            // Narrower than before: what is forbidden now stays so.
            let narrow = Allowed::here();
            for other in online().unwrap() {
                assert_eq!(narrow.pin(other), other == here);
            }
        })
        .join()
        .unwrap();
    }
}
