//! Images: their documents, from an archive into the store and back, and what commands show and
//! remove.

pub mod documents;
mod list;
mod load;
mod members;
mod save;
mod source;

pub(in crate::store) use load::{LayerBuilder, NewImage, Published, StagedLayer};
pub(crate) use load::{LoadOptions, LoadProgress, Loaded};
pub(crate) use save::{Format, SaveOptions};
pub(crate) use source::STDIN;
