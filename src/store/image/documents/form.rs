//! Documents that readers read alike.
//!
//! Go's encoding/json, by which docker, containerd, podman and skopeo read, takes a key for that of
//! a field whatever its case, by Unicode's simple folding, and the last one that fits counts; serde
//! takes the exact one, and so do others. So an object whose keys differ in nothing but that, or
//! one that has a known key in another case, is two documents, of which a scanner may see one and
//! an engine the other (as in CVE-2021-41190). Where keys are free, as those of labels are, they
//! are compared as they are, and only the same one twice is refused.

use std::collections::HashSet;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::malformed;
use crate::store::base::Result;

/// What a part of a document is.
#[derive(Debug)]
pub(in crate::store) enum KnownFields {
    /// Nothing that is looked into, but for keys that are there twice.
    Any,
    /// A list.
    List(&'static KnownFields),
    /// An object whose keys are free.
    Map(&'static KnownFields),
    /// An object with fields; those that are named here are read by this program or by engines.
    Fields(&'static [(&'static str, &'static KnownFields)]),
}

use KnownFields::{Any, Fields, List, Map};

const ANY: &KnownFields = &Any;
const FREE: &KnownFields = &Map(ANY);
const PLATFORM: &KnownFields = &Fields(&[
    ("os", ANY),
    ("architecture", ANY),
    ("variant", ANY),
    ("os.version", ANY),
    ("os.features", ANY),
]);
const DESCRIPTOR: &KnownFields = &Fields(&[
    ("mediaType", ANY),
    ("digest", ANY),
    ("size", ANY),
    ("urls", ANY),
    ("data", ANY),
    ("artifactType", ANY),
    ("annotations", FREE),
    ("platform", PLATFORM),
]);
/// `oci-layout`.
pub(in crate::store) const LAYOUT: &KnownFields = &Fields(&[("imageLayoutVersion", ANY)]);
/// An index or a manifest.
pub(in crate::store) const LISTING: &KnownFields = &Fields(&[
    ("schemaVersion", ANY),
    ("mediaType", ANY),
    ("artifactType", ANY),
    ("manifests", &List(DESCRIPTOR)),
    ("config", DESCRIPTOR),
    ("layers", &List(DESCRIPTOR)),
    ("fsLayers", ANY),
    ("subject", DESCRIPTOR),
    ("annotations", FREE),
]);
/// An image's configuration.
pub(in crate::store) const CONFIG: &KnownFields = &Fields(&[
    ("created", ANY),
    ("author", ANY),
    ("comment", ANY),
    ("os", ANY),
    ("architecture", ANY),
    ("variant", ANY),
    ("os.version", ANY),
    ("os.features", ANY),
    (
        "config",
        &Fields(&[
            ("User", ANY),
            ("ExposedPorts", FREE),
            ("Env", ANY),
            ("Entrypoint", ANY),
            ("Cmd", ANY),
            ("Volumes", FREE),
            ("WorkingDir", ANY),
            ("Labels", FREE),
            ("StopSignal", ANY),
        ]),
    ),
    ("rootfs", &Fields(&[("type", ANY), ("diff_ids", ANY)])),
    (
        "history",
        &List(&Fields(&[
            ("created", ANY),
            ("created_by", ANY),
            ("author", ANY),
            ("comment", ANY),
            ("empty_layer", ANY),
        ])),
    ),
]);
/// `manifest.json` of `docker save`.
pub(in crate::store) const DOCKER: &KnownFields = &List(&Fields(&[
    ("Config", ANY),
    ("RepoTags", ANY),
    ("Layers", ANY),
    ("LayerSources", FREE),
]));

/// Refuses a document that two readers could take for two different ones.
///
/// # Errors
/// It is ambiguous, and the key is named; or it is not JSON.
pub(in crate::store) fn refuse_ambiguous(
    bytes: &[u8],
    form: &KnownFields,
    name: &str,
) -> Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    form.deserialize(&mut reader)
        .map_err(|error| malformed(name, &error.to_string()))
}

/// A key as readers see it that ignore case.
fn folded(key: &str) -> String {
    let plain = key.chars().map(|c| match c {
        // Its capital letter is S by Unicode's simple folding, but not by `to_lowercase`.
        '\u{17f}' => 's',
        c => c,
    });
    plain.flat_map(char::to_lowercase).collect()
}

impl<'de> DeserializeSeed<'de> for &KnownFields {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &KnownFields {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        let inner = match self {
            List(inner) => inner,
            _ => ANY,
        };
        while list.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> std::result::Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            let shown = key.escape_debug();
            let (inner, counts) = match self {
                Fields(fields) => {
                    let like = folded(&key);
                    let field = fields.iter().find(|(name, _)| folded(name) == like);
                    if let Some((name, _)) = field
                        && *name != key
                    {
                        return Err(A::Error::custom(format!(
                            "'{shown}' is '{name}' for readers that ignore case, and nothing for others"
                        )));
                    }
                    (field.map_or(ANY, |(_, form)| *form), like)
                }
                Map(inner) => (*inner, key.clone()),
                Any | List(_) => (ANY, key.clone()),
            };
            if !seen.insert(counts) {
                return Err(A::Error::custom(format!(
                    "'{shown}' is there twice, and readers take one or the other"
                )));
            }
            object.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_two_readers_read_differently_is_refused() {
        let refused = |text: &str, form: &KnownFields| {
            let found = refuse_ambiguous(text.as_bytes(), form, "it");
            found.err().map(|error| error.to_string())
        };
        for text in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"layers":[],"Layers":[]}"#,
            r#"{"Layers":[]}"#,
            r#"{"SCHEMAVERSION":2}"#,
            r#"{"layerſ":[]}"#,
            r#"{"l\u0061yers":[],"layers":[]}"#,
            r#"{"layers":[{"Digest":"x"}]}"#,
            r#"{"manifests":[{"platform":{"OS":"linux"}}]}"#,
            r#"{"unknown":1,"Unknown":2}"#,
            r#"{"unknown":{"a":1,"a":2}}"#,
            r#"{"annotations":{"a":"1","a":"2"}}"#,
        ] {
            let message = refused(text, LISTING).unwrap();
            assert!(message.contains("readers"), "{text}: {message}");
        }
        for text in [
            r#"{"config":{"cmd":["sh"]}}"#,
            r#"{"config":{"WORKINGDIR":"/"}}"#,
            r#"{"rootfs":{"diff_ids":[],"Diff_IDs":[]}}"#,
            r#"{"history":[{"Empty_layer":true}]}"#,
        ] {
            assert!(refused(text, CONFIG).is_some(), "{text}");
        }
        let kelvin = "[{\"Config\":\"c\",\"Layers\":[],\"x\u{212a}\":1,\"xk\":2}]";
        assert!(refused(kelvin, DOCKER).is_some());
        for (text, form) in [
            (
                r#"{"annotations":{"a":"1","A":"2"},"other":{"b":1,"B":2}}"#,
                LISTING,
            ),
            (
                r#"{"config":{"Labels":{"k":"1","K":"2"},"Volumes":{"/d":{},"/D":{}},"Env":["A=1","a=2"]},"x":null,"y":1.5}"#,
                CONFIG,
            ),
            (r#"[{"Config":"c","RepoTags":null,"Layers":["l"]}]"#, DOCKER),
        ] {
            assert_eq!(refused(text, form), None, "{text}");
        }
    }
}
