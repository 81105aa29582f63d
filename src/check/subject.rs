//! What is looked at, and how it is opened.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::union::config::SetupError;
use crate::union::open_root;

/// Descriptors that a walk keeps open at most.
pub(super) const CACHED_FDS: usize = 256;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    /// Lower layers, newest first.
    pub lowers: Vec<PathBuf>,
    /// The upper.
    pub upper: Option<PathBuf>,
    /// Its work directory.
    pub work: Option<PathBuf>,
}

/// Opens the root of a layer.
pub(super) fn opened(path: &Path) -> Result<OwnedFd, SetupError> {
    open_root(path).map_err(|errno| unreadable(path, errno))
}

/// The error for a directory that cannot be read.
pub(super) fn unreadable(path: &Path, errno: Errno) -> SetupError {
    SetupError::new(
        format!("cannot read {}: {errno}", path.display()),
        "give directories that are there and that you may read",
    )
    .caused_by(&errno)
}
