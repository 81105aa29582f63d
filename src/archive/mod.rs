//! Layers as archives: tar streams into directories, and changes of an upper into tar streams.
//!
//! ```text
//! blob -> compression (decode) -> read (entries) -> apply (beneath one directory)      = layer::unpack
//!         └── one thread (pipe) ──┘└───────────── another ─────────────────────┘          + merge onto a tree = target::apply
//! upper -> diff (changes) ─┐
//! union -> export (all)  ──┴─> write (headers, sparse data) -> compression (encode)
//! ```
//!
//! An archive comes from somebody else. Nothing of it is believed: numbers are compared with [`Limits`], digests are
//! checked before they are used, and every path is resolved beneath the descriptor of the directory that the archive goes
//! into (`beneath.rs`), so that nothing outside can be reached, whatever links the archive plants.

pub mod apply;
mod aside;
mod below;
mod beneath;
pub mod compression;
pub mod diff;
pub mod digest;
pub mod durable;
mod empty;
pub mod entry;
pub mod error;
pub mod export;
pub mod layer;
pub mod limits;
pub(crate) mod listing;
mod marks;
mod merge;
mod mounts;
pub mod pack;
mod pipe;
mod policy;
pub mod read;
pub mod staged;
pub mod target;
pub mod write;

pub use below::describe_implied;
pub use compression::Compression;
pub use diff::diff;
pub use digest::{Digest, chain_id};
pub use error::{Error, ErrorKind, Result};
pub use export::export;
pub use layer::{Expect, Unpack, Unpacked, keep, unpack};
pub use limits::Limits;
pub use pack::{Pack, Packed, Times};

/// Whose the files of a layer are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Owners, modes and devices are what the archive says: for root, and for root of a user namespace with many ids.
    /// A device that cannot be made there is recorded as with [`Ownership::Recorded`].
    Real,
    /// Everything belongs to the caller; owner, mode and type of the archive are in the xattr
    /// `user.containers.override_stat`, from which the union shows them. Devices, pipes and sockets are empty files. For
    /// ordinary users.
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

/// Hears how far a long operation is. Called from several threads.
pub trait Progress: Sync {
    /// So many bytes more of the archive (as it is stored) were read or written.
    fn bytes(&self, count: u64);
}

/// Nobody listens.
impl Progress for () {
    fn bytes(&self, _count: u64) {}
}
