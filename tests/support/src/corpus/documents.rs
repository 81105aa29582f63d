//! What holds of image documents, whatever is given to them.

use unionmount::internal::store::Reference;
use unionmount::internal::store::documents::config::{Addition, ImageConfig, extend};
use unionmount::internal::store::documents::{docker, manifest};

/// Every document is either understood or refused with one line, and what was understood is inside
/// its archive.
pub fn check(bytes: &[u8]) {
    for expected in [
        None,
        Some("application/vnd.oci.image.manifest.v1+json"),
        Some("application/vnd.oci.image.index.v1+json"),
    ] {
        match manifest::read(bytes, expected, "document") {
            Ok(manifest::ManifestOrIndex::Index(listed)) => {
                let any = unionmount::internal::store::documents::Platform::of_machine();
                if let Err(error) = manifest::choose(&listed, &any, "document") {
                    assert!(!error.to_string().contains('\n'));
                }
            }
            Ok(manifest::ManifestOrIndex::Manifest(parts)) => {
                assert_eq!(parts.config.digest.hex().len(), 64);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Ok(entries) = docker::read(bytes, "manifest.json") {
        for member in entries.iter().flat_map(|entry| &entry.layers) {
            assert!(!member.starts_with('/') && member.split('/').all(|part| part != ".."));
        }
    }
    if let Ok(config) = ImageConfig::read(bytes, "config") {
        let addition = Addition {
            diff_id: unionmount::internal::archive::Digest::of(b""),
            created: "2024-01-01T00:00:00Z",
            author: "",
            message: "",
            created_by: "fuzz",
            changes: &[],
        };
        // What was read once can be extended and read again, with one layer more.
        if let (Ok(extended), Ok(before)) = (extend(bytes, &addition), config.diff_ids("config")) {
            let after = ImageConfig::read(&extended, "config").and_then(|c| c.diff_ids("config"));
            assert_eq!(after.map(|ids| ids.len()), Ok(before.len() + 1));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(name) = Reference::parse(text)
    {
        assert_eq!(Reference::parse(&name.to_string()), Ok(name));
    }
}
