//! What keeps a store in order: what takes how much, what can go, and whether the disk has what the
//! catalog says.

mod check;
mod check_layer;
mod prune;
mod report;
mod usage;

pub(crate) use prune::{PruneOptions, Pruned};
pub(crate) use report::CheckOptions;
pub(crate) use usage::Usage;
