//! Why a command on the store failed: what was tried on what, why it did not work, and what the
//! user can do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;
use rustix::io::Errno;

use crate::archive;
use crate::cancel::Cancelled;
use crate::union;

/// The result of an operation on the store.
pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// What sort of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is nothing of that name.
    NotFound,
    /// Several things begin with the word that was given.
    Ambiguous,
    /// A name, an option or a variable has a value that cannot be used.
    Invalid,
    /// The name is taken.
    Exists,
    /// A container, a mount or another command uses it.
    InUse,
    /// Another command changed the store meanwhile, or left something that has to be looked at
    /// first.
    Conflict,
    /// What was to be read from outside of the store is damaged, incomplete or of an unknown form.
    Malformed,
    /// What the store holds is damaged or missing.
    Damaged,
    /// A limit would be exceeded.
    Limit,
    /// The store belongs to another user, or others may write in it.
    NotPrivate,
    /// It is of a form, or asks for something, that is not supported.
    Unsupported,
    /// A system call failed.
    Io,
    /// SQLite refused a query.
    Catalog,
    /// Layers and upper do not make a union.
    Setup,
    /// A mistake in this program.
    Internal,
    /// The command is to end early.
    Cancelled,
}

/// Why a command on the store failed: a message of one line, and what helps.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: ErrorKind,
    what: String,
    hint: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident,)*) => {
        impl StoreError {
            $(
                #[doc = concat!("An error of the kind [`ErrorKind::", stringify!($kind), "`].")]
                pub(crate) fn $name(what: impl Into<String>, hint: impl Into<String>) -> Self {
                    Self::new(ErrorKind::$kind, what, hint)
                }
            )*
        }
    };
}

constructors! {
    not_found => NotFound,
    ambiguous => Ambiguous,
    invalid => Invalid,
    exists => Exists,
    in_use => InUse,
    conflict => Conflict,
    malformed => Malformed,
    damaged => Damaged,
    limit => Limit,
    not_private => NotPrivate,
    unsupported => Unsupported,
    internal => Internal,
}

impl StoreError {
    fn new(kind: ErrorKind, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            hint: hint.into(),
            source: None,
        }
    }

    /// Something that another error is the reason for; the message ends with that one's.
    pub(crate) fn failed(
        what: impl fmt::Display,
        cause: impl Cause,
        hint: impl Into<String>,
    ) -> Self {
        let mut error = Self::new(cause.kind(), format!("{what}: {cause}"), hint);
        error.source = Some(Arc::new(cause));
        error
    }

    /// A system call that failed on a path.
    pub(crate) fn io(call: &str, path: &Path, error: io::Error) -> Self {
        let hint = hint_for(&error);
        Self::failed(format_args!("{call} '{}'", path.display()), error, hint)
    }

    /// Work on an archive that failed. The hint is about the disk where that was the reason.
    pub(crate) fn of_archive(what: &str, error: archive::Error, hint: &'static str) -> Self {
        let cause = Error::source(&error).and_then(|cause| cause.downcast_ref());
        let of_disk = cause.filter(|cause: &&io::Error| is_of_system(cause));
        let hint = of_disk.map_or(hint, hint_for);
        Self::failed(what, error, hint)
    }

    /// Another command removed it between two looks.
    pub(crate) fn vanished(word: impl fmt::Display) -> Self {
        Self::conflict(
            format!("'{word}' was removed by another command meanwhile"),
            "see 'unionmount image ls'",
        )
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// What is wrong, without the hint.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// An error that can be the reason for one of the store's.
pub(crate) trait Cause: Error + Send + Sync + Sized + 'static {
    /// The kind that it makes of the store's.
    fn kind(&self) -> ErrorKind;
}

impl Cause for io::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Io
    }
}

impl Cause for Errno {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Io
    }
}

impl Cause for union::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Io
    }
}

impl Cause for archive::Error {
    fn kind(&self) -> ErrorKind {
        match archive::Error::kind(self) {
            archive::ErrorKind::Malformed | archive::ErrorKind::Mismatch => ErrorKind::Malformed,
            archive::ErrorKind::Refused => ErrorKind::Unsupported,
            archive::ErrorKind::Limit => ErrorKind::Limit,
            archive::ErrorKind::Io => ErrorKind::Io,
            archive::ErrorKind::Cancelled => ErrorKind::Cancelled,
        }
    }
}

/// Whether an error is a system call's, and so says nothing about the bytes that were to be read or
/// written.
#[must_use]
pub(crate) fn is_of_system(error: &io::Error) -> bool {
    error.raw_os_error().is_some()
}

/// What helps against an error of the disk.
fn hint_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room (unionmount system prune), or use another --root"
        }
        io::ErrorKind::PermissionDenied => "run as the owner of the store, or use another --root",
        io::ErrorKind::NotFound => "run 'unionmount system check' when it should be there",
        io::ErrorKind::ReadOnlyFilesystem => "use a --root on a disk that can be written",
        io::ErrorKind::ResourceBusy => "end what uses it, and unmount what is mounted there",
        _ => "check the disk that it is on (dmesg)",
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Two errors that say the same are the same: a source is not compared.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.what, &self.hint) == (other.kind, &other.what, &other.hint)
    }
}

impl Eq for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let hint = match error.sqlite_error_code() {
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
        Self::failed("the catalog of the store", error, hint)
    }
}

impl Cause for rusqlite::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Catalog
    }
}

impl From<Cancelled> for StoreError {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(
            ErrorKind::Cancelled,
            cancelled.to_string(),
            "give the command again",
        )
    }
}

impl From<union::SetupError> for StoreError {
    fn from(error: union::SetupError) -> Self {
        Self {
            source: Some(Arc::new(error.clone())),
            ..Self::new(ErrorKind::Setup, error.what(), error.hint())
        }
    }
}

/// Adds to a failed system call which one it was, and on what.
pub(crate) trait Context<T> {
    /// Names the call and the path it was about.
    ///
    /// # Errors
    /// The same error, with its context.
    fn context(self, call: &str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, call: &str, path: &Path) -> Result<T> {
        self.map_err(|error| StoreError::io(call, path, error))
    }
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, call: &str, path: &Path) -> Result<T> {
        self.map_err(|errno| StoreError::io(call, path, errno.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kind_source_and_hint_can_be_matched() {
        let failed: io::Result<()> = Err(Errno::NOSPC.into());
        let error = failed.context("write", Path::new("/f")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.hint().contains("prune"), "{error}");
        assert!(error.what().starts_with("write '/f': "), "{error}");
        let source = error.source().and_then(|source| source.downcast_ref());
        let source: &io::Error = source.unwrap();
        assert_eq!(Errno::from_io_error(source), Some(Errno::NOSPC));

        let limit = archive::Error::limit("it is long", "--max-size");
        let error = StoreError::of_archive("layer", limit, "hint");
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Limit, "hint"));
        assert_eq!(StoreError::vanished("x").kind(), ErrorKind::Conflict);
    }
}
