//! The tar format: entries, read from a stream ([`TarReader`]) and written to one ([`TarWriter`]).

mod entry;
mod fields;
mod headers;
mod holes;
mod input;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use entry::Xattr;
pub use entry::{EntryKind, TarEntry};
pub(crate) use fields::padding;
pub(crate) use reader::End;
pub use reader::TarReader;
pub use writer::{Content, TarWriter};
