//! Extended attributes of any object, also of those that cannot be opened (symlinks, devices,
//! sockets).
//!
//! They are reached through `/proc/self/fd`: `N/name` for an entry of an open directory, `N` for a
//! descriptor that may be `O_PATH` (proc(5)); the second form leads to the object itself, even when
//! that is a symlink.

use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    XattrFlags, getxattr, lgetxattr, listxattr, llistxattr, lremovexattr, lsetxattr, removexattr,
    setxattr,
};
use rustix::io::{Errno, Result};

/// Largest value of an xattr, in bytes (`XATTR_SIZE_MAX`, xattr(7)).
pub(crate) const SIZE_MAX: usize = 65536;

/// Bytes that a value, a list of names or a path may have to be read without allocating.
const USUAL: usize = 256;

/// A path to an object that xattr calls accept.
#[derive(Debug)]
pub(crate) struct XattrPath {
    path: Path,
    follow: bool,
    _open: Arc<OwnedFd>,
}

/// The bytes of a path: xattrs are asked for so often that the usual one is not worth an
/// allocation.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and is what saves the allocation"
)]
enum Path {
    Short([u8; USUAL], usize),
    Long(Vec<u8>),
}

impl Path {
    fn new(fd: &OwnedFd, name: Option<&[u8]>) -> Self {
        let mut path = [0; USUAL];
        let mut free = &mut path[..];
        let written = write!(free, "{PROC}{}", fd.as_raw_fd())
            .and_then(|()| match name {
                Some(name) => free.write_all(b"/").and_then(|()| free.write_all(name)),
                None => Ok(()),
            })
            .is_ok();
        let left = free.len();
        if written {
            return Self::Short(path, USUAL - left);
        }
        let mut path = proc_path(fd);
        if let Some(name) = name {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Self::Long(path)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(path, len) => &path[..*len],
            Self::Long(path) => path,
        }
    }
}

impl XattrPath {
    /// The object behind a descriptor.
    #[must_use]
    pub(crate) fn of_fd(fd: Arc<OwnedFd>) -> Self {
        Self {
            path: Path::new(&fd, None),
            follow: true,
            _open: fd,
        }
    }

    /// An entry of an open directory; a symlink is not followed.
    #[must_use]
    pub(crate) fn of_entry(dir: Arc<OwnedFd>, name: &[u8]) -> Self {
        Self {
            path: Path::new(&dir, Some(name)),
            follow: false,
            _open: dir,
        }
    }

    /// The value of an xattr. Errors: ENODATA when there is none, EOPNOTSUPP where the disk has no
    /// xattrs.
    pub(crate) fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let path = self.path.bytes();
        read_whole(<[u8]>::to_vec, |value| {
            if self.follow {
                getxattr(path, name, value)
            } else {
                lgetxattr(path, name, value)
            }
        })
    }

    /// The value of an xattr; `None` also where the disk has none at all.
    pub(crate) fn get_opt(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.get(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All names, each ended by a NUL. A disk without xattrs has none.
    pub(crate) fn list(&self) -> Result<Vec<u8>> {
        self.read_names(<[u8]>::to_vec)
    }

    /// Whether one of the names is `wanted`.
    pub(crate) fn any(&self, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        self.read_names(|names| {
            names
                .split(|byte| *byte == 0)
                .any(|name| !name.is_empty() && wanted(name))
        })
    }

    fn read_names<T>(&self, take: impl FnMut(&[u8]) -> T) -> Result<T> {
        let path = self.path.bytes();
        read_whole(take, |names| {
            let listed = if self.follow {
                listxattr(path, names)
            } else {
                llistxattr(path, names)
            };
            match listed {
                Err(Errno::OPNOTSUPP) => Ok(0),
                other => other,
            }
        })
    }

    pub(super) fn set(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        if self.follow {
            setxattr(self.path.bytes(), name, value, flags)
        } else {
            lsetxattr(self.path.bytes(), name, value, flags)
        }
    }

    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        if self.follow {
            removexattr(self.path.bytes(), name)
        } else {
            lremovexattr(self.path.bytes(), name)
        }
    }
}

/// Lets `read` fill a small buffer, or a large one when that is too small (ERANGE), and returns
/// what `take` makes of it.
fn read_whole<T>(
    mut take: impl FnMut(&[u8]) -> T,
    read: impl Fn(&mut [u8]) -> Result<usize>,
) -> Result<T> {
    let mut usual = [0; USUAL];
    match read(&mut usual) {
        Ok(len) => return Ok(take(&usual[..len])),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0; SIZE_MAX];
    let len = read(&mut large)?;
    Ok(take(&large[..len]))
}

/// The directory of the magic links of this process's descriptors.
const PROC: &str = "/proc/self/fd/";

/// The magic link of a descriptor, `/proc/self/fd/N`.
#[must_use]
pub(crate) fn proc_path(fd: &OwnedFd) -> Vec<u8> {
    format!("{PROC}{}", fd.as_raw_fd()).into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A name of any length, values and lists of any length: with and without an allocation the
    /// answer is the same.
    #[test]
    fn short_and_long_are_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let open = Arc::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()));
        for len in [1, 200, 235, 236, 237, 238, 239, 240, 241, 242, 255] {
            let name = "n".repeat(len);
            let file = std::fs::File::create(dir.path().join(&name)).unwrap();
            let entry = XattrPath::of_entry(Arc::clone(&open), name.as_bytes());
            let itself = XattrPath::of_fd(Arc::new(file.into()));
            let flags = XattrFlags::empty();
            for size in [0, 1, 255, 256, 257, 1000] {
                let value = vec![b'v'; size];
                entry.set(b"user.v", &value, flags).unwrap();
                for path in [&entry, &itself] {
                    assert_eq!(path.get(b"user.v").unwrap(), value, "{len}, {size}");
                    assert_eq!(path.list().unwrap(), b"user.v\0");
                }
            }
            assert_eq!(entry.get_opt(b"user.w"), Ok(None));
            entry.remove(b"user.v").unwrap();
            assert_eq!(entry.list().unwrap(), b"");
        }
        let dir = XattrPath::of_fd(open);
        for number in 0..100 {
            let name = format!("user.{number}");
            dir.set(name.as_bytes(), b"", XattrFlags::empty()).unwrap();
            assert!(dir.any(|listed| listed == name.as_bytes()).unwrap());
            assert!(!dir.any(|listed| listed == b"user.none").unwrap());
        }
        assert_eq!(
            dir.list()
                .unwrap()
                .iter()
                .filter(|byte| **byte == 0)
                .count(),
            100
        );
    }
}
