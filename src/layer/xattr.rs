//! Extended attributes of any object, also of those that cannot be opened (symlinks, devices, sockets).
//!
//! They are reached through `/proc/self/fd`: `N/name` for an entry of an open directory, `N` for a descriptor
//! that may be `O_PATH` (proc(5)); the second form leads to the object itself, even when that is a symlink.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    XattrFlags, getxattr, lgetxattr, listxattr, llistxattr, lremovexattr, lsetxattr, removexattr,
    setxattr,
};
use rustix::io::{Errno, Result};

/// Largest value of an xattr, in bytes (`XATTR_SIZE_MAX`, xattr(7)).
pub const SIZE_MAX: usize = 65536;

/// A path to an object that xattr calls accept.
#[derive(Debug)]
pub struct XattrPath {
    path: Vec<u8>,
    follow: bool,
    _open: Arc<OwnedFd>,
}

impl XattrPath {
    /// The object behind a descriptor.
    #[must_use]
    pub fn of_fd(fd: Arc<OwnedFd>) -> Self {
        Self {
            path: proc_path(&fd),
            follow: true,
            _open: fd,
        }
    }

    /// An entry of an open directory; a symlink is not followed.
    #[must_use]
    pub fn of_entry(dir: Arc<OwnedFd>, name: &[u8]) -> Self {
        let mut path = proc_path(&dir);
        path.push(b'/');
        path.extend_from_slice(name);
        Self {
            path,
            follow: false,
            _open: dir,
        }
    }

    /// The value of an xattr. Errors: ENODATA when there is none, EOPNOTSUPP where the disk has no xattrs.
    pub fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; 256];
        loop {
            let result = if self.follow {
                getxattr(&self.path[..], name, &mut value[..])
            } else {
                lgetxattr(&self.path[..], name, &mut value[..])
            };
            match result {
                Ok(len) => {
                    value.truncate(len);
                    return Ok(value);
                }
                Err(Errno::RANGE) if value.len() < SIZE_MAX => value.resize(SIZE_MAX, 0),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The value of an xattr; `None` also where the disk has none at all.
    pub fn get_opt(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.get(name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All names, each ended by a NUL. A disk without xattrs has none.
    pub fn list(&self) -> Result<Vec<u8>> {
        let mut names = vec![0; 256];
        loop {
            let result = if self.follow {
                listxattr(&self.path[..], &mut names[..])
            } else {
                llistxattr(&self.path[..], &mut names[..])
            };
            match result {
                Ok(len) => {
                    names.truncate(len);
                    return Ok(names);
                }
                Err(Errno::RANGE) if names.len() < SIZE_MAX => names.resize(SIZE_MAX, 0),
                Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
                Err(errno) => return Err(errno),
            }
        }
    }

    pub(super) fn set(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        if self.follow {
            setxattr(&self.path[..], name, value, flags)
        } else {
            lsetxattr(&self.path[..], name, value, flags)
        }
    }

    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        if self.follow {
            removexattr(&self.path[..], name)
        } else {
            lremovexattr(&self.path[..], name)
        }
    }
}

/// The magic link of a descriptor, `/proc/self/fd/N`.
#[must_use]
pub fn proc_path(fd: &OwnedFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes()
}
