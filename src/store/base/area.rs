//! Work under way: a directory in `tmp/` that is locked for as long as its owner lives.
//!
//! Things are built in an area and renamed to their place. A crash leaves the area, unlocked; the
//! next command that collects garbage, or `system prune`, removes it. A command that makes an area
//! locks it and then checks that it is still there: a collector that came between the two is waited
//! for, and another area is made. A command that is interrupted removes its areas (see [`cancel`]).

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::{Context, Result, StoreError};
use super::ids::random_id;
use super::lock::{self, Lock};
use super::paths::{PRIVATE, Paths};
use super::remove::remove_tree;
use crate::cancel::{self, Cleanup, Removing};

/// A locked directory of our own, removed when dropped.
#[derive(Debug)]
pub(crate) struct Area {
    dir: PathBuf,
    _lock: Option<File>,
    /// `None` for one that another command has left.
    cleanup: Option<Cleanup>,
}

impl Area {
    /// Makes one.
    ///
    /// # Errors
    /// Those of mkdir(2) and flock(2).
    pub(crate) fn new(paths: &Paths) -> Result<Self> {
        loop {
            let cleanup = Cleanup::begin()?;
            let dir = paths.tmp().join(random_id()?);
            fs::DirBuilder::new()
                .mode(PRIVATE)
                .create(&dir)
                .context("mkdir", &dir)?;
            let Ok(lock) = File::open(&dir) else {
                continue;
            };
            flock(&lock, FlockOperation::LockExclusive).context("flock", &dir)?;
            let same = |meta: &fs::Metadata, other: &fs::Metadata| {
                (meta.dev(), meta.ino()) == (other.dev(), other.ino())
            };
            let locked = lock.metadata().context("fstat", &dir)?;
            if fs::metadata(&dir).is_ok_and(|there| same(&there, &locked)) {
                return Ok(Self::locked(dir, Some(lock), cleanup));
            }
        }
    }

    /// Makes one of something that is to go, which takes no room: it is locked, and gets a name in
    /// `tmp/`. `None` when it is not there. A caller that holds a lock on it already hands it over.
    /// To be called in a transaction.
    ///
    /// # Errors
    /// Those of rename(2); another process has it locked.
    pub(crate) fn of(paths: &Paths, place: &Path, lock: Option<Lock>) -> Result<Option<Self>> {
        let lock = match lock {
            Some(lock) => Some(lock.into_file()),
            None => match fs::symlink_metadata(place) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error).context("stat", place),
                Ok(meta) if meta.is_dir() => {
                    let lock = lock::exclude(place)?.ok_or_else(|| {
                        StoreError::in_use(
                            format!("'{}' is in use", place.display()),
                            "end what uses it, and run 'unionmount system prune'",
                        )
                    })?;
                    Some(lock.into_file())
                }
                // A collector that takes it for an area without an owner does no harm.
                Ok(_) => None,
            },
        };
        let dir = paths.tmp().join(random_id()?);
        match fs::rename(place, &dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            renamed => {
                renamed.context("rename", place)?;
                Ok(Some(Self::locked(dir, lock, Cleanup::of_existing())))
            }
        }
    }

    fn locked(dir: PathBuf, lock: Option<File>, cleanup: Cleanup) -> Self {
        Self {
            dir,
            _lock: lock,
            cleanup: Some(cleanup),
        }
    }

    /// The directory.
    #[must_use]
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Releases the lock and leaves everything as it is.
    pub(crate) fn leave(mut self) {
        self.cleanup = None;
        self.dir = PathBuf::new();
    }

    /// A place in it.
    #[must_use]
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.dir.as_os_str().is_empty() {
            return;
        }
        let removing = Removing::begin();
        if let Err(error) = remove_tree(&self.dir) {
            cancel::removed_dir(format!(
                "{error}; 'unionmount system prune' removes the rest"
            ));
        }
        drop(removing);
    }
}

/// The areas whose owners have ended, locked so that no other process removes them.
///
/// # Errors
/// `tmp/` cannot be read.
pub(crate) fn abandoned(paths: &Paths) -> Result<Vec<Area>> {
    let tmp = paths.tmp();
    let mut found = Vec::new();
    for entry in fs::read_dir(&tmp).context("read", &tmp)? {
        let dir = entry.context("read", &tmp)?.path();
        let lock = match File::open(&dir) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context("open", &dir),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => found.push(Area {
                dir,
                _lock: Some(lock),
                cleanup: None,
            }),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(errno).context("flock", &dir),
        }
    }
    Ok(found)
}

impl Area {
    /// Moves something into the area, where it is deleted with the area; `None` when it was not
    /// there.
    pub(crate) fn take(&self, from: &Path, name: &str) -> Result<Option<PathBuf>> {
        let to = self.join(&format!("gone-{name}"));
        match fs::rename(from, &to) {
            Ok(()) => Ok(Some(to)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("rename", from),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_area_is_ours_while_it_lives_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().to_owned());
        paths.create().unwrap();
        let area = Area::new(&paths).unwrap();
        fs::create_dir_all(area.join("a/b")).unwrap();
        let left = paths.tmp().join("left");
        fs::create_dir(&left).unwrap();
        let found = abandoned(&paths).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].dir(), left);
        drop(found);
        drop(area);
        assert_eq!(fs::read_dir(paths.tmp()).unwrap().count(), 0);
    }
}
