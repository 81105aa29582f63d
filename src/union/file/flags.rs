//! Inode flags (ioctl_iflags(2), chattr(1)), extended flags (ioctl_xfs_fsgetxattr(2)) and
//! generations.
//!
//! The flags of an upper object are what the view shows, and they bind as on any disk: no process
//! writes to an immutable file, or takes its name away, until the flag is cleared. Those of a lower
//! object are shown as well, but for *immutable* and *append-only*: they protect the layer from its
//! owner, and a lower object is never written anyway. So they would bind no process, and the copy
//! has not got them, as kernel overlayfs's copies have not (it keeps them in an xattr instead, and
//! lets them bind in the view: there an image that its store protects cannot be written over). Of
//! the others, a copy takes along those that have a meaning outside their disk.
//!
//! # Crash
//! Flags, and all of a `struct fsxattr`, change by one system call, on an object that was copied up
//! before (see [`crate::union::copyup::copy`]). Those that a copy takes along are set in the work
//! directory, before it is published.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::sys::inode_flags::{FsXattr, fsxattr, set_fsxattr, version};
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{Inode, Node};

/// What binds every process that wants to change an object, its disk's owner included.
const PROTECTING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
/// The same in `struct fsxattr`: `FS_XFLAG_IMMUTABLE` and `FS_XFLAG_APPEND` (`linux/fs.h`).
const PROTECTING_X: u32 = 0x8 | 0x10;

/// The real object behind a node, open.
struct Behind {
    fd: Arc<OwnedFd>,
    in_upper: bool,
}

impl Union {
    /// As [`Union::inode_flags`].
    pub(in crate::union) fn inode_get_flags(&self, inode: &Arc<Inode>) -> Result<u32> {
        let behind = self.behind(inode)?;
        Ok(flags_of(&behind)?.bits())
    }

    /// As [`Union::set_inode_flags`].
    pub(in crate::union) fn inode_set_flags(&self, inode: &Arc<Inode>, flags: u32) -> Result<()> {
        self.check_writable(inode)?;
        let wanted = IFlags::from_bits_retain(flags);
        let behind = self.behind(inode)?;
        let seen = match flags_of(&behind) {
            // A lower whose disk has none is no reason against flags of the copy.
            Err(error) if !behind.in_upper && error.errno() == Errno::NOTTY => IFlags::empty(),
            other => other?,
        };
        let changed = wanted ^ seen;
        if !behind.in_upper && changed.is_empty() {
            return Ok(());
        }
        let upper = self.behind_in_upper(inode, wanted.contains(IFlags::APPEND))?;
        let now = flags_of(&upper)?;
        let set = ioctl_setflags(&upper.fd, now.difference(changed) | (wanted & changed));
        self.flags_were_set(inode, set, "FS_IOC_SETFLAGS")
    }

    /// As [`Union::fsxattr`].
    pub(in crate::union) fn inode_get_fsxattr(&self, inode: &Arc<Inode>) -> Result<FsXattr> {
        fsxattr_of(&self.behind(inode)?)
    }

    /// As [`Union::set_fsxattr`].
    pub(in crate::union) fn inode_set_fsxattr(
        &self,
        inode: &Arc<Inode>,
        wanted: &FsXattr,
    ) -> Result<()> {
        self.check_writable(inode)?;
        let behind = self.behind(inode)?;
        let seen = match fsxattr_of(&behind) {
            Err(error) if !behind.in_upper && error.errno() == Errno::NOTTY => [0; 28],
            other => other?,
        };
        if !behind.in_upper && *wanted == seen {
            return Ok(());
        }
        let upper = self.behind_in_upper(inode, is_append_only(wanted))?;
        let mut value = fsxattr_of(&upper)?;
        change_words(&mut value, &seen, wanted);
        let set = set_fsxattr(&upper.fd, &value);
        self.flags_were_set(inode, set, "FS_IOC_FSSETXATTR")
    }

    /// The object behind a node that is about to be changed, copied up if need be.
    fn behind_in_upper(&self, inode: &Arc<Inode>, append_only: bool) -> Result<Behind> {
        match &inode.node {
            Node::Dir(_) => {
                let dir = self.copy_up_dir(inode)?;
                if append_only {
                    self.before_append_only(inode, &dir)?;
                }
            }
            Node::File(_) => self.copy_up_file(inode, None)?,
        }
        let upper = self.behind(inode)?;
        if !upper.in_upper {
            return fail(Errno::STALE);
        }
        Ok(upper)
    }

    fn flags_were_set(
        &self,
        inode: &Inode,
        set: rustix::io::Result<()>,
        call: &'static str,
    ) -> Result<()> {
        match set {
            // A disk refuses some flags to everybody: an answer for the caller, nothing is wrong
            // with the disk.
            Err(errno @ (Errno::PERM | Errno::INVAL)) => return fail(errno),
            other => other.context(call, b".")?,
        }
        if let Some(mut state) = inode.lock_dir() {
            state.protection = None;
        }
        if let Some(file) = inode.file() {
            // A descriptor that was opened for writing before would not notice.
            file.data.clear();
        }
        // The kernel takes no note of what an ioctl changes.
        self.notify_attributes(inode);
        Ok(())
    }

    /// As [`Union::inode_version`].
    pub(in crate::union) fn inode_get_version(&self, inode: &Arc<Inode>) -> Result<u32> {
        let behind = self.behind(inode)?;
        answer(version(&behind.fd), "FS_IOC_GETVERSION")
    }

    fn behind(&self, inode: &Inode) -> Result<Behind> {
        match &inode.node {
            Node::Dir(dir) => {
                let state = lock(&dir.state);
                let (fd, in_upper) = match (&state.upper, state.looks_like()) {
                    (Some(dir), _) => (dir.fd(), true),
                    (None, Some(dir)) => (dir.fd(), false),
                    // Removed: nothing is left of it but its attributes.
                    (None, None) => return fail(Errno::NOTTY),
                };
                let fd = fd.context("open directory", b".")?;
                Ok(Behind { fd, in_upper })
            }
            Node::File(file) if inode.kind == Kind::File => {
                let in_upper = lock(&file.state).is_upper();
                let fd = self.data_fd(inode, false)?;
                Ok(Behind { fd, in_upper })
            }
            // Devices, pipes and sockets are never opened, symlinks cannot be.
            Node::File(_) => fail(Errno::NOTTY),
        }
    }
}

/// The flags that the view shows.
fn flags_of(behind: &Behind) -> Result<IFlags> {
    let flags = answer(ioctl_getflags(&behind.fd), "FS_IOC_GETFLAGS")?;
    Ok(if behind.in_upper {
        flags
    } else {
        flags.difference(PROTECTING)
    })
}

/// The `struct fsxattr` that the view shows.
fn fsxattr_of(behind: &Behind) -> Result<FsXattr> {
    let mut bytes = answer(fsxattr(&behind.fd), "FS_IOC_FSGETXATTR")?;
    if !behind.in_upper
        && let Some(flags) = bytes.first_chunk_mut::<4>()
    {
        *flags = (u32::from_ne_bytes(*flags) & !PROTECTING_X).to_ne_bytes();
    }
    Ok(bytes)
}

/// Changes in `value` what is `wanted` otherwise than it was `seen`: single flags, and the numbers
/// behind them.
fn change_words(value: &mut FsXattr, seen: &FsXattr, wanted: &FsXattr) {
    let words = value.chunks_exact_mut(4).zip(seen.chunks_exact(4));
    for (number, ((value, seen), wanted)) in words.zip(wanted.chunks_exact(4)).enumerate() {
        let flags = number == 0;
        for ((value, seen), wanted) in value.iter_mut().zip(seen).zip(wanted) {
            if flags {
                let changed = seen ^ wanted;
                *value = (*value & !changed) | (wanted & changed);
            }
        }
        if !flags && seen != wanted {
            value.copy_from_slice(wanted);
        }
    }
}

/// The answer of a disk that may have no such thing to read, which is said in several ways; ENOTTY
/// is the one that programs know. EBADF is said of a directory that the daemon may not read.
fn answer<T>(asked: rustix::io::Result<T>, call: &'static str) -> Result<T> {
    match asked {
        Err(Errno::NOTTY | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::BADF) => {
            fail(Errno::NOTTY)
        }
        other => other.context(call, b"."),
    }
}

/// Whether a `struct fsxattr` makes append-only: `FS_XFLAG_APPEND` of its first word, `fsx_xflags`
/// (`linux/fs.h`).
fn is_append_only(value: &FsXattr) -> bool {
    const APPEND: u32 = 0x10;
    value
        .first_chunk()
        .is_some_and(|flags| u32::from_ne_bytes(*flags) & APPEND != 0)
}

#[cfg(test)]
mod tests;
