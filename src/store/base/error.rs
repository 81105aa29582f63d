//! Why a command on the store failed: what was tried on what, why it did not work, and what the user can do.

use std::fmt;
use std::io;
use std::path::Path;

use rusqlite::ErrorCode;

/// The result of an operation on the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A message of one line and its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    what: String,
    cure: String,
}

impl StoreError {
    /// An error with its cure.
    pub fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            cure: cure.into(),
        }
    }

    /// A system call that failed on a path.
    pub fn io(call: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(
            format!("{call} '{}': {error}", path.display()),
            cure_of(error),
        )
    }

    /// Work on an archive that failed: with what helps against the error of the disk where it was one, else with `cure`.
    pub fn of_archive(what: &str, error: &crate::archive::Error, cure: &'static str) -> Self {
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
        let of_disk = cause.filter(|cause: &&io::Error| is_of_system(cause));
        Self::new(format!("{what}: {error}"), of_disk.map_or(cure, cure_of))
    }

    /// What helps.
    #[must_use]
    pub fn cure(&self) -> &str {
        &self.cure
    }

    /// What is wrong, without the cure.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// Whether an error is a system call's, and so says nothing about the bytes that were to be read or written.
#[must_use]
pub(crate) fn is_of_system(error: &io::Error) -> bool {
    error.raw_os_error().is_some()
}

/// What helps against an error of the disk.
#[must_use]
pub(crate) fn cure_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room (unionmount system prune), or use another --root"
        }
        io::ErrorKind::PermissionDenied => "run as the owner of the store, or use another --root",
        io::ErrorKind::NotFound => "run 'unionmount system check' when it should be there",
        io::ErrorKind::ReadOnlyFilesystem => "use a --root on a disk that can be written",
        io::ErrorKind::ResourceBusy => "end who uses it, and unmount what is mounted there",
        _ => "check the disk that it is on (dmesg)",
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.cure)
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let cure = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another command holds it for very long: wait for its end and try again"
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                "restore catalog.sqlite from a backup, or move the store away and load the images again"
            }
            Some(ErrorCode::DiskFull) => "make room on the disk of the store",
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                "run as the owner of the store, or use another --root"
            }
            _ => "run 'unionmount system check'",
        };
        Self::new(format!("the catalog of the store: {error}"), cure)
    }
}

impl From<crate::union::SetupError> for StoreError {
    fn from(error: crate::union::SetupError) -> Self {
        Self::new(error.what, error.cure)
    }
}

/// Adds to a failed system call which one it was, and on what.
pub(crate) trait Doing<T> {
    /// Names the call and the path it was about.
    ///
    /// # Errors
    /// The same error, with its context.
    fn doing(self, call: &str, path: &Path) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, call: &str, path: &Path) -> Result<T> {
        self.map_err(|error| StoreError::io(call, path, &error))
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, call: &str, path: &Path) -> Result<T> {
        self.map_err(|errno| StoreError::io(call, path, &errno.into()))
    }
}

impl StoreError {
    /// Another command removed it between two looks.
    pub(crate) fn vanished(word: &str) -> Self {
        Self::new(
            format!("'{word}' was removed by another command meanwhile"),
            "see 'unionmount image ls'",
        )
    }
}
