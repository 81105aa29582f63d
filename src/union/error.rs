//! Why an operation on the union failed.

use rustix::io::Errno;

/// The result of an operation on the union.
pub type Result<T> = std::result::Result<T, Error>;

/// An errno for the caller, and for the log which system call failed on what.
///
/// Most errors are everyday answers that are not logged: making one costs nothing but a few words.
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    /// The system call.
    call: Option<&'static str>,
    /// What it was about, if it will be logged.
    object: Option<Box<[u8]>>,
}

impl Error {
    /// The answer that the rules of the file system require, no failure of anything beneath.
    #[must_use]
    pub fn rule(errno: Errno) -> Self {
        Self {
            errno,
            call: None,
            object: None,
        }
    }

    /// The errno for the caller.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// Whether a call beneath failed in a way that the administrator should see: not the everyday
    /// answers (no such name, no such xattr, ..) but a full, broken or forbidden disk.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.call.is_some() && !is_everyday(self.errno)
    }
}

/// What a disk may answer any time without anything being wrong with it.
fn is_everyday(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT
            | Errno::EXIST
            | Errno::NODATA
            | Errno::NOTEMPTY
            | Errno::OPNOTSUPP
            | Errno::NAMETOOLONG
            | Errno::NXIO
            | Errno::RANGE
            | Errno::INVAL
            | Errno::FBIG
    )
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(call) = self.call {
            f.write_str(call)?;
            // "." stands for the object that the request is about, which the message names anyway.
            if let Some(object) = self.object.as_deref().filter(|object| *object != b".") {
                write!(f, " \"{}\"", object.escape_ascii())?;
            }
            f.write_str(": ")?;
        }
        self.errno.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::rule(errno)
    }
}

/// Adds to a failed system call which one it was.
pub(crate) trait Context<T> {
    /// Names the call and the entry it was about.
    fn context(self, call: &'static str, name: &[u8]) -> Result<T>;

    /// The same for changes of an entry that may be immutable or append-only (chattr(1)): EPERM is
    /// an answer for the caller then, nothing is wrong with the disk.
    fn unless_immutable(self, call: &'static str, name: &[u8]) -> Result<T>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, call: &'static str, name: &[u8]) -> Result<T> {
        self.map_err(|errno| {
            let is_read = !is_everyday(errno) || log::max_level() >= log::LevelFilter::Debug;
            Error {
                errno,
                call: Some(call),
                object: is_read.then(|| name.into()),
            }
        })
    }

    fn unless_immutable(self, call: &'static str, name: &[u8]) -> Result<T> {
        match self {
            Err(Errno::PERM) => fail(Errno::PERM),
            other => other.context(call, name),
        }
    }
}

/// `Err` with an errno that the rules require.
pub(crate) fn fail<T>(errno: Errno) -> Result<T> {
    Err(Error::rule(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: Errno) -> Error {
        match Err::<(), _>(errno).context("openat", b"a\nb") {
            Err(error) => error,
            Ok(()) => Error::rule(Errno::IO),
        }
    }

    #[test]
    fn a_failure_says_what_failed_and_an_everyday_answer_costs_nothing() {
        let failure = failed(Errno::NOSPC);
        assert!(failure.is_failure());
        let text = format!("openat \"a\\nb\": {}", Errno::NOSPC);
        assert_eq!(failure.to_string(), text);
        let answer = failed(Errno::NOENT);
        assert!(!answer.is_failure() && answer.object.is_none());
        assert_eq!(answer.to_string(), format!("openat: {}", Errno::NOENT));
        let immutable = Err::<(), _>(Errno::PERM).unless_immutable("unlink", b"f");
        assert!(immutable.is_err_and(|error| error.errno() == Errno::PERM && !error.is_failure()));
        let rule = Error::rule(Errno::NOSPC);
        assert!(!rule.is_failure());
        assert_eq!(rule.to_string(), Errno::NOSPC.to_string());
    }
}
