//! `mount -o remount,..`: changing what mount(8) may change of a mount that is there. mount(8)
//! leaves that to the helper of the file system, which for FUSE runs the program that is named
//! before the `#` or is the subtype: us.
//!
//! The kernel keeps read-only and the generic flags (nosuid, noexec, ..); everything that the union
//! decided when it was mounted stays as it is, and so do FUSE's own options, which cannot be
//! changed.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags as Kernel, mount_remount};

use crate::cli::ui::exit::Failure;
use crate::cli::ui::shown;
use crate::fuse::settings::MountFlags;

/// Makes a mount read-only or writable, and sets its generic flags.
///
/// # Errors
/// [`Failure::Operation`]: nothing is mounted there, no right to, or files are open for writing.
pub(in crate::cli) fn run(
    mountpoint: &Path,
    read_only: bool,
    flags: MountFlags,
) -> Result<(), Failure> {
    match mount_remount(mountpoint, kernel_flags(read_only, flags), "") {
        Ok(()) => Ok(()),
        Err(errno) => {
            let cure = match errno {
                Errno::INVAL => "mount it first",
                Errno::PERM => "remount as the user who mounted it, as root of the namespace",
                Errno::BUSY => "close the files that are open for writing there",
                _ => "see dmesg",
            };
            Err(Failure::Operation(format!(
                "cannot remount {}: {errno}; {cure}",
                shown(mountpoint)
            )))
        }
    }
}

fn kernel_flags(read_only: bool, flags: MountFlags) -> Kernel {
    let table = [
        (read_only, Kernel::RDONLY),
        (!flags.dev, Kernel::NODEV),
        (!flags.suid, Kernel::NOSUID),
        (!flags.exec, Kernel::NOEXEC),
        (flags.noatime, Kernel::NOATIME),
        (flags.nodiratime, Kernel::NODIRATIME),
        (flags.sync, Kernel::SYNCHRONOUS),
        (flags.dirsync, Kernel::DIRSYNC),
    ];
    let set = table.into_iter().filter(|(set, _)| *set);
    set.fold(Kernel::empty(), |all, (_, flag)| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_the_kernels() {
        let flags = MountFlags::default();
        assert_eq!(kernel_flags(false, flags), Kernel::NODEV);
        let all = MountFlags {
            dev: true,
            suid: false,
            exec: false,
            noatime: true,
            nodiratime: true,
            sync: true,
            dirsync: true,
        };
        let expected = Kernel::RDONLY
            | Kernel::NOSUID
            | Kernel::NOEXEC
            | Kernel::NOATIME
            | Kernel::NODIRATIME
            | Kernel::SYNCHRONOUS
            | Kernel::DIRSYNC;
        assert_eq!(kernel_flags(true, all), expected);
    }
}
