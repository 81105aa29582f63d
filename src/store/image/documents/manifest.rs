//! Index and manifest: which of the two a document is, and what it lists.

use serde::Deserialize;

use super::descriptor::Descriptor;
use super::form;
use super::json::{malformed, parse};
use super::media_type::{
    DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
    layer_compression,
};
use super::platform::Platform;
use crate::store::base::{Result, StoreError};

/// Annotation with a whole name, as containerd and buildkit write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Annotation with a name or only a tag (OCI image-spec `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of documents that accompany an image and are none.
const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The parts by which index and manifest are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parts {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    fs_layers: Option<serde_json::Value>,
}

/// A document that lists others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// Manifests, for several platforms or of several images.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(ImageManifest),
}

/// The parts of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the oldest (lowest) first.
    pub layers: Vec<Descriptor>,
}

/// Reads an index or a manifest. `expected` is the media type by which it was referred to.
///
/// # Errors
/// It is neither, it could be taken for both (CVE-2021-41190), it is of another type than it was
/// referred to, or a type that is not supported.
pub fn read(bytes: &[u8], expected: Option<&str>, name: &str) -> Result<ManifestOrIndex> {
    form::refuse_ambiguous(bytes, form::LISTING, name)?;
    let parts: Parts = parse(bytes, name)?;
    if parts.fs_layers.is_some() || parts.schema_version == Some(1) {
        return Err(StoreError::unsupported(
            format!("{name} has the form of 2014 (schema version 1)"),
            "push or save the image with a current engine first",
        ));
    }
    // A missing one means 2: engines accept documents without it.
    if parts.schema_version.is_some_and(|version| version != 2) {
        return Err(malformed(name, "its schemaVersion is not 2"));
    }
    if let (Some(own), Some(expected)) = (&parts.media_type, expected)
        && own != expected
    {
        return Err(malformed(
            name,
            &format!("it is referred to as {expected} and says that it is {own}"),
        ));
    }
    let media_type = expected.or(parts.media_type.as_deref());
    match (parts.manifests, parts.config, parts.layers) {
        (Some(manifests), None, None) => {
            one_of(media_type, [OCI_INDEX, DOCKER_INDEX], name)?;
            Ok(ManifestOrIndex::Index(manifests))
        }
        (None, Some(config), layers) => {
            one_of(media_type, [OCI_MANIFEST, DOCKER_MANIFEST], name)?;
            if let Some(artifact) = parts.artifact_type {
                return Err(not_an_image(name, &artifact));
            }
            if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
                return Err(not_an_image(name, &config.media_type));
            }
            // Go writes an empty list as `null`.
            let layers = layers.unwrap_or_default();
            for layer in &layers {
                check_layer(layer, name)?;
            }
            Ok(ManifestOrIndex::Manifest(ImageManifest { config, layers }))
        }
        (Some(_), _, _) => Err(malformed(
            name,
            "it has both 'manifests' and the parts of a manifest, so that readers take it for different images",
        )),
        _ => Err(malformed(name, "it is neither an index nor a manifest")),
    }
}

fn one_of(media_type: Option<&str>, wanted: [&str; 2], name: &str) -> Result<()> {
    match media_type {
        Some(other) if !wanted.contains(&other) => Err(malformed(
            name,
            &format!("its content is not what its type {other} stands for"),
        )),
        _ => Ok(()),
    }
}

fn not_an_image(name: &str, what: &str) -> StoreError {
    StoreError::unsupported(
        format!("{name} is no image but a {}", what.escape_debug()),
        "load an image; artifacts of other kinds have no layers to mount",
    )
}

fn check_layer(layer: &Descriptor, name: &str) -> Result<()> {
    if layer_compression(&layer.media_type).is_some() {
        return Ok(());
    }
    if layer.media_type.ends_with("+encrypted") {
        return Err(StoreError::unsupported(
            format!("{name} has an encrypted layer"),
            "decrypt the image first (skopeo copy --decryption-key)",
        ));
    }
    Err(malformed(
        name,
        &format!(
            "a layer has the type {}, which is no layer's",
            layer.media_type
        ),
    ))
}

/// The name that an index has for what it refers to.
#[must_use]
pub(in crate::store) fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotation = |key| descriptor.annotations.get(key).map(String::as_str);
    annotation(CONTAINERD_NAME)
        .or_else(|| annotation(REF_NAME))
        .filter(|name| !name.is_empty())
}

/// The annotation in which an index has a name.
#[must_use]
pub(in crate::store) fn ref_name_annotation() -> &'static str {
    REF_NAME
}

/// Whether it accompanies an image (an attestation) instead of being one.
#[must_use]
pub(in crate::store) fn is_companion(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key(DOCKER_REFERENCE_TYPE)
        || descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown")
}

/// Whether it refers to an index or a manifest.
#[must_use]
pub(in crate::store) fn is_listing(descriptor: &Descriptor) -> bool {
    [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST]
        .contains(&descriptor.media_type.as_str())
}

/// The one for a platform. One that names no platform is chosen when there is nothing better.
///
/// # Errors
/// There is none; the message lists what there is.
pub fn choose<'a>(
    descriptors: &'a [Descriptor],
    wanted: &Platform,
    name: &str,
) -> Result<&'a Descriptor> {
    let mut best: Option<(u32, &Descriptor)> = None;
    for descriptor in descriptors
        .iter()
        .filter(|d| is_listing(d) && !is_companion(d))
    {
        let rank = match &descriptor.platform {
            Some(platform) => wanted.suits(platform),
            None => Some(0),
        };
        if let Some(rank) = rank
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, descriptor));
        }
    }
    best.map(|(_, descriptor)| descriptor).ok_or_else(|| {
        let mut offered: Vec<String> = descriptors
            .iter()
            .filter(|descriptor| !is_companion(descriptor))
            .filter_map(|descriptor| descriptor.platform.as_ref().map(ToString::to_string))
            .collect();
        offered.dedup();
        StoreError::not_found(
            format!("{name} has no image for {wanted}"),
            match offered.len() {
                0 => "it has no image at all".to_owned(),
                _ => format!("choose one with --platform: {}", offered.join(", ")),
            },
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::{Value, json};

    use super::*;
    use crate::archive::Digest;

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"x").to_string(), "size": 1})
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        })
    }

    fn error(document: &Value, expected: Option<&str>) -> String {
        read(document.to_string().as_bytes(), expected, "it")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        let good = manifest().to_string();
        let ManifestOrIndex::Manifest(read_back) =
            read(good.as_bytes(), Some(OCI_MANIFEST), "it").unwrap()
        else {
            panic!("not a manifest");
        };
        assert_eq!(read_back.layers.len(), 1);
        let mut both = manifest();
        both["manifests"] = json!([descriptor(OCI_MANIFEST)]);
        assert!(error(&both, Some(OCI_MANIFEST)).contains("both"));
        assert!(error(&manifest(), Some(OCI_INDEX)).contains("referred to as"));
        let mut confused = manifest();
        confused["mediaType"] = json!(OCI_INDEX);
        assert!(error(&confused, None).contains("not what its type"));
        assert!(error(&json!({"schemaVersion": 2}), None).contains("neither"));
        assert!(error(&json!({"schemaVersion": 1, "fsLayers": []}), None).contains("2014"));
        // What is missing is not wrong.
        let mut bare = manifest();
        bare.as_object_mut().unwrap().remove("schemaVersion");
        bare.as_object_mut().unwrap().remove("mediaType");
        bare["layers"] = Value::Null;
        read(bare.to_string().as_bytes(), Some(OCI_MANIFEST), "it").unwrap();
        bare["Layers"] = json!([]);
        assert!(error(&bare, None).contains("ignore case"));
        let twice = good.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
        assert!(read(twice.as_bytes(), None, "it").is_err());
    }

    #[test]
    fn only_images_are_taken() {
        let mut chart = manifest();
        chart["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
        assert!(error(&chart, None).contains("helm"));
        let mut secret = manifest();
        secret["layers"][0]["mediaType"] =
            json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
        assert!(error(&secret, None).contains("encrypted"));
        let mut other = manifest();
        other["layers"][0]["mediaType"] = json!(OCI_CONFIG);
        assert!(error(&other, None).contains("no layer's"));
    }

    #[test]
    fn a_platform_is_chosen_and_companions_are_not() {
        let with = |os: &str, architecture: &str| {
            let mut value = descriptor(OCI_MANIFEST);
            value["platform"] = json!({"os": os, "architecture": architecture});
            serde_json::from_value::<Descriptor>(value).unwrap()
        };
        let all = [
            with("unknown", "unknown"),
            with("linux", "arm64"),
            with("linux", "amd64"),
        ];
        let wanted = Platform::parse("linux/amd64").unwrap();
        assert_eq!(choose(&all, &wanted, "it").unwrap(), &all[2]);
        let message = choose(&all, &Platform::parse("linux/s390x").unwrap(), "it")
            .unwrap_err()
            .to_string();
        assert!(message.contains("linux/arm64, linux/amd64"), "{message}");
        assert!(!message.contains("unknown"));
    }
}
