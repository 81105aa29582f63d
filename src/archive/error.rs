//! Why an archive could not be read, applied or written: one line with the entry, the call, the
//! cause and a hint.

use std::io;

use rustix::io::Errno;

use crate::cancel::Cancelled;

/// The result of working on an archive.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What helps against a damaged archive.
pub(super) const DOWNLOAD: &str = "download it again";

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bytes are not what they should be: damaged, cut off, or of an unknown format.
    Malformed,
    /// The archive asks for something that is never done: it leads outside, or cannot be
    /// represented.
    Refused,
    /// A limit would be exceeded.
    Limit,
    /// Digest or size are not the expected ones.
    Mismatch,
    /// A system call failed.
    Io,
    /// The command is to end early.
    Cancelled,
}

/// Why an archive could not be read, applied or written.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    entry: Option<Vec<u8>>,
    what: String,
    cause: Option<io::Error>,
    hint: Option<String>,
}

impl Error {
    fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            entry: None,
            what: what.into(),
            cause: None,
            hint: None,
        }
    }

    /// The archive is damaged.
    pub fn malformed(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, what)
    }

    /// The archive asks for something that is never done.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, what)
    }

    /// A limit is exceeded; `option` is what raises it on the command line.
    pub fn limit(what: impl std::fmt::Display, option: &str) -> Self {
        Self::new(ErrorKind::Limit, what.to_string()).with_hint(format!(
            "raise the limit with {option} if you trust the archive"
        ))
    }

    /// Something has not the expected value.
    pub fn mismatch(
        what: &str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Self {
        let what = format!("{what} is {found}, not {expected} as expected");
        Self::new(ErrorKind::Mismatch, what)
            .with_hint("the file is damaged or not the one expected; download it again")
    }

    /// A system call failed.
    pub fn io(what: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..Self::new(ErrorKind::Io, what)
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Adds the entry that it is about, unless that is known.
    #[must_use]
    pub fn at(mut self, entry: &[u8]) -> Self {
        if self.entry.is_none() {
            self.entry = Some(entry.to_vec());
        }
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether what was to be read was removed or replaced by something of another kind: the tree
    /// is being changed.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        let errno = self.cause.as_ref().and_then(Errno::from_io_error);
        errno.is_some_and(is_gone)
    }

    /// Whether the reader of what is written has closed its end.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        let cause = self.cause.as_ref();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The name of the entry that it is about, as it stands in the archive.
    #[must_use]
    pub fn entry(&self) -> Option<&[u8]> {
        self.entry.as_deref()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(entry) = &self.entry {
            write!(f, "entry '{}': ", String::from_utf8_lossy(entry))?;
        }
        f.write_str(&self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl From<Cancelled> for Error {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(ErrorKind::Cancelled, cancelled.to_string())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

/// Whether a system call failed since what it was about is not there any more, or is of another
/// kind by now.
#[must_use]
pub(crate) fn is_gone(errno: Errno) -> bool {
    GONE.contains(&errno)
}

const GONE: [Errno; 5] = [
    Errno::NOENT,
    Errno::STALE,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::LOOP,
];

/// Returns `None`, and logs it, for what was removed while it was read.
pub(super) fn unless_gone<T>(path: &[u8], read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.is_gone() => {
            log::warn!("{error}; it was removed while it was read, and is left out");
            Ok(None)
        }
        read => read.at_entry(path).map(Some),
    }
}

/// Adds to a failed system call what was attempted.
pub(super) trait Context<T> {
    /// `call` was attempted on `name`.
    fn context(self, call: &str, name: &[u8]) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, call: &str, name: &[u8]) -> Result<T> {
        self.map_err(|err| Error::io(format!("{call}({})", String::from_utf8_lossy(name)), err))
    }
}

/// Adds to an error the entry that it is about.
pub(super) trait AtEntry {
    /// Returns the error with the entry's name.
    #[must_use]
    fn at_entry(self, entry: &[u8]) -> Self;
}

impl<T> AtEntry for Result<T> {
    fn at_entry(self, entry: &[u8]) -> Self {
        self.map_err(|err| err.at(entry))
    }
}
