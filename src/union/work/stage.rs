//! The work directory: where things are built beside the tree, to be published by one system call.
//!
//! Everything lives in `WORK/work`, as kernel overlayfs lays it out. A writable mount locks the
//! work directory (flock(2), held until the daemon is gone) and empties it before anything else,
//! after finishing the publications that a killed daemon left half done
//! (`copyup/publish_names.rs`). What a crash leaves here is therefore never seen in the merged tree
//! and is gone after the next mount.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat};
use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::remove::{clear, remove};
use crate::layer::stat_override::StatOverrides;
use crate::layer::{FdCache, WritableDir};
use crate::union::config::{SetupError, cure_for_work};

/// How long a writable mount waits for the daemon of an ended mount to leave the work directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The staging area of a writable union.
#[derive(Debug)]
pub(in crate::union) struct WorkDir {
    pub(in crate::union) dir: WritableDir,
    counter: AtomicU64,
    lock: OwnedFd,
}

impl WorkDir {
    /// Locks the work directory and makes `WORK/work` if needed. Nothing is removed yet. What is
    /// built there keeps `records` as the upper does.
    pub(in crate::union) fn open(
        work: &Path,
        cache: &Arc<FdCache>,
        records: Option<Arc<StatOverrides>>,
    ) -> std::result::Result<Self, SetupError> {
        Self::open_within(work, cache, records, LOCK_PATIENCE)
    }

    pub(in crate::union) fn open_within(
        work: &Path,
        cache: &Arc<FdCache>,
        records: Option<Arc<StatOverrides>>,
        patience: Duration,
    ) -> std::result::Result<Self, SetupError> {
        let problem = |call: &str, errno: Errno| {
            SetupError::new(
                format!("{call} work directory {}: {errno}", work.display()),
                cure_for_work(errno),
            )
            .caused_by(&errno)
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(work, flags, Mode::empty()).map_err(|e| problem("open", e))?;
        wait_for_lock(&lock, work, patience)?;
        match mkdirat(&lock, "work", Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(problem("mkdir work in", errno)),
        }
        let dir = openat(&lock, "work", flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|e| problem("open work in", e))?;
        Ok(Self {
            dir: WritableDir::root_with(Arc::new(dir), cache, records),
            counter: AtomicU64::new(0),
            lock,
        })
    }

    /// The directory in which things are built.
    #[must_use]
    pub(in crate::union) fn dir(&self) -> &WritableDir {
        &self.dir
    }

    /// A name that nothing in the stage has.
    #[must_use]
    pub(in crate::union) fn fresh_name(&self) -> Name {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Name::from(format!("{number:x}").into_bytes())
    }

    /// Lets another union have the work directory. A failure is logged: it has it when this process
    /// ends.
    pub(in crate::union) fn unlock(&self) {
        if let Err(errno) = flock(&self.lock, FlockOperation::Unlock) {
            log::warn!("unlock the work directory: {errno}");
        }
    }

    /// Removes everything in the stage.
    pub(in crate::union) fn empty(&self) -> rustix::io::Result<()> {
        clear(self.dir.fd()?).map_err(|failure| {
            log::warn!("work directory: {failure}");
            failure.errno
        })
    }

    /// Removes one object of any type from the stage; a failure is logged, since the next mount
    /// empties the stage anyway.
    pub(in crate::union) fn discard(&self, name: &Name) {
        let removed = self.dir.fd().map(|dir| remove(dir, name));
        match removed {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => {
                log::warn!("work directory: {failure}; the next mount removes it");
            }
            Err(errno) => log::warn!(
                "work directory: open: {errno}; the next mount removes \"{}\"",
                name.escape_ascii()
            ),
        }
    }
}

fn wait_for_lock(
    fd: &OwnedFd,
    work: &Path,
    patience: Duration,
) -> std::result::Result<(), SetupError> {
    let deadline = Instant::now() + patience;
    loop {
        match flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(SetupError::new(
                    format!(
                        "work directory {} is in use by another mount",
                        work.display()
                    ),
                    "unmount that one first, use another upper and work directory, or mount read-only",
                )
                .caused_by(&Errno::WOULDBLOCK));
            }
            Err(errno) => {
                return Err(SetupError::new(
                    format!("flock work directory {}: {errno}", work.display()),
                    "use a work directory on a file system that supports flock(2)",
                )
                .caused_by(&errno));
            }
        }
    }
}
