//! The JSON documents of images: OCI index, manifest and configuration, and docker's
//! `manifest.json`.
//!
//! They come from outside. A document is read up to a limit, its digest is verified before it is
//! parsed, and one that two readers could take for two different things is refused. The bytes are
//! kept, so that digests stay what they are; the structures here name only the parts that are used
//! (oci-spec would refuse fields that docker writes, and leave out others).

mod change;
pub mod config;
mod descriptor;
pub mod docker;
pub(in crate::store) mod form;
mod json;
pub mod manifest;
mod media_type;
mod platform;

pub use descriptor::Descriptor;
pub(in crate::store) use descriptor::blob_path;
pub(in crate::store) use json::{malformed, or_default, parse, read, write};
pub(in crate::store) use media_type::{
    OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, layer_compression, layer_type,
};
pub use platform::Platform;
