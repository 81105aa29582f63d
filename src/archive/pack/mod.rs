//! Directories as archives: the changes of an upper ([`diff()`]), and all that a union shows
//! ([`export()`]).

mod attributes;
mod content;
mod diff;
mod export;
mod options;
mod stream;

pub use diff::diff;
pub use export::export;
pub(crate) use options::Packed;
pub use options::{Pack, Times};
