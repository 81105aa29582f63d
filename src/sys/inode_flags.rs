//! The ioctls about inode flags that rustix has no function for.

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl, opcode};

/// The bytes of a `struct fsxattr` (`linux/fs.h`): flags, extent size, number of extents, project
/// id, extent size for copy-on-write, 8 bytes of padding.
pub(crate) type FsXattr = [u8; 28];

/// `FS_IOC_FSGETXATTR` (`linux/fs.h`).
const FS_IOC_FSGETXATTR: Opcode = opcode::read::<FsXattr>(b'X', 31);
/// `FS_IOC_FSSETXATTR` (`linux/fs.h`).
const FS_IOC_FSSETXATTR: Opcode = opcode::write::<FsXattr>(b'X', 32);
/// `FS_IOC_GETVERSION` (`linux/fs.h`), which says `long`.
const FS_IOC_GETVERSION: Opcode = opcode::read::<libc::c_long>(b'v', 1);

/// The extended flags of an open file or directory.
///
/// # Errors
/// ENOTTY and EOPNOTSUPP where the disk has none, EBADF for an `O_PATH` descriptor.
pub(crate) fn fsxattr(fd: impl AsFd) -> Result<FsXattr> {
    // SAFETY: the kernel writes one `struct fsxattr`, of 28 bytes as the opcode says, and any bytes
    // are a value of the array.
    unsafe { ioctl(fd, Getter::<FS_IOC_FSGETXATTR, FsXattr>::new()) }
}

/// Sets the extended flags of an open file or directory.
///
/// # Errors
/// ENOTTY and EOPNOTSUPP where the disk has none, or not those; EPERM, EINVAL, EBADF for an
/// `O_PATH` descriptor.
pub(crate) fn set_fsxattr(fd: impl AsFd, value: &FsXattr) -> Result<()> {
    // SAFETY: the kernel reads one `struct fsxattr`, of 28 bytes as the opcode says.
    unsafe { ioctl(fd, Setter::<FS_IOC_FSSETXATTR, FsXattr>::new(*value)) }
}

/// The generation of the inode of an open file or directory.
///
/// # Errors
/// ENOTTY and EOPNOTSUPP where the disk has none, EBADF for an `O_PATH` descriptor.
pub(crate) fn version(fd: impl AsFd) -> Result<u32> {
    // The opcode says `long`; file systems write an `int` at its address (`ext4_ioctl`), some
    // perhaps all of it.
    let mut value = [0_u32; size_of::<libc::c_long>() / size_of::<u32>()];
    // SAFETY: the kernel writes at most one `long`, as the opcode says, which the array has room
    // for; all of it has a value before the call, and any bytes are a value of it.
    unsafe { ioctl(fd, Updater::<FS_IOC_GETVERSION, _>::new(&mut value)) }?;
    Ok(value[0])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        assert_eq!(FS_IOC_FSGETXATTR, 0x801c_581f);
        assert_eq!(FS_IOC_FSSETXATTR, 0x401c_5820);
        #[cfg(target_pointer_width = "64")]
        assert_eq!(FS_IOC_GETVERSION, 0x8008_7601);
    }

    #[test]
    fn what_has_no_flags_says_so() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(fsxattr(&null).is_err());
        assert!(set_fsxattr(&null, &[0; 28]).is_err());
        assert!(version(&null).is_err());
    }
}
