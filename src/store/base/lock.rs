//! A container or volume in use: a shared lock on its directory, held by every process that works
//! with it. The daemon of a mount inherits it and keeps it until it ends, in whatever mount
//! namespace; what is locked is not removed.
//!
//! These locks are tried for a moment and never waited for, so they may be taken inside a
//! transaction of the catalog. A command that mounts takes its [`MountLock`] first, then shares the
//! lock on the directory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::error::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A lock on a directory, given back when dropped or when the last process that inherited it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    dir: File,
}

impl Lock {
    /// The descriptor that has the lock, for an owner that keeps it from now on.
    #[must_use]
    pub(crate) fn into_file(self) -> File {
        self.dir
    }
}

/// The owner of the descriptor has the lock.
impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.dir.into()
    }
}

/// The right to mount a container: the others wait until it is mounted. It is given back when
/// dropped, also by a process that was forked meanwhile and still has it.
#[derive(Debug)]
pub(crate) struct MountLock {
    file: File,
}

impl MountLock {
    /// Takes it; `None` when another process has it. The file is made when it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub(crate) fn take(file: &Path) -> Result<Option<Self>> {
        let opened = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file)
            .context("open", file)?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file: opened })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).context("flock", file),
        }
    }
}

impl Drop for MountLock {
    fn drop(&mut self) {
        if let Err(errno) = flock(&self.file, FlockOperation::Unlock) {
            log::debug!("flock: {errno}");
        }
    }
}

/// How often it is tried, and how long in between: a process that only checks holds the lock for a
/// moment.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(4);

/// Marks a directory as used; `None` when another process is about to remove it.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn share(dir: &Path) -> Result<Option<Lock>> {
    patiently(dir, FlockOperation::NonBlockingLockShared)
}

/// Excludes all users of a directory as long as the lock is held; `None` when there is one.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn exclude(dir: &Path) -> Result<Option<Lock>> {
    patiently(dir, FlockOperation::NonBlockingLockExclusive)
}

/// Whether a directory is in use. One that is not there is not.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn is_locked(dir: &Path) -> Result<bool> {
    match File::open(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        _ => Ok(lock(dir, FlockOperation::NonBlockingLockExclusive)?.is_none()),
    }
}

fn patiently(dir: &Path, operation: FlockOperation) -> Result<Option<Lock>> {
    for _ in 0..ATTEMPTS {
        if let Some(lock) = lock(dir, operation)? {
            return Ok(Some(lock));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

fn lock(dir: &Path, operation: FlockOperation) -> Result<Option<Lock>> {
    let file = File::open(dir).context("open", dir)?;
    match flock(&file, operation) {
        Ok(()) => Ok(Some(Lock { dir: file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).context("flock", dir),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn users_share_and_a_remover_excludes() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (share(dir.path()).unwrap(), share(dir.path()).unwrap());
        assert!(one.is_some() && two.is_some());
        assert!(is_locked(dir.path()).unwrap());
        assert!(exclude(dir.path()).unwrap().is_none());
        drop((one, two));
        assert!(!is_locked(dir.path()).unwrap());
        let alone = exclude(dir.path()).unwrap();
        assert!(alone.is_some() && share(dir.path()).unwrap().is_none());
        assert!(!is_locked(&dir.path().join("missing")).unwrap());
    }
}
