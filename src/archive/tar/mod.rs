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

pub use entry::{EntryKind, Extent, TarEntry, Xattr};
pub use fields::padding;
pub use reader::{End, TarReader};
pub use writer::{Content, TarWriter};
