//! Walking down through directories, however deep they are, on an explicit stack and with few
//! descriptors.
//!
//! The directories that lead to the one that is worked on are kept with what is to be done in each.
//! Only the deepest have a descriptor; the others are opened again by `..` on the way back, and are
//! then the ones that they were, or ESTALE is returned: the tree was moved meanwhile.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use super::stat::Stat;

/// So many levels stay open.
const LEVELS: usize = 64;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The way from a directory down to one in it, with a state for each.
#[derive(Debug)]
pub(crate) struct Descent<T> {
    steps: Vec<Step<T>>,
}

#[derive(Debug)]
struct Step<T> {
    place: StepDir,
    state: T,
}

#[derive(Debug)]
enum StepDir {
    Open(Arc<OwnedFd>),
    /// Device and inode number of a directory that was closed.
    Closed((u64, u64)),
}

impl<T> Descent<T> {
    /// Begins in an open directory.
    #[must_use]
    pub(crate) fn begin(dir: OwnedFd, state: T) -> Self {
        let place = StepDir::Open(Arc::new(dir));
        Self {
            steps: vec![Step { place, state }],
        }
    }

    /// Goes on in a directory of the last one. Errors: those of fstat(2).
    pub(crate) fn push(&mut self, dir: OwnedFd, state: T) -> Result<()> {
        let place = StepDir::Open(Arc::new(dir));
        self.steps.push(Step { place, state });
        if let Some(far) = self.steps.len().checked_sub(LEVELS + 1)
            && let Some(far) = self.steps.get_mut(far)
            && let StepDir::Open(dir) = &far.place
        {
            let stat = Stat::of_fd(dir)?;
            far.place = StepDir::Closed((stat.dev, stat.ino));
        }
        Ok(())
    }

    /// The directory that is worked on, and its state; `None` at the end of the way.
    pub(crate) fn last(&mut self) -> Option<(Arc<OwnedFd>, &mut T)> {
        match self.steps.last_mut()? {
            Step {
                place: StepDir::Open(dir),
                state,
            } => Some((Arc::clone(dir), state)),
            // The last one is always open.
            Step { .. } => None,
        }
    }

    /// Leaves the last directory, and goes back to the one above it. Errors: ESTALE, those of
    /// openat(2).
    pub(crate) fn pop(&mut self) -> Result<Option<(Arc<OwnedFd>, T)>> {
        let Some(Step { place, state }) = self.steps.pop() else {
            return Ok(None);
        };
        let StepDir::Open(dir) = place else {
            return Err(Errno::BADF);
        };
        if let Some(above) = self.steps.last_mut()
            && let StepDir::Closed(was) = above.place
        {
            let opened = openat(&dir, "..", DIRECTORY, Mode::empty())?;
            let stat = Stat::of_fd(&opened)?;
            if (stat.dev, stat.ino) != was {
                return Err(Errno::STALE);
            }
            above.place = StepDir::Open(Arc::new(opened));
        }
        Ok(Some((dir, state)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn the_way_back_is_the_way_there() {
        let dir = tempfile::tempdir().unwrap();
        let top: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut way = Descent::begin(top, 0);
        for level in 1..=1500 {
            let (at, above) = way.last().unwrap();
            assert_eq!(*above, level - 1);
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            let below = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
            way.push(below, level).unwrap();
        }
        let open = way
            .steps
            .iter()
            .filter(|step| matches!(step.place, StepDir::Open(_)));
        assert_eq!(open.count(), LEVELS);
        for level in (0..=1500).rev() {
            let (_, state) = way.pop().unwrap().unwrap();
            assert_eq!(state, level);
            if level == 1000 {
                break;
            }
        }
        // The tree is not where it was.
        std::fs::rename(dir.path().join("d/d/d"), dir.path().join("moved")).unwrap();
        let mut failed = None;
        while failed.is_none() {
            failed = way.pop().err();
        }
        assert_eq!(failed, Some(Errno::STALE));
    }
}
