//! Places on the disk outside of a layer's content: what is staged until it is complete, what must be on the disk before it gets
//! its name, and trees that are removed.

mod durable;
mod inner;
mod remove;
mod staged;

use rustix::fs::OFlags;

pub use durable::{sync_disk_of, sync_file, sync_names_in};
pub(super) use inner::open_inner;
pub(super) use remove::clear;
pub use staged::StagedFile;
pub(super) use staged::{Staged, sweep};

/// How a directory is opened whose name may have become that of a symlink.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
