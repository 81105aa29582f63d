//! Places on the disk outside of a layer's content: what is staged until it is complete, what must
//! be on the disk before it gets its name, and trees that are removed.

mod durable;
mod inner;
mod remove;
mod staged;

pub(crate) use durable::{sync_disk_of, sync_file, sync_names_in};
pub(super) use inner::{DIRECTORY, open_inner};
pub(super) use remove::{clear, remove};
pub(crate) use staged::StagedFile;
pub(super) use staged::{Staged, sweep};
