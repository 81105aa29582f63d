//! Containers: a writable layer over the layers of an image.

mod commit;
mod create;
pub(crate) mod foreign;
mod mount;

pub(crate) use commit::CommitOptions;
pub(crate) use create::{BindRequest, NewContainer, in_use, mountpoint, status_word};
pub(crate) use mount::{Status, container_of_source, mounts, source_of};
