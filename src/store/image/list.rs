//! Images as commands see them: listing, inspecting, naming, removing.

use rusqlite::{Connection, Transaction};
use serde::Serialize;
use serde_json::{Value, json};

use crate::store::Store;
use crate::store::base::{Result, StoreError, ids::ImageId, reference::Reference, time};
use crate::store::catalog::images::{self, FoundImage, Image};
use crate::store::catalog::{containers, layers};
use crate::store::collect::Collected;
use crate::store::image::documents::config::ImageConfig;

/// A line of `image ls`: a name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageLine {
    /// `sha256:..`.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// `<none>` when it has no name.
    pub(crate) repository: String,
    /// `<none>` when it has no name.
    pub(crate) tag: String,
    /// Digest of the manifest that the name stands for.
    pub(crate) digest: String,
    /// Seconds since 1970.
    pub(crate) created: Option<i64>,
    /// Bytes of all its layers.
    pub(crate) size: u64,
    /// Containers made from it.
    pub(crate) containers: usize,
}

/// A line of `image history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HistoryLine {
    /// The image's id for the newest step, `<missing>` for the others.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: Option<i64>,
    /// The command.
    pub(crate) created_by: String,
    /// Bytes of the layer that the step made; 0 when it made none.
    pub(crate) size: u64,
    /// The comment of its author.
    pub(crate) comment: String,
}

/// What `image rm` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Removed {
    /// Names that were removed.
    pub(crate) untagged: Vec<String>,
    /// The images and layers that are gone.
    pub(crate) deleted: Vec<String>,
}

/// The sizes of an image's layers together.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn size(db: &Connection, id: &ImageId) -> Result<u64> {
    let layers = layers::of_image(db, id)?;
    Ok(layers.iter().map(|layer| layer.size).sum())
}

impl Store {
    /// All images, a line for each name, the newest first; with `filter` only those of a repository
    /// or name.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn image_lines(&mut self, filter: Option<&str>) -> Result<Vec<ImageLine>> {
        let wanted = filter.map(Reference::parse).transpose()?;
        let with_tag = filter.is_some_and(|word| {
            word.rsplit_once(':')
                .is_some_and(|(_, tag)| !tag.contains('/'))
        });
        self.catalog.view(|db| {
            let mut lines = Vec::new();
            for image in images::all(db)? {
                let names = images::names_of(db, &image.id)?;
                let line = |repository: &str, tag: &str, digest: String| -> Result<ImageLine> {
                    Ok(ImageLine {
                        repository: repository.to_owned(),
                        tag: tag.to_owned(),
                        digest,
                        created: image.created,
                        size: size(db, &image.id)?,
                        containers: containers::of_image(db, &image.id)?.len(),
                        id: image.id.to_string(),
                    })
                };
                if names.is_empty() && wanted.is_none() {
                    let digest = images::latest_manifest(db, &image.id)?.digest.to_string();
                    lines.push(line("<none>", "<none>", digest)?);
                }
                for name in names {
                    let is_wanted = wanted.as_ref().is_none_or(|wanted| {
                        wanted.repository == name.repository
                            && (!with_tag || wanted.tag == name.tag)
                    });
                    if is_wanted {
                        let manifest = images::named(db, &name)?;
                        let digest = manifest.map(|manifest| manifest.digest.to_string());
                        let digest = digest.unwrap_or_default();
                        lines.push(line(&name.repository, &name.tag, digest)?);
                    }
                }
            }
            Ok(lines)
        })
    }

    /// Finds an image by name, id or the beginning of an id.
    ///
    /// # Errors
    /// There is none, or several begin so.
    pub(in crate::store) fn find_image(&self, word: &str) -> Result<(FoundImage, Image)> {
        let found = images::resolve(self.db(), word)?;
        let image = images::find(self.db(), &found.image)?;
        let image = image.ok_or_else(|| StoreError::vanished(word))?;
        Ok((found, image))
    }

    /// How an image was made, the newest step first.
    ///
    /// # Errors
    /// There is no such image.
    pub(crate) fn image_history(&mut self, word: &str) -> Result<Vec<HistoryLine>> {
        let (found, image) = self.find_image(word)?;
        let config = ImageConfig::read(&image.config, &image.id.to_string())?;
        let sizes = layers::of_image(self.db(), &found.image)?;
        let mut sizes = sizes.iter().map(|layer| layer.size);
        let mut lines: Vec<HistoryLine> = config
            .history
            .into_iter()
            .map(|step| HistoryLine {
                id: "<missing>".to_owned(),
                created: time::parse(&step.created),
                created_by: step.created_by,
                size: if step.empty_layer {
                    0
                } else {
                    sizes.next().unwrap_or(0)
                },
                comment: step.comment,
            })
            .collect();
        // Layers that the history does not mention are there all the same.
        for size in sizes {
            lines.push(HistoryLine {
                id: "<missing>".to_owned(),
                created: time::parse(&config.created),
                created_by: String::new(),
                size,
                comment: String::new(),
            });
        }
        lines.reverse();
        if let Some(newest) = lines.first_mut() {
            newest.id = image.id.to_string();
        }
        Ok(lines)
    }

    /// Everything about an image, in the form of docker.
    ///
    /// # Errors
    /// There is no such image.
    pub(crate) fn inspect_image(&mut self, word: &str) -> Result<Value> {
        let (found, image) = self.find_image(word)?;
        let config = ImageConfig::read(&image.config, &image.id.to_string())?;
        let db = self.db();
        let layers = layers::of_image(db, &image.id)?;
        let names: Vec<String> = images::names_of(db, &image.id)?
            .iter()
            .map(ToString::to_string)
            .collect();
        let manifest = images::manifest_by_digest(db, &found.manifest)?;
        let blobs = layers::blobs_of_manifest(db, &manifest.digest)?;
        let size: u64 = layers.iter().map(|layer| layer.size).sum();
        let trees: Vec<String> = layers
            .iter()
            .rev()
            .map(|layer| {
                self.paths
                    .layer_tree(&layer.short)
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        Ok(json!({
            "Id": image.id,
            "RepoTags": names,
            "RepoDigests": images::repo_digests(db, &image.id)?,
            "Parent": "",
            "Comment": config.comment,
            "Created": config.created,
            "Author": config.author,
            "Config": config.config,
            "Architecture": config.platform.architecture,
            "Variant": config.platform.variant,
            "Os": config.platform.os,
            "Size": size,
            "VirtualSize": size,
            "Manifest": {
                "Digest": manifest.digest,
                "MediaType": manifest.media_type,
                "Layers": blobs.iter().map(|blob| json!({
                    "Digest": blob.digest,
                    "DiffID": blob.diff_id,
                    "Size": blob.size,
                    "Compression": blob.compression.name(),
                })).collect::<Vec<_>>(),
            },
            "GraphDriver": {
                "Name": "unionmount",
                "Data": { "LowerDir": trees.join(":") },
            },
            "RootFS": {
                "Type": "layers",
                "Layers": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
            },
            "Metadata": { "LoadedAt": time::format(image.loaded) },
        }))
    }

    /// Adds a name to an image; an image that has it loses it.
    ///
    /// # Errors
    /// There is no such image, or it is no name.
    pub(crate) fn tag_image(&mut self, word: &str, name: &str) -> Result<Reference> {
        let name = Reference::parse(name)?;
        self.catalog.change(|db| {
            let found = images::resolve(db, word)?;
            images::name(db, &name, &found.manifest)
        })?;
        Ok(name)
    }

    /// Takes a name from an image, and removes the image when it was the last one; an id removes
    /// the image with its name.
    ///
    /// # Errors
    /// There is no such image; a container was made from it, or an id stands for several names, and
    /// it is not forced.
    pub(crate) fn remove_image(&mut self, word: &str, force: bool) -> Result<Removed> {
        let mut removed = self.catalog.change(|db| forget(db, word, force))?;
        let collected: Collected = self.collect_layers()?;
        self.collect_files(&removed)?;
        let layers = collected.layers.iter().map(ToString::to_string);
        removed.deleted.extend(layers);
        Ok(removed)
    }

    /// Deletes the configuration files of images that are gone, and archives of layers that stay.
    fn collect_files(&mut self, removed: &Removed) -> Result<()> {
        if removed.deleted.is_empty() {
            return Ok(());
        }
        self.collect_leftovers().map(|_| ())
    }
}

fn forget(db: &Transaction<'_>, word: &str, force: bool) -> Result<Removed> {
    let found = images::resolve(db, word)?;
    let names = images::names_of(db, &found.image)?;
    let mut removed = Removed::default();
    if let Some(name) = &found.name
        && names.len() > 1
    {
        images::unname(db, name)?;
        removed.untagged.push(name.to_string());
        return Ok(removed);
    }
    if found.name.is_none() && names.len() > 1 && !force {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        return Err(StoreError::in_use(
            format!(
                "image {} has several names: {}",
                found.image.short(),
                names.join(", ")
            ),
            "remove them by name, or all of them with --force",
        ));
    }
    let users = containers::of_image(db, &found.image)?;
    if !users.is_empty() && !force {
        return Err(StoreError::in_use(
            format!(
                "image {} is used by container {}",
                found.image.short(),
                users.join(", ")
            ),
            "remove the containers first (unionmount container rm), or use --force: they keep their layers",
        ));
    }
    images::delete(db, &found.image)?;
    removed.untagged = names.iter().map(ToString::to_string).collect();
    removed.deleted.push(found.image.to_string());
    Ok(removed)
}
