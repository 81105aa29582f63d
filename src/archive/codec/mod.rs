//! The bytes of a blob: how they are compressed, their digests, and their way from where they are stored to the tar reader.

mod blob;
mod compression;
mod digest;
mod pipe;

pub(super) use blob::BlobOptions;
pub use compression::{Compression, Decoder, Encoder};
pub use digest::{Digest, HashingReader, HashingWriter, InvalidDigest, chain_id};
pub(super) use pipe::{PipeReader, SourceError, Sourced, pipe, source};
