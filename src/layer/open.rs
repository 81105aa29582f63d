//! Opening a directory of a layer from its place, never by a path.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use super::dir::{Dir, DirLocation, UNKNOWN_DEVICE, os};
use super::stat::Stat;
use crate::sync::read;

pub(super) const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory for reading; without changing its access time where the daemon may ask for
/// that (as its owner), and with `O_PATH` where it may not be read.
pub(super) fn open_dir(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
    let open = |flags| openat(parent, os(name), OPEN_DIR | flags, Mode::empty());
    match open(OFlags::NOATIME) {
        Err(Errno::PERM) => match open(OFlags::empty()) {
            Err(Errno::ACCESS) => open(OFlags::PATH),
            other => other,
        },
        Err(Errno::ACCESS) => open(OFlags::PATH),
        other => other,
    }
}

impl Dir {
    /// A descriptor of the directory, opened for reading (`O_PATH` where reading is not permitted).
    /// Errors: ENOENT when it was removed; ESTALE when another one took its place, where that is
    /// possible; those of openat(2).
    pub(crate) fn fd(&self) -> Result<Arc<OwnedFd>> {
        // Those to be opened before it, the one nearest to the root last; and the one that was just
        // opened, which the cache may close again.
        let mut closed: Vec<Arc<Self>> = Vec::new();
        let mut opened: Option<(Arc<Self>, Arc<OwnedFd>)> = None;
        loop {
            let next = closed.last().map_or(self, |dir| &**dir);
            match next.open_beneath(opened.as_ref())? {
                Step::Open(fd) => match closed.pop() {
                    Some(dir) => opened = Some((dir, fd)),
                    None => return Ok(fd),
                },
                Step::First(parent) => closed.push(parent),
            }
        }
    }

    /// One step of [`Dir::fd`]: opens the directory if its parent is open. `opened` is a directory
    /// that is open.
    fn open_beneath(&self, opened: Option<&(Arc<Self>, Arc<OwnedFd>)>) -> Result<Step> {
        if let Some(fd) = self.slot.get() {
            return Ok(Step::Open(fd));
        }
        match &*read(&self.place) {
            DirLocation::Root(fd) => Ok(Step::Open(Arc::clone(fd))),
            DirLocation::Gone => Err(Errno::NOENT),
            DirLocation::Child { parent, name } => {
                let at_hand = match opened {
                    Some((dir, fd)) if Arc::ptr_eq(dir, parent) => Some(Arc::clone(fd)),
                    _ => parent.at_hand(),
                };
                let Some(parent) = at_hand else {
                    return Ok(Step::First(Arc::clone(parent)));
                };
                let open = || {
                    let fd = open_dir(&parent, name)?;
                    match self.being {
                        Some(being) if !being.is(&Stat::of_fd(&fd)?) => Err(Errno::STALE),
                        _ => Ok(fd),
                    }
                };
                self.slot.get_or_open(open).map(Step::Open)
            }
        }
    }

    /// The descriptor, if nothing need be opened for it.
    fn at_hand(&self) -> Option<Arc<OwnedFd>> {
        self.slot.get().or_else(|| match &*read(&self.place) {
            DirLocation::Root(fd) => Some(Arc::clone(fd)),
            _ => None,
        })
    }

    /// Closes its descriptor if its place has another directory now, or none. Returns whether it
    /// did.
    pub(crate) fn close_if_replaced(&self) -> bool {
        let (DirLocation::Child { parent, name }, Some(fd)) =
            (&*read(&self.place), self.slot.get())
        else {
            return false;
        };
        let same = Stat::of_fd(&fd).is_ok_and(|held| {
            let here = parent.stat_on_disk(name);
            here.is_ok_and(|here| (here.dev, here.ino) == (held.dev, held.ino))
        });
        if !same {
            self.slot.clear();
            self.device.store(UNKNOWN_DEVICE, Ordering::Relaxed);
        }
        !same
    }
}

/// A step towards a descriptor.
enum Step {
    /// It is open.
    Open(Arc<OwnedFd>),
    /// This one must be opened first.
    First(Arc<Dir>),
}
