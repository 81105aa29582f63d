//! Layers as archives: tar streams into directories, and changes of an upper into tar streams.
//!
//! ```text
//! blob -> codec (decode) -> tar (entries) -> extract (beneath one directory)  = unpack
//!         └─ one thread (pipe) ─┘└────────── another ──────────────┘    + merge onto a tree = apply
//! upper -> pack (diff) ────┐
//! union -> pack (export) ──┴─> tar (headers, sparse data) -> codec (encode)
//! ```
//!
//! | room | holds | uses |
//! | --- | --- | --- |
//! | `tar` | entries, and reading and writing them | |
//! | `codec` | compression, digests, the pipe from a blob to the tar reader | |
//! | `disk` | staged files and directories, syncing, removing trees | |
//! | `extract` | archives into directories | `tar`, `codec`, `disk` |
//! | `pack` | directories as archives | `tar`, `codec` |
//!
//! All of them use `error`, `limits` and `options`; `extract` and `pack` also `listing` and `marks`
//! (directories of layers with their marks) and `merged` (a union's entries).
//!
//! An archive is not trusted: numbers are compared with [`Limits`], digests are checked before they
//! are used, and every path is resolved beneath the descriptor of the directory that the archive
//! goes into (`extract/beneath.rs`), so that nothing outside can be reached through links of the
//! archive.

pub(crate) mod codec;
pub(crate) mod disk;
pub(crate) mod error;
pub(crate) mod extract;
mod limits;
pub(crate) mod listing;
mod marks;
mod merged;
mod options;
pub(crate) mod pack;
pub(crate) mod tar;

pub use codec::{Compression, Digest};
pub(crate) use error::Error;
pub use error::ErrorKind;
pub(crate) use extract::Unpacked;
pub use extract::{Expect, Unpack, unpack};
pub(crate) use extract::{apply_lower_metadata, keep};
pub use limits::Limits;
pub(crate) use options::Progress;
pub use options::{Ownership, Whiteouts};
pub(crate) use pack::Packed;
pub use pack::{Pack, Times, diff, export};
