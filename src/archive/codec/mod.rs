//! The bytes of a blob: how they are compressed, their digests, and their way from where they are
//! stored to the tar reader.

mod blob;
mod compression;
mod decode;
mod digest;
mod encode;
mod hashing;
mod peek;
mod pipe;

pub(super) use blob::BlobOptions;
pub use compression::Compression;
pub use decode::Decoder;
pub use digest::Digest;
pub use encode::Encoder;
pub(crate) use hashing::{HashingReader, HashingWriter};
pub(super) use pipe::{PipeReader, SourceError, Sourced, pipe, source};
