//! What an archive holds, by its documents alone.

use super::{LoadOptions, Loaded, NewImage};
use crate::archive::{Compression, Digest};
use crate::store::base::{
    Result, StoreError,
    ids::{DiffId, ImageId},
    reference::{Reference, repository_from},
    time,
};
use crate::store::catalog::images::Manifest;
use crate::store::image::documents::Platform;
use crate::store::image::documents::config::ImageConfig;
use crate::store::image::documents::manifest::{self, ImageManifest, ManifestOrIndex};
use crate::store::image::documents::{
    Descriptor, OCI_MANIFEST, blob_path, docker, form, layer_compression, malformed, or_default,
    parse,
};
use crate::store::image::source::ImageSource;

/// Indexes that may refer to each other in a row.
const MOST_NESTED: usize = 4;
/// Images that one archive may hold.
const MOST_IMAGES: usize = 1000;
/// Layers that an image may have: as many as the union can stack.
const MOST_LAYERS: usize = 65_000;

/// An image that is to be loaded.
#[derive(Clone, Debug)]
pub(super) struct ImagePlan {
    /// The digest of its configuration.
    pub(super) id: ImageId,
    config: Vec<u8>,
    created: Option<i64>,
    /// Archives of docker have none.
    manifest: Option<Manifest>,
    /// Oldest first.
    pub(super) layers: Vec<PlannedLayer>,
    pub(super) names: Vec<Reference>,
}

/// A layer of it.
#[derive(Clone, Debug)]
pub(super) struct PlannedLayer {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: DiffId,
    /// The member that holds it.
    pub(super) member: String,
    /// Digest and size of the member, where a manifest has them.
    pub(super) blob: Option<(Digest, u64)>,
    /// Its compression, where the media type names it.
    pub(super) compression: Option<Compression>,
}

impl ImagePlan {
    pub(super) fn to_image(&self) -> NewImage {
        NewImage {
            id: self.id,
            config: self.config.clone(),
            created: self.created,
            layers: self.layers.iter().map(|layer| layer.diff_id).collect(),
            manifest: self.manifest.clone(),
            blobs: self
                .layers
                .iter()
                .filter_map(|layer| layer.blob.map(|(digest, _)| digest))
                .collect(),
            names: self.names.clone(),
        }
    }

    pub(super) fn loaded(&self, stored: &[DiffId]) -> Loaded {
        let layer = |layer: &PlannedLayer| (layer.diff_id, stored.contains(&layer.diff_id));
        Loaded {
            id: self.id,
            names: self.names.clone(),
            layers: self.layers.iter().map(layer).collect(),
        }
    }
}

/// Reads the documents of an archive. One that is both (docker since version 25 writes so) is read
/// as an OCI layout.
pub(super) fn read(source: &ImageSource, options: &LoadOptions) -> Result<Vec<ImagePlan>> {
    let limits = &options.limits;
    let reading = Reading { source, options };
    let plans = if source.document("oci-layout", limits)?.is_some() {
        reading.layout()?
    } else if let Some(list) = source.document("manifest.json", limits)? {
        let entries = docker::read(&list, "manifest.json")?;
        at_most(entries.len(), MOST_IMAGES, "images")?;
        let plans = entries.iter().map(|entry| reading.docker(entry));
        plans.collect::<Result<Vec<_>>>()?
    } else {
        return Err(StoreError::malformed(
            format!(
                "'{}' has neither oci-layout nor manifest.json",
                source.given().display()
            ),
            "name an OCI layout or an archive of docker save or podman save",
        ));
    };
    if plans.is_empty() {
        return Err(StoreError::not_found(
            format!("'{}' holds no image", source.given().display()),
            "save an image into it first",
        ));
    }
    Ok(plans)
}

fn at_most(count: usize, most: usize, what: &str) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    Err(StoreError::limit(
        format!("the archive has {count} {what}, more than {most}"),
        "split the archive, or the image",
    ))
}

struct Reading<'a> {
    source: &'a ImageSource,
    options: &'a LoadOptions,
}

impl Reading<'_> {
    fn layout(&self) -> Result<Vec<ImagePlan>> {
        #[derive(serde::Deserialize)]
        struct Version {
            #[serde(
                rename = "imageLayoutVersion",
                default,
                deserialize_with = "or_default"
            )]
            version: String,
        }
        let limits = &self.options.limits;
        let layout = self
            .source
            .document("oci-layout", limits)?
            .unwrap_or_default();
        form::refuse_ambiguous(&layout, form::LAYOUT, "oci-layout")?;
        let version: Version = parse(&layout, "oci-layout")?;
        if !version.version.is_empty() && !version.version.starts_with("1.") {
            return Err(malformed("oci-layout", "its version is not 1"));
        }
        let index = self
            .source
            .document("index.json", limits)?
            .ok_or_else(|| malformed("the layout", "it has no index.json"))?;
        let ManifestOrIndex::Index(listed) = manifest::read(&index, None, "index.json")? else {
            return Err(malformed("index.json", "it is no index"));
        };
        at_most(listed.len(), MOST_IMAGES, "images")?;
        let repository = self
            .source
            .file_name()
            .and_then(|name| repository_from(&name));
        let mut plans: Vec<ImagePlan> = Vec::new();
        for chosen in self.one_per_name(&listed)? {
            let mut plan = self.image(chosen, MOST_NESTED)?;
            if let Some(text) = manifest::name_of(chosen) {
                let name = Reference::from_annotation(text, repository.as_deref())?;
                plan.names.extend(name);
            }
            // Several names of one image are several entries.
            match plans.iter_mut().find(|known| {
                let digest =
                    |plan: &ImagePlan| plan.manifest.as_ref().map(|manifest| manifest.digest);
                digest(known) == digest(&plan)
            }) {
                Some(known) => known.names.extend(plan.names),
                None => plans.push(plan),
            }
        }
        Ok(plans)
    }

    /// Entries of the same name for several platforms are alternatives, as they are in an index
    /// below.
    fn one_per_name<'a>(&self, listed: &'a [Descriptor]) -> Result<Vec<&'a Descriptor>> {
        let images: Vec<&Descriptor> = listed
            .iter()
            .filter(|d| manifest::is_listing(d) && !manifest::is_companion(d))
            .collect();
        let mut chosen: Vec<&Descriptor> = Vec::new();
        for &descriptor in &images {
            let is_alternative = |other: &&&Descriptor| {
                other.platform.is_some()
                    && manifest::name_of(other) == manifest::name_of(descriptor)
            };
            if descriptor.platform.is_none() {
                chosen.push(descriptor);
                continue;
            }
            let alternatives: Vec<Descriptor> = images
                .iter()
                .filter(is_alternative)
                .map(|d| (**d).clone())
                .collect();
            let digest = if alternatives.len() == 1 {
                descriptor.digest
            } else {
                manifest::choose(&alternatives, &self.platform(), "the archive")?.digest
            };
            if descriptor.digest == digest {
                chosen.push(descriptor);
            }
        }
        Ok(chosen)
    }

    fn platform(&self) -> Platform {
        self.options
            .platform
            .clone()
            .unwrap_or_else(Platform::of_machine)
    }

    /// A document with the size and the digest of its reference.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let name = blob_path(&descriptor.digest);
        let member = self.source.require(&name)?;
        if member.size != descriptor.size {
            return Err(malformed(
                &name,
                &format!("it has {} bytes, not {}", member.size, descriptor.size),
            ));
        }
        let bytes =
            crate::store::image::documents::read(member.reader, self.options.limits.json, &name)?;
        if Digest::of(&bytes) != descriptor.digest {
            return Err(malformed(
                &name,
                "its content has another digest than its name",
            ));
        }
        Ok(bytes)
    }

    fn image(&self, descriptor: &Descriptor, depth: usize) -> Result<ImagePlan> {
        let name = blob_path(&descriptor.digest);
        let bytes = self.blob(descriptor)?;
        match manifest::read(&bytes, Some(&descriptor.media_type), &name)? {
            ManifestOrIndex::Index(listed) => {
                if depth == 0 {
                    return Err(malformed(&name, "indexes refer to indexes too deeply"));
                }
                at_most(listed.len(), MOST_IMAGES, "images")?;
                let chosen = manifest::choose(&listed, &self.platform(), &name)?;
                self.image(chosen, depth - 1)
            }
            ManifestOrIndex::Manifest(parts) => {
                if let Some(wanted) = &self.options.platform {
                    self.check_platform(wanted, &parts)?;
                }
                self.of_manifest(descriptor, bytes, &parts)
            }
        }
    }

    /// A platform that was asked for is not to be missed because there is only one image.
    fn check_platform(&self, wanted: &Platform, parts: &ImageManifest) -> Result<()> {
        let name = blob_path(&parts.config.digest);
        let config = ImageConfig::read(&self.blob(&parts.config)?, &name)?;
        if wanted.suits(&config.platform).is_some() {
            return Ok(());
        }
        Err(StoreError::not_found(
            format!("the image is for {}, not for {wanted}", config.platform),
            "load it without --platform, or get the image for that platform",
        ))
    }

    fn of_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        parts: &ImageManifest,
    ) -> Result<ImagePlan> {
        let name = blob_path(&parts.config.digest);
        let config = self.blob(&parts.config)?;
        let (diff_ids, created) = self.config(&config, parts.layers.len(), &name)?;
        let layers = diff_ids
            .into_iter()
            .zip(&parts.layers)
            .map(|(diff_id, layer)| PlannedLayer {
                diff_id: diff_id.into(),
                member: blob_path(&layer.digest),
                blob: Some((layer.digest, layer.size)),
                compression: layer_compression(&layer.media_type),
            })
            .collect();
        Ok(ImagePlan {
            id: parts.config.digest.into(),
            config,
            created,
            manifest: Some(Manifest {
                digest: descriptor.digest,
                image: parts.config.digest.into(),
                media_type: descriptor.media_type.clone(),
                document: bytes,
            }),
            layers,
            names: Vec::new(),
        })
    }

    fn config(
        &self,
        bytes: &[u8],
        layers: usize,
        name: &str,
    ) -> Result<(Vec<Digest>, Option<i64>)> {
        at_most(layers, MOST_LAYERS, "layers")?;
        form::refuse_ambiguous(bytes, form::CONFIG, name)?;
        let config = ImageConfig::read(bytes, name)?;
        let diff_ids = config.diff_ids(name)?;
        if diff_ids.len() != layers {
            return Err(malformed(
                name,
                &format!("it names {} layers, the image has {layers}", diff_ids.len()),
            ));
        }
        Ok((diff_ids, time::parse(&config.created)))
    }

    fn docker(&self, entry: &docker::DockerImage) -> Result<ImagePlan> {
        let limits = &self.options.limits;
        let member = self.source.require(&entry.config)?;
        let config =
            crate::store::image::documents::read(member.reader, limits.json, &entry.config)?;
        let id = Digest::of(&config);
        let stem = entry.config.rsplit('/').next().unwrap_or_default();
        let stem = stem.strip_suffix(".json").unwrap_or(stem);
        if let Ok(named) = format!("sha256:{stem}").parse::<Digest>()
            && named != id
        {
            return Err(malformed(
                &entry.config,
                "its content has another digest than its name",
            ));
        }
        let (diff_ids, created) = self.config(&config, entry.layers.len(), &entry.config)?;
        let layers = diff_ids
            .into_iter()
            .zip(&entry.layers)
            .map(|(diff_id, member)| PlannedLayer {
                diff_id: diff_id.into(),
                member: member.clone(),
                blob: None,
                compression: None,
            })
            .collect();
        let names = entry.repo_tags.iter().map(|name| Reference::parse(name));
        Ok(ImagePlan {
            id: id.into(),
            config,
            created,
            manifest: None,
            layers,
            names: names.collect::<Result<_>>()?,
        })
    }
}

/// The media type of the manifests that we write.
pub(super) const OWN_MANIFEST: &str = OCI_MANIFEST;
