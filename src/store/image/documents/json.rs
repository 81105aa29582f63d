//! Reading and writing JSON of others: up to a limit, `null` for nothing, an object where one
//! belongs.

use std::io::Read;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::store::base::{Result, StoreError};

/// Reads a document of at most `limit` bytes; `name` says which one.
///
/// # Errors
/// It is longer, or cannot be read.
pub(in crate::store) fn read(source: impl Read, limit: usize, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    source.take(most).read_to_end(&mut bytes).map_err(|error| {
        StoreError::failed(
            format!("cannot read {name}"),
            error,
            "the archive is damaged: download or build it again",
        )
    })?;
    if bytes.len() > limit {
        return Err(StoreError::limit(
            format!("{name} is longer than {limit} bytes"),
            "raise the limit with --max-json if you trust the image",
        ));
    }
    Ok(bytes)
}

/// Parses a document.
///
/// # Errors
/// It is not JSON, or not of the expected form.
pub(in crate::store) fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| malformed(name, &error.to_string()))
}

/// A document that cannot be used.
#[must_use]
pub(in crate::store) fn malformed(name: &str, why: &str) -> StoreError {
    StoreError::malformed(
        format!("{name} is wrong: {why}"),
        "the image is damaged or not the one expected: download or build it again",
    )
}

/// The bytes of a document that we write.
///
/// # Errors
/// It cannot be written as JSON.
pub(in crate::store) fn write(document: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| malformed("a document", &error.to_string()))
}

/// `null` stands for nothing in documents that Go programs write.
pub(in crate::store) fn or_default<'de, D, T>(from: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A member that is an object, made when it is missing or `null`.
pub(super) fn object<'a>(
    document: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>> {
    let value = document.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut().ok_or_else(|| {
        malformed(
            "the configuration of the image",
            &format!("{key} is no object"),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
