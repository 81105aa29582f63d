//! What a union is made of: the directories and the rules that hold for it.
//!
//! These are plain values. The command line fills them in, `Union::open` reads them.

use rustix::io::Errno;
use std::path::PathBuf;

pub use crate::layer::stat_override::StatOverrideForm;

/// What a step of opening a union returns.
pub(in crate::union) type Setup<T> = std::result::Result<T, SetupError>;

/// How whiteouts and opaque marks are written. All forms are always read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhiteoutForm {
    /// `.wh.NAME` files and `.wh..wh..opq`: OCI and AUFS layers, podman stores with a mount
    /// program.
    #[default]
    Wh,
    /// Character devices 0/0 and opaque xattrs, so that kernel overlayfs can mount the upper as it
    /// is.
    Char,
    /// `Char` when the upper directory was written by kernel overlayfs (its root carries an
    /// `overlay.` xattr), else `Wh`.
    Auto,
}

/// Whether the layers may change under the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Only this mount changes the layers: everything may be cached for ever.
    #[default]
    Static,
    /// Another process edits a lower layer while it is mounted: changes are seen within a second.
    Auto,
}

/// One run of ids: `disk..disk+len` on disk is seen as `seen..seen+len` through the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id as stored in the layers.
    pub disk: u32,
    /// First id as seen through the mount.
    pub seen: u32,
    /// How many ids.
    pub len: u32,
}

/// A directory or regular file of the host that is shown inside the union, as a volume or bind
/// mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// What is shown.
    pub source: PathBuf,
    /// Where, as a path from the union's root. Symlinks on the way are followed inside the union.
    /// What is missing is made in the upper.
    pub target: PathBuf,
    /// It cannot be changed through the union.
    pub read_only: bool,
}

/// The directories of a union and the rules for them.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Read-only layers, newest first.
    pub lowers: Vec<PathBuf>,
    /// Layers that hold the bytes of files of which the others have the attributes only; nothing of
    /// them is shown (`overlayfs.rst`, "Data-only lower layers").
    pub data_only: Vec<PathBuf>,
    /// The writable layer; `None` makes the union read-only.
    pub upper: Option<PathBuf>,
    /// The work directory, on the file system of the upper; needed exactly when the union is
    /// writable.
    pub work: Option<PathBuf>,
    /// Refuse every change although there is an upper; nothing is locked, cleaned or written then.
    pub read_only: bool,
    /// The form in which whiteouts are written.
    pub whiteout: WhiteoutForm,
    /// Rename lower directories by a redirect xattr (as kernel overlayfs stores it) instead of
    /// copying them up.
    pub redirect_dir: bool,
    /// What the transport has forgotten can be found by its node id all the same: for file servers.
    pub nfs_export: bool,
    /// Nothing is ever synced to disk: for containers that are thrown away after a crash.
    pub volatile: bool,
    /// Owner mapping; empty means the ids are seen as they are stored.
    pub uid_map: Vec<IdRange>,
    /// Group mapping; empty means the ids are seen as they are stored.
    pub gid_map: Vec<IdRange>,
    /// Everything is seen as owned by, and stored as, this user.
    pub squash_uid: Option<u32>,
    /// Everything is seen as owned by, and stored as, this group.
    pub squash_gid: Option<u32>,
    /// POSIX ACLs are not offered.
    pub no_acl: bool,
    /// Extended attributes are not offered (and not used: `st_ino` then changes at the remount
    /// after a copy-up).
    pub no_xattrs: bool,
    /// Owners, modes and types of the upper's objects are kept in an xattr, for disks where they
    /// cannot be stored. An upper that was begun so goes on so; lower layers say themselves whether
    /// they do.
    pub xattr_permissions: Option<StatOverrideForm>,
    /// Directories and files of the host that are shown inside the union.
    pub volumes: Vec<Volume>,
    /// Every `st_ino` has 32 bits, for programs that know no others; those that need more are
    /// hashed, and two of them may meet.
    pub short_inos: bool,
    /// The link count of every directory is 1, for programs that would take another for the number
    /// of subdirectories.
    pub static_nlink: bool,
    /// Whether layers may change under the mount.
    pub cache: CacheMode,
    /// Reading leaves the access times of the upper's files alone. Those of lower files, and of
    /// directories, are never touched.
    pub noatime: bool,
}

/// What sort of reason there is why a union cannot be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupErrorKind {
    /// What was asked for contradicts itself, or what the layers are.
    Invalid,
    /// A directory or file is not there, or is something else.
    NotFound,
    /// This process has no right to do it, or the disk is read-only.
    Permission,
    /// Another mount or command uses it.
    InUse,
    /// The kernel or the disk has no such thing.
    Unsupported,
    /// A limit would be exceeded, or a disk is full.
    Limit,
    /// A system call failed.
    Io,
}

/// Why a union cannot be mounted, found before anything is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError {
    what: String,
    hint: String,
    errno: Option<Errno>,
}

impl SetupError {
    /// An error with what the user can do about it. Nothing failed: see
    /// [`SetupError::caused_by`].
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
            errno: None,
        }
    }

    /// The same, because a system call failed.
    #[must_use]
    pub(crate) fn caused_by(self, cause: &impl AsErrno) -> Self {
        Self {
            errno: cause.as_errno(),
            ..self
        }
    }

    /// What sort of reason it is.
    #[must_use]
    pub fn kind(&self) -> SetupErrorKind {
        match self.errno {
            None => SetupErrorKind::Invalid,
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                SetupErrorKind::NotFound
            }
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => SetupErrorKind::Permission,
            Some(Errno::BUSY | Errno::AGAIN | Errno::EXIST) => SetupErrorKind::InUse,
            Some(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV | Errno::NOTTY) => {
                SetupErrorKind::Unsupported
            }
            Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
                SetupErrorKind::Limit
            }
            Some(_) => SetupErrorKind::Io,
        }
    }

    /// What is wrong, with the path it is about and the errno's text.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The errno of the system call that failed, if one did.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.hint)
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let errno = self.errno.as_ref();
        errno.map(|errno| -> &(dyn std::error::Error + 'static) { errno })
    }
}

/// Errors of which the errno is known.
pub(crate) trait AsErrno {
    /// The errno, if there is one.
    fn as_errno(&self) -> Option<Errno>;
}

impl AsErrno for Errno {
    fn as_errno(&self) -> Option<Errno> {
        Some(*self)
    }
}

impl AsErrno for std::io::Error {
    fn as_errno(&self) -> Option<Errno> {
        Errno::from_io_error(self)
    }
}

impl AsErrno for crate::union::error::Error {
    fn as_errno(&self) -> Option<Errno> {
        Some(self.errno())
    }
}

/// What to do about a work directory that cannot be used.
pub(in crate::union) fn cure_for_work(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            "make room on its disk (see df and df -i), or mount without an upper to look"
        }
        Errno::IO | Errno::ROFS => {
            "see whether its disk is healthy (dmesg), and mounted for writing"
        }
        _ => "give an empty directory that you may write, on the file system of the upper",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::error::Error as _;

    use super::*;
    use crate::union::Union;
    use crate::union::tests::testing::Stack;

    #[test]
    fn a_setup_error_says_what_sort_it_is_and_what_failed() {
        let stack = Stack::new();
        let missing = Config {
            lowers: vec![stack.at("missing")],
            ..Config::default()
        };
        let error = Union::open(&missing).unwrap_err();
        assert_eq!(error.kind(), SetupErrorKind::NotFound);
        assert_eq!(error.errno(), Some(Errno::NOENT));
        assert_eq!(
            error.source().unwrap().to_string(),
            Errno::NOENT.to_string()
        );
        assert_eq!(
            error.to_string(),
            format!("{}; {}", error.what(), error.hint())
        );

        let _mounted = stack.open();
        let error = Union::open(&stack.config()).unwrap_err();
        assert_eq!(error.kind(), SetupErrorKind::InUse, "{error}");

        let error = SetupError::new("too many volumes", "use fewer of them");
        assert_eq!(error.kind(), SetupErrorKind::Invalid);
        assert!(error.errno().is_none() && error.source().is_none());
        let full = SetupError::new("what", "cure").caused_by(&Errno::NOSPC);
        assert_eq!(full.kind(), SetupErrorKind::Limit);
    }
}
