//! Inode flags of a copy.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// What a copy takes along.
pub(in crate::union) const PORTABLE: IFlags = IFlags::SYNC
    .union(IFlags::DIRSYNC)
    .union(IFlags::NOATIME)
    .union(IFlags::NODUMP);

/// Sets on a copy in the work directory the flags that go with it. As far as the disks have them: a
/// copy-up does not fail for that.
pub(in crate::union) fn copy_flags(from: impl AsFd, to: impl AsFd) {
    let portable = match ioctl_getflags(from) {
        Ok(flags) => flags & PORTABLE,
        Err(errno) => return log::trace!("flags of a lower object: {errno}"),
    };
    if portable.is_empty() {
        return;
    }
    let set = ioctl_getflags(&to).and_then(|own| ioctl_setflags(&to, own | portable));
    if let Err(errno) = set {
        log::debug!("flags {portable:?} are not copied up: {errno}");
    }
}
