//! What keeps a store in order: what takes how much, what can go, and whether the disk has what the catalog says.

mod check;
mod usage;

pub(crate) use check::CheckOptions;
pub(crate) use usage::{PruneOptions, Pruned, Usage};
