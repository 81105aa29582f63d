//! Containers: a writable layer over the layers of an image.
//!
//! | file | job | uses |
//! | --- | --- | --- |
//! | `mount` | from a container to the configuration of a union; how it is used at the moment | |
//! | `binds` | what is shown in a new container | |
//! | `create` | making one | `binds`, `mount` |
//! | `inspect` | what commands show | `mount` |
//! | `remove` | removing one | `mount` |
//! | `commit` | its changes as a layer of a new image, its tree as an archive | `mount` |
//! | `foreign` | layers of docker's and podman's stores, for reading | |

mod binds;
mod commit;
mod create;
pub(crate) mod foreign;
mod inspect;
mod mount;
mod remove;

pub(crate) use binds::BindRequest;
pub(crate) use commit::CommitOptions;
pub(crate) use create::NewContainer;
pub(crate) use inspect::{mountpoint, status_word};
pub(crate) use mount::{Status, container_of_source, in_use, mounts, source_of};
