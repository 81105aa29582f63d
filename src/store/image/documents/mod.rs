//! The JSON documents of images: OCI index, manifest and configuration, and docker's `manifest.json`.
//!
//! They come from somebody else. A document is read up to a limit, its digest is verified before it is parsed, and one that
//! two readers could take for two different things is refused. The bytes are kept, so that digests stay what they
//! are; the structures here name only the parts that are used (oci-spec would refuse fields that docker writes, and
//! leave out others).

pub mod config;
pub mod docker;
pub mod form;
pub mod manifest;
mod platform;

use std::collections::BTreeMap;
use std::io::Read;

pub use platform::Platform;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::archive::{Compression, Digest};
use crate::store::base::{Result, StoreError};

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What `mediaType` of a layer may be, and the compression that it names.
const LAYER_TYPES: [(&str, Compression); 11] = [
    ("application/vnd.oci.image.layer.v1.tar", Compression::None),
    (
        "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Gzip,
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        Compression::Zstd,
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        Compression::None,
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        Compression::Gzip,
    ),
    (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        Compression::Zstd,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        Compression::None,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        Compression::Gzip,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        Compression::Zstd,
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        Compression::None,
    ),
    (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Compression::Gzip,
    ),
];

/// The compression that a layer's media type names; `None` for a type that is no layer's.
#[must_use]
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let found = LAYER_TYPES.iter().find(|(name, _)| *name == media_type);
    found.map(|(_, compression)| *compression)
}

/// The OCI media type of a layer with this compression.
#[must_use]
pub fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => LAYER_TYPES[0].0,
        Compression::Gzip => LAYER_TYPES[1].0,
        Compression::Zstd => LAYER_TYPES[2].0,
    }
}

/// A reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Its digest.
    #[serde(deserialize_with = "digest", serialize_with = "digest_text")]
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Names and the like.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// Where blobs are in an OCI image layout.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads a document of at most `limit` bytes; `name` says which one.
///
/// # Errors
/// It is longer, or cannot be read.
pub fn read(source: impl Read, limit: usize, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source.take(most).read_to_end(&mut bytes).map_err(|error| {
        StoreError::failed(
            format!("cannot read {name}"),
            error,
            "check the archive, or make it again",
        )
    })?;
    if bytes.len() > limit {
        return Err(StoreError::limit(
            format!("{name} is longer than {limit} bytes"),
            "this is no honest image; raise the limit with --max-json if you trust it",
        ));
    }
    Ok(bytes)
}

/// Parses a document.
///
/// # Errors
/// It is not what it should be.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| malformed(name, &error.to_string()))
}

/// A document that cannot be used.
#[must_use]
pub fn malformed(name: &str, why: &str) -> StoreError {
    StoreError::malformed(
        format!("{name} is wrong: {why}"),
        "make the image again, or fetch it again",
    )
}

/// The bytes of a document that we write.
///
/// # Errors
/// It cannot be written as JSON.
pub fn write(document: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| malformed("a document", &error.to_string()))
}

/// A digest that is valid, so that it may be part of a path.
pub(super) fn digest<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Digest, D::Error> {
    let text = String::deserialize(from)?;
    text.parse()
        .map_err(|error| serde::de::Error::custom(format!("'{}': {error}", text.escape_debug())))
}

fn digest_text<S: Serializer>(digest: &Digest, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

/// `null` stands for nothing in documents that Go programs write.
pub(super) fn or_default<'de, D, T>(from: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_that_would_be_a_path_is_refused() {
        let text = r#"{"mediaType":"x","size":1,"digest":"sha256:../../etc/passwd"}"#;
        let message = parse::<Descriptor>(text.as_bytes(), "d")
            .unwrap_err()
            .to_string();
        assert!(message.contains("../../etc/passwd"), "{message}");
        let text = format!(
            r#"{{"mediaType":"x","size":-1,"digest":"{}"}}"#,
            Digest::of(b"")
        );
        assert!(parse::<Descriptor>(text.as_bytes(), "d").is_err());
        let text = text
            .replace("-1", "1")
            .replace("}", r#","annotations":null}"#);
        let descriptor: Descriptor = parse(text.as_bytes(), "d").unwrap();
        assert_eq!(descriptor.digest, Digest::of(b""));
        let again: Descriptor = parse(&write(&descriptor).unwrap(), "d").unwrap();
        assert_eq!(again, descriptor);
    }

    #[test]
    fn long_and_deep_documents_are_refused() {
        let message = read(std::io::repeat(b'['), 1000, "index.json")
            .unwrap_err()
            .to_string();
        assert!(message.contains("longer than 1000"), "{message}");
        assert_eq!(read(&[b'x'; 1000][..], 1000, "d").unwrap().len(), 1000);
        let deep = "[".repeat(100_000);
        assert!(parse::<serde_json::Value>(deep.as_bytes(), "d").is_err());
    }
}
