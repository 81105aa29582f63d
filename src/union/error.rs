//! Why an operation on the union failed.

use rustix::io::Errno;

/// The result of an operation on the union.
pub type Result<T> = std::result::Result<T, Error>;

/// An errno for the caller, and for the log which system call failed on what.
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    context: Option<Box<Context>>,
}

#[derive(Debug)]
struct Context {
    call: &'static str,
    object: String,
}

impl Error {
    /// The answer that the rules of the file system give, no failure of anything beneath.
    #[must_use]
    pub fn rule(errno: Errno) -> Self {
        Self {
            errno,
            context: None,
        }
    }

    /// The errno for the caller.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// Whether a call beneath failed in a way that its administrator should hear of: not the everyday
    /// answers (no such name, no such xattr, ..) but a full, broken or forbidden disk.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.context.is_some()
            && !matches!(
                self.errno,
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
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.context {
            Some(context) => write!(f, "{} {}: {}", context.call, context.object, self.errno),
            None => self.errno.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Adds to a failed system call which one it was.
pub trait During<T> {
    /// Names the call and the entry it was about.
    fn during(self, call: &'static str, name: &[u8]) -> Result<T>;
}

impl<T> During<T> for rustix::io::Result<T> {
    fn during(self, call: &'static str, name: &[u8]) -> Result<T> {
        self.map_err(|errno| Error {
            errno,
            context: Some(Box::new(Context {
                call,
                object: format!("\"{}\"", name.escape_ascii()),
            })),
        })
    }
}

/// `Err` with an errno that the rules give.
pub fn refuse<T>(errno: Errno) -> Result<T> {
    Err(Error::rule(errno))
}
