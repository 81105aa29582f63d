//! Media types of documents and layers.

use crate::archive::Compression;

/// OCI image manifest.
pub(in crate::store) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub(in crate::store) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub(in crate::store) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's manifest, version 2 schema 2.
pub(in crate::store) const DOCKER_MANIFEST: &str =
    "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub(in crate::store) const DOCKER_INDEX: &str =
    "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image configuration.
pub(in crate::store) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

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
pub(in crate::store) fn layer_compression(media_type: &str) -> Option<Compression> {
    let found = LAYER_TYPES.iter().find(|(name, _)| *name == media_type);
    found.map(|(_, compression)| *compression)
}

/// The OCI media type of a layer with this compression.
#[must_use]
pub(in crate::store) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => LAYER_TYPES[0].0,
        Compression::Gzip => LAYER_TYPES[1].0,
        Compression::Zstd => LAYER_TYPES[2].0,
    }
}
