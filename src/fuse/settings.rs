//! How a union is shown to the kernel: the mount point and the session's settings, as plain values.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;

/// Generic mount flags, as named in mount(8). The defaults are those that containers/storage
/// expects of a mount program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountFlags {
    /// Device nodes work (`dev`); default false.
    pub dev: bool,
    /// Set-user-id bits are honoured (`suid`); default true.
    pub suid: bool,
    /// Programs may be run (`exec`); default true.
    pub exec: bool,
    /// Access times are not updated (`noatime`); default false.
    pub noatime: bool,
    /// Access times of directories are not updated (`nodiratime`); they never are, whatever this
    /// says.
    pub nodiratime: bool,
    /// Writes are synchronous (`sync`); default false.
    pub sync: bool,
    /// Directory changes are synchronous (`dirsync`); default false.
    pub dirsync: bool,
}

impl Default for MountFlags {
    fn default() -> Self {
        Self {
            dev: false,
            suid: true,
            exec: true,
            noatime: false,
            nodiratime: false,
            sync: false,
            dirsync: false,
        }
    }
}

/// Who may use the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowOther {
    /// All users when the mounter is root (also of a user namespace) or `user_allow_other` is set
    /// in `/etc/fuse.conf`, else the mounter only.
    #[default]
    WhenPermitted,
    /// All users; mounting fails where that is not permitted.
    Yes,
}

/// How requests come from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// io_uring where it can be used, else /dev/fuse.
    #[default]
    Auto,
    /// FUSE over io_uring; mounting fails where that is not possible.
    Uring,
    /// Our own loop on /dev/fuse.
    Dev,
    /// The fuser library, for kernels that are not Linux, and in doubt.
    Fuser,
}

/// How the data of files come to their readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// As it is best for most: at present always [`Io::Cached`].
    #[default]
    Auto,
    /// Through the page cache; opening and closing files costs no message.
    Cached,
    /// The kernel reads and writes the real file where its place cannot change: in the upper, or on
    /// a read-only mount. Each open and close is a message then. Files elsewhere, and all of them
    /// where the kernel refuses (in user namespaces), go through the page cache.
    Passthrough,
}

/// Everything a session needs besides the union itself.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where to mount; `/dev/fd/N` names an already opened FUSE descriptor.
    pub mountpoint: PathBuf,
    /// The source shown in `/proc/mounts`.
    pub fsname: String,
    /// The part behind `fuse.` of the file system type in `/proc/mounts`.
    pub subtype: String,
    /// Threads that serve requests; `None` chooses by the number of CPUs.
    pub threads: Option<usize>,
    /// How long the kernel may cache names and attributes; `None`: for ever (or one second when
    /// layers may change).
    pub timeout: Option<Duration>,
    /// Largest write request, in bytes; `None`: 1 MiB.
    pub max_write: Option<u32>,
    /// Let the kernel collect small writes (`writeback`); ignored on read-only mounts. Off by
    /// default: with it the kernel sends the times of a file in a request of their own, after each
    /// close, rename and unlink, which costs more than it saves in everything but many small writes
    /// to one file.
    pub writeback: bool,
    /// Who may use the mount.
    pub allow_other: AllowOther,
    /// The kernel checks permissions only when this is false (`default_permissions` is the
    /// default).
    pub no_default_permissions: bool,
    /// Generic mount flags.
    pub flags: MountFlags,
    /// How requests come from the kernel.
    pub transport: Transport,
    /// How data come to their readers.
    pub io: Io,
    /// Kernel capabilities that are not asked for, by the names of
    /// [`super::init::capability_names`].
    pub without: Vec<String>,
    /// New objects are born with the label that the security module chooses (SELinux). Off by
    /// default: the upper's disk then must take it.
    pub security_ctx: bool,
    /// What is written to standard output, as a line, once the mount is usable.
    pub announce: Option<String>,
    /// SELinux's mount options, name and label (`context` and its like).
    pub selinux: Vec<(&'static str, String)>,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Where the daemon logs to; `None`: nowhere in the background, standard error in the
    /// foreground.
    pub log_file: Option<PathBuf>,
    /// What keeps others off the mount's directories.
    pub held: Held,
}

/// Descriptors, locks among them, that the daemon keeps for as long as it may change something.
/// They are closed when the mount has ended, before its last sync: a process that waits for them
/// need not wait for a disk.
#[derive(Clone, Debug, Default)]
pub struct Held(
    /// Lock order: no other lock is taken while it is held.
    Arc<Mutex<Vec<OwnedFd>>>,
);

impl Held {
    /// Keeps one more.
    pub fn keep(&self, fd: OwnedFd) {
        lock(&self.0).push(fd);
    }

    /// Closes all of them.
    pub(super) fn release(&self) {
        lock(&self.0).clear();
    }
}
