//! What callers choose, in any room of the archive.

/// Who owns the files of a layer on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Owners, modes and devices are what the archive says: for root, and for root of a user
    /// namespace with many ids. A device that cannot be made there is recorded as with
    /// [`Ownership::Recorded`].
    Real,
    /// Everything belongs to the caller; owner, mode and type of the archive are in the xattr
    /// `user.containers.override_stat`, from which the union shows them. Devices, pipes and sockets
    /// are empty files. For ordinary users.
    Recorded,
}

impl Ownership {
    /// What this process can do.
    #[must_use]
    pub fn possible() -> Self {
        if rustix::process::geteuid().is_root() && crate::sys::may_chown() {
            Self::Real
        } else {
            Self::Recorded
        }
    }
}

/// How whiteouts and opaque marks of a layer are recorded on the disk. All forms are read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// `.wh.` files as in the archive; names that would be too long get one at the name itself.
    #[default]
    Wh,
    /// Devices 0/0 and opaque xattrs, so that kernel overlayfs can use the directory as it is.
    Char,
}

/// Is notified of how far a long operation is. Called from several threads.
pub trait Progress: Sync {
    /// So many bytes more of the archive (as it is stored) were read or written.
    fn bytes(&self, count: u64);
}

/// Ignores it.
impl Progress for () {
    fn bytes(&self, _count: u64) {}
}
