//! What every other room of the store uses: where things are, work under way, locks, ids,
//! names, times, errors.

mod area;
mod error;
pub(crate) mod ids;
pub(crate) mod lock;
mod measure;
mod paths;
pub(crate) mod reference;
mod remove;
pub(crate) mod time;

pub(crate) use area::{Area, abandoned};
pub(in crate::store) use error::{Context, is_of_system};
pub(crate) use error::{Result, StoreError};
pub(in crate::store) use measure::measure;
pub(crate) use paths::{PRIVATE, Paths, config_file, data_of, is_empty, locate};
pub(in crate::store) use remove::{entries, remove_tree};
