//! The ioctls of /dev/fuse (kernel's `include/uapi/linux/fuse.h`): more descriptors for a
//! connection, backing files for passthrough.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// `FUSE_DEV_IOC_MAGIC`.
const MAGIC: u8 = 229;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// FUSE_DEV_IOC_BACKING_OPEN; answers the number.
struct BackingOpen(BackingMap);

// SAFETY: the opcode names the direction and size of `BackingMap`, which lives as long as the call.
unsafe impl Ioctl for BackingOpen {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<BackingMap>(MAGIC, 1)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<i32> {
        Ok(out)
    }
}

/// FUSE_DEV_IOC_BACKING_CLOSE.
struct BackingClose(u32);

// SAFETY: the opcode names the direction and size of the number, which lives as long as the call.
unsafe impl Ioctl for BackingClose {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<u32>(MAGIC, 2)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// FUSE_DEV_IOC_CLONE.
struct CloneConnection(u32);

// SAFETY: the opcode names the direction and size of the number, which lives as long as the call.
unsafe impl Ioctl for CloneConnection {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::read::<u32>(MAGIC, 0)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// Registers a file that the kernel is to read and write by itself; returns the number by which
/// replies to OPEN name it. Errors: EPERM without CAP_SYS_ADMIN in the first user namespace, ELOOP
/// for too many stacked file systems, ENOTTY before Linux 6.9.
pub(crate) fn open_backing(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<i32> {
    let map = BackingMap {
        fd: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    // SAFETY: `BackingOpen` is the type that this ioctl of a FUSE device takes.
    unsafe { ioctl(device, BackingOpen(map)) }
}

/// Closes such a file for new opens; those that exist go on.
pub(crate) fn close_backing(device: BorrowedFd<'_>, number: i32) -> Result<()> {
    let number = u32::try_from(number).map_err(|_| Errno::INVAL)?;
    // SAFETY: `BackingClose` is the type that this ioctl of a FUSE device takes.
    unsafe { ioctl(device, BackingClose(number)) }
}

/// Makes `fresh`, a newly opened /dev/fuse, one more descriptor of the connection of `device`, with
/// a list of its own of the requests that were read from it.
pub(crate) fn clone_connection(device: BorrowedFd<'_>, fresh: BorrowedFd<'_>) -> Result<()> {
    let number = u32::try_from(device.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: `CloneConnection` is the type that this ioctl of a FUSE device takes.
    unsafe { ioctl(fresh, CloneConnection(number)) }
}
