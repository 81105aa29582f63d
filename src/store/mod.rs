//! The store: layers, images, containers and volumes in one directory, as a container engine's
//! storage driver keeps them. `base/paths.rs` says where what is, `catalog` what refers to what and
//! in which order things change.
//!
//! A layer is stored once, under the digest of its uncompressed tar, with its own whiteouts (it is
//! a layer, not a merged tree), so that images share it whatever they put below. The archive it
//! came in is kept, so that an unchanged image leaves the store with the digests it came with. A
//! container is an upper directory over the layers of its image.
//!
//! Each room uses those above it in this table and no others; `handle` is the opened store, to
//! which each adds operations.
//!
//! | room | job | uses |
//! | --- | --- | --- |
//! | `base` | paths, work areas, locks, ids, names, times, errors, removing and measuring trees | |
//! | `catalog` | what refers to what, in one SQLite file | `base` |
//! | `handle` | `Store`: paths and catalog, opened | `base`, `catalog` |
//! | `tree` | copying and comparing trees | `base` |
//! | `collect` | deleting what no row refers to | `base`, `catalog`, `handle` |
//! | `volume` | directories that outlive containers | `base`, `catalog`, `handle`, `tree` |
//! | `image` | documents, loading, saving, listing, removing | `base`, `catalog`, `handle`, `collect` |
//! | `container` | making, showing, committing, removing; stores of other engines | all above |
//! | `upkeep` | `system df`, `prune` and `check` | all above |

mod base;
mod catalog;
mod collect;
mod container;
mod handle;
mod image;
mod tree;
mod upkeep;
mod volume;

pub(crate) use base::{StoreError, reference};
pub use image::documents;

pub(crate) use base::{Area, Paths, ids, lock, time};
pub(crate) use catalog::containers::{BindSource, Container, Driver};
pub(crate) use container::{
    BindRequest, CommitOptions, NewContainer, Status, container_of_source, foreign, in_use,
    mountpoint, mounts, source_of, status_word,
};
pub(crate) use handle::Store;
pub(crate) use image::{Format, LoadOptions, LoadProgress, Loaded, STDIN, SaveOptions};
pub(crate) use tree::{ChangeKind, changes};
pub(crate) use upkeep::{CheckOptions, PruneOptions, Pruned, Usage};
