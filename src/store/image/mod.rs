//! Images: their documents, from an archive into the store and back, and what commands show and remove.

pub mod documents;
mod list;
mod load;
mod members;
mod save;
mod source;

pub(crate) use load::{LoadOptions, Watch};
pub(in crate::store) use load::{Making, NewImage, Published, Ready};
pub(crate) use save::{Format, SaveOptions};
pub(crate) use source::STDIN;
