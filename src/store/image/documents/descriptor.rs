//! References to blobs by digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::json::or_default;
use super::platform::Platform;
use crate::archive::Digest;

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
pub(in crate::store) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::json::{parse, write};
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
}
