//! `image save`: from the store into an archive, always the same bytes for the same images.
//!
//! An unchanged image leaves with the documents it came with, byte for byte, and with its archives:
//! those that came plain were kept compressed and are written plain again. With `--compress` the
//! layers get another compression, and so other digests, and the image another manifest;
//! configuration and diffIDs stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde_json::json;

use super::members::Members;
use crate::archive::codec::HashingWriter;
use crate::archive::codec::{Decoder, Encoder};
use crate::archive::{Compression, Digest, Progress};
use crate::cancel::Cancellable;
use crate::store::Store;
use crate::store::base::{Area, Context, Result, StoreError, ids::ImageId, reference::Reference};
use crate::store::catalog::images::{self, Manifest};
use crate::store::catalog::layers::{self, Blob};
use crate::store::image::documents::{OCI_INDEX, blob_path, docker, manifest, write};
use crate::store::image::load::manifest_document;

/// Which sort of archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// An OCI image layout in a tar.
    #[default]
    Oci,
    /// What `docker save` wrote until version 25, and every engine reads.
    Docker,
}

/// How images are saved.
#[derive(Clone, Copy)]
pub(crate) struct SaveOptions<'a> {
    /// The sort of archive.
    pub(crate) format: Format,
    /// Another compression for the layers; `None` leaves them as they came (with docker's format:
    /// plain).
    pub(crate) compression: Option<Compression>,
    /// Is notified of the bytes written.
    pub(crate) progress: &'a dyn Progress,
}

/// A layer as it will be in the archive.
struct LayerToSave {
    blob: Blob,
    /// A file with exactly its bytes; else it is in the store.
    file: Option<PathBuf>,
}

/// An image as it will be in the archive.
struct ImageToSave {
    id: ImageId,
    config: Vec<u8>,
    manifest: Manifest,
    name: Option<Reference>,
    layers: Vec<LayerToSave>,
}

impl Store {
    /// Writes images into an archive.
    ///
    /// # Errors
    /// There is no such image, an archive of a layer is missing or damaged, and failures of
    /// writing.
    pub(crate) fn save(
        &mut self,
        words: &[String],
        out: impl Write,
        options: &SaveOptions<'_>,
    ) -> Result<()> {
        let area = Area::new(&self.paths)?;
        let mut chosen = Vec::new();
        for word in words {
            chosen.push(self.choose(word, &area, options)?);
        }
        let mut tar = Members::new(out, options.progress);
        match options.format {
            Format::Oci => self.save_oci(&chosen, &mut tar)?,
            Format::Docker => self.save_docker(&chosen, options.compression.is_some(), &mut tar)?,
        }
        tar.finish()
    }

    fn choose(&self, word: &str, area: &Area, options: &SaveOptions<'_>) -> Result<ImageToSave> {
        let (found, image) = self.find_image(word)?;
        let mut manifest = images::manifest_by_digest(self.db(), &found.manifest)?;
        let blobs = layers::blobs_of_manifest(self.db(), &manifest.digest)?;
        let mut packed = Vec::new();
        let mut changed = false;
        for blob in blobs {
            match options.compression {
                Some(wanted) if wanted != blob.compression => {
                    changed = true;
                    packed.push(self.repack(&blob, wanted, area)?);
                }
                _ => packed.push(LayerToSave { blob, file: None }),
            }
        }
        if changed {
            let blobs: Vec<Blob> = packed.iter().map(|layer| layer.blob.clone()).collect();
            manifest.document = manifest_document(image.id, image.config.len(), &blobs)?;
            manifest.digest = Digest::of(&manifest.document);
            crate::store::image::documents::OCI_MANIFEST.clone_into(&mut manifest.media_type);
        }
        // An id stands for all names, as it does for docker.
        let name = match found.name {
            Some(name) => Some(name),
            None => images::names_of(self.db(), &image.id)?.into_iter().next(),
        };
        Ok(ImageToSave {
            id: image.id,
            config: image.config,
            manifest,
            name,
            layers: packed,
        })
    }

    /// Compresses a layer another way, into the area.
    fn repack(&self, blob: &Blob, wanted: Compression, area: &Area) -> Result<LayerToSave> {
        let path = area.join(&format!("{}-{}", blob.file_name(), wanted.name()));
        let plain = self.open_plain(blob)?;
        let file = File::create(&path).context("create", &path)?;
        let packed = (|| -> io::Result<_> {
            let hashed = HashingWriter::new(file);
            let mut encoder = Encoder::new(hashed, wanted)?;
            io::copy(&mut Cancellable(plain), &mut encoder)?;
            Ok(encoder.finish()?.finish())
        })();
        let (_, digest, size) = packed.context("compress into", &path)?;
        Ok(LayerToSave {
            blob: Blob {
                digest,
                diff_id: blob.diff_id,
                size,
                compression: wanted,
                stored_size: size,
            },
            file: Some(path),
        })
    }

    /// The file of an archive in the store.
    pub(in crate::store) fn blob_file(&self, blob: &Blob) -> Result<PathBuf> {
        let layer = layers::find(self.db(), &blob.diff_id)?
            .ok_or_else(|| StoreError::vanished(blob.diff_id))?;
        Ok(self.paths.layer(&layer.short).join(blob.file_name()))
    }

    /// The tar of a layer, whatever its compression.
    pub(in crate::store) fn open_plain(&self, blob: &Blob) -> Result<Decoder<File>> {
        let path = self.blob_file(blob)?;
        let file = File::open(&path).context("open", &path)?;
        let (decoder, _) = Decoder::new(file).context("read", &path)?;
        Ok(decoder)
    }

    /// The bytes of an archive as it came.
    pub(in crate::store) fn open_blob(&self, blob: &Blob) -> Result<Box<dyn Read>> {
        if blob.compression == Compression::None {
            return Ok(Box::new(self.open_plain(blob)?));
        }
        let path = self.blob_file(blob)?;
        Ok(Box::new(File::open(&path).context("open", &path)?))
    }

    fn open_layer(&self, layer: &LayerToSave) -> Result<Box<dyn Read>> {
        match &layer.file {
            Some(path) => Ok(Box::new(File::open(path).context("open", path)?)),
            None => self.open_blob(&layer.blob),
        }
    }

    fn save_oci(&self, chosen: &[ImageToSave], tar: &mut Members<'_, impl Write>) -> Result<()> {
        let mut listed = Vec::new();
        let mut written = BTreeSet::new();
        tar.dir("blobs")?;
        tar.dir("blobs/sha256")?;
        for image in chosen {
            for layer in &image.layers {
                if written.insert(layer.blob.digest) {
                    let name = blob_path(&layer.blob.digest);
                    tar.verified(
                        &name,
                        layer.blob.size,
                        self.open_layer(layer)?,
                        layer.blob.digest,
                    )?;
                }
            }
            for (digest, bytes) in [
                (image.id.digest(), &image.config),
                (image.manifest.digest, &image.manifest.document),
            ] {
                if written.insert(digest) {
                    tar.file(&blob_path(&digest), bytes)?;
                }
            }
            let mut annotations = BTreeMap::new();
            if let Some(name) = &image.name {
                annotations.insert(manifest::ref_name_annotation(), full_name(name));
            }
            let mut entry = json!({
                "mediaType": image.manifest.media_type,
                "digest": image.manifest.digest,
                "size": image.manifest.document.len(),
            });
            if !annotations.is_empty() {
                entry["annotations"] = json!(annotations);
            }
            listed.push(entry);
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed});
        tar.file("index.json", &write(&index)?)?;
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// `compressed` says that the layers have the compression that was asked for, whether they came
    /// so or not.
    fn save_docker(
        &self,
        chosen: &[ImageToSave],
        compressed: bool,
        tar: &mut Members<'_, impl Write>,
    ) -> Result<()> {
        let mut entries: Vec<docker::DockerImage> = Vec::new();
        let mut written = BTreeSet::new();
        for image in chosen {
            let mut members = Vec::new();
            for layer in &image.layers {
                // Recompressed ones keep the name of their content, which engines look into.
                let name = format!("{}.tar", layer.blob.diff_id.digest().hex());
                if written.insert(name.clone()) {
                    if compressed {
                        let packed = self.open_layer(layer)?;
                        tar.verified(&name, layer.blob.size, packed, layer.blob.digest)?;
                    } else {
                        let size = layers::find(self.db(), &layer.blob.diff_id)?
                            .map_or(0, |found| found.tar_size);
                        let plain = Box::new(self.open_plain(&layer.blob)?);
                        tar.verified(&name, size, plain, layer.blob.diff_id.digest())?;
                    }
                }
                members.push(name);
            }
            let config = format!("{}.json", image.id.digest().hex());
            if written.insert(config.clone()) {
                tar.file(&config, &image.config)?;
            }
            let name = image.name.iter().map(full_name);
            match entries.iter_mut().find(|entry| entry.config == config) {
                Some(entry) => entry.repo_tags.extend(name),
                None => entries.push(docker::DockerImage {
                    config,
                    repo_tags: name.collect(),
                    layers: members,
                }),
            }
        }
        tar.file("manifest.json", &write(&entries)?)
    }
}

/// A name as other engines take it without guessing a registry.
fn full_name(name: &Reference) -> String {
    match (name.has_registry(), name.repository.contains('/')) {
        (true, _) => name.to_string(),
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    }
}
