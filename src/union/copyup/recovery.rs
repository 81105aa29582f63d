//! Finishing what a killed mount left in a work directory, without a mount.

use crate::layer::FdCache;
use crate::layer::WritableDir;
use crate::union::config::SetupError;
use crate::union::copyup::publish_names::finish_publications;
use crate::union::work::stage::WorkDir;
use std::path::Path;
use std::time::Duration;

/// Descriptors that a recovery keeps open.
const RECOVERY_FDS: usize = 64;

/// A work directory that is not in use, locked until this is dropped.
#[derive(Debug)]
pub struct Recovery {
    upper: WritableDir,
    stage: WorkDir,
}

impl Recovery {
    /// Locks it. Errors: it is in use by a mount; it is not there, or cannot be written.
    pub fn begin(upper: &Path, work: &Path) -> std::result::Result<Self, SetupError> {
        let cache = FdCache::new(RECOVERY_FDS);
        let fd = crate::union::open_root(upper).map_err(|errno| {
            SetupError::new(
                format!("cannot open upper directory {}: {errno}", upper.display()),
                "give a directory that is there and that you may read and write",
            )
            .caused_by(&errno)
        })?;
        let upper = WritableDir::root(fd, &cache);
        let records = upper.records().cloned();
        let stage = WorkDir::open_within(work, &cache, records, Duration::ZERO)?;
        Ok(Self { upper, stage })
    }

    /// What the next writable mount would do: finishes publications that a killed daemon left half
    /// done, then empties the directory. Errors: what the disk answers.
    pub fn finish(&self) -> std::result::Result<(), SetupError> {
        finish_publications(&self.upper, &self.stage.dir)
            .and_then(|()| self.stage.empty())
            .map_err(|errno| {
                SetupError::new(
                    format!("cannot empty the work directory: {errno}"),
                    "run it as one who may write there",
                )
                .caused_by(&errno)
            })
    }
}
