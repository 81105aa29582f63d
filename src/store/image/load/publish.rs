//! The last step of everything that makes images: layers and documents are moved to their places
//! and recorded in the catalog, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rusqlite::Transaction;

use super::plan::OWN_MANIFEST;
use super::ready::StagedLayer;
use crate::archive::Digest;
use crate::archive::disk::{sync_disk_of, sync_names_in};
use crate::store::Store;
use crate::store::base::{
    Area, Context, Result, StoreError, config_file,
    ids::{DiffId, ImageId},
    reference::Reference,
    time,
};
use crate::store::catalog::images::{self, Image, Manifest};
use crate::store::catalog::layers::{self, Blob, Layer};
use crate::store::image::documents::{Descriptor, OCI_CONFIG, layer_type, write};

/// An image whose layers are stored or ready.
#[derive(Clone, Debug)]
pub(in crate::store) struct NewImage {
    /// Digest of the configuration.
    pub(in crate::store) id: ImageId,
    /// The configuration.
    pub(in crate::store) config: Vec<u8>,
    /// When it was made, by its own account.
    pub(in crate::store) created: Option<i64>,
    /// The diffIDs of its layers, oldest first.
    pub(in crate::store) layers: Vec<DiffId>,
    /// The manifest it came with; without one, one is made.
    pub(in crate::store) manifest: Option<Manifest>,
    /// The archives of that manifest, oldest first.
    pub(in crate::store) blobs: Vec<Digest>,
    /// Its names.
    pub(in crate::store) names: Vec<Reference>,
}

/// Whether everything was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Published {
    /// It is in the catalog.
    Done,
    /// Layers that were stored at the beginning are not any more; nothing has changed.
    Missing,
}

impl Store {
    /// Moves everything to its place and records it. Killed before the transaction ends,
    /// directories without rows are left. After a power failure a row still stands for a whole
    /// layer: trees, archives and documents are written to the disk at once before anything is
    /// renamed, and the new names before the transaction ends.
    pub(in crate::store) fn publish(
        &mut self,
        area: &Area,
        ready: &mut BTreeMap<Digest, StagedLayer>,
        new: &[NewImage],
    ) -> Result<Published> {
        let paths = self.paths.clone();
        let mut files = Vec::new();
        for (number, image) in new.iter().enumerate() {
            let file = area.join(&format!("config-{number}"));
            fs::write(&file, &image.config).context("write", &file)?;
            files.push(file);
        }
        sync_disk_of(area.dir()).context("syncfs", area.dir())?;
        self.catalog.change(|db| {
            let mut renamed = BTreeSet::from([paths.layers(), paths.images()]);
            if !all_there(db, ready, new)? {
                return Ok(Published::Missing);
            }
            // Trees before archives that are added to them.
            let mut ordered: Vec<&StagedLayer> = ready.values().collect();
            ordered.sort_by_key(|ready| !ready.has_tree);
            for ready in ordered {
                let diff_id = &ready.blob.diff_id;
                let layer = match layers::find(db, diff_id)? {
                    Some(layer) => layer,
                    None => place_layer(db, &paths, area, ready)?,
                };
                if layers::find_blob(db, &ready.blob.digest)?.is_none() {
                    let name = ready.blob.file_name();
                    let place = paths.layer(&layer.short).join(&name);
                    let source = ready.dir.join(&name);
                    if source.exists() {
                        fs::rename(&source, &place).context("rename", &source)?;
                        renamed.insert(paths.layer(&layer.short));
                    }
                    layers::insert_blob(db, &ready.blob)?;
                }
            }
            for (image, file) in new.iter().zip(&files) {
                record(db, image)?;
                let place = paths.images().join(config_file(&image.id));
                fs::rename(file, &place).context("rename", file)?;
            }
            for dir in renamed {
                sync_names_in(&dir).context("fsync", &dir)?;
            }
            Ok(Published::Done)
        })
    }
}

fn all_there(
    db: &Transaction<'_>,
    ready: &BTreeMap<Digest, StagedLayer>,
    new: &[NewImage],
) -> Result<bool> {
    let is_ready = |diff_id: &DiffId| {
        let mut trees = ready.values().filter(|ready| ready.has_tree);
        trees.any(|ready| ready.blob.diff_id == *diff_id)
    };
    let blob_is_ready = |digest: &Digest| ready.values().any(|ready| ready.blob.digest == *digest);
    for image in new {
        for diff_id in &image.layers {
            if !is_ready(diff_id) && layers::find(db, diff_id)?.is_none() {
                return Ok(false);
            }
        }
        for digest in &image.blobs {
            if !blob_is_ready(digest) && layers::find_blob(db, digest)?.is_none() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Moves a tree with its archive to its place, which a killed command may have filled before.
fn place_layer(
    db: &Transaction<'_>,
    paths: &crate::store::base::Paths,
    area: &Area,
    ready: &StagedLayer,
) -> Result<Layer> {
    let diff_id = &ready.blob.diff_id;
    let short = layers::free_short(db, diff_id)?;
    let place = paths.layer(&short);
    area.take(&place, &short)?;
    fs::rename(&ready.dir, &place).context("rename", &ready.dir)?;
    let layer = Layer {
        diff_id: *diff_id,
        short,
        size: ready.size,
        tar_size: ready.tar_size,
        has_root: ready.has_root,
        created: time::now(),
    };
    layers::insert(db, &layer)?;
    Ok(layer)
}

fn record(db: &Transaction<'_>, new: &NewImage) -> Result<()> {
    let known = images::find(db, &new.id)?.is_some();
    let image = Image {
        id: new.id,
        config: new.config.clone(),
        created: new.created,
        loaded: time::now(),
    };
    let digest = match &new.manifest {
        None if known => images::latest_manifest(db, &new.id)?.digest,
        None => {
            let (manifest, blobs) = make_manifest(db, new)?;
            images::insert(db, &image, &new.layers, &manifest, &blobs)?;
            manifest.digest
        }
        Some(manifest) => {
            images::insert(db, &image, &new.layers, manifest, &new.blobs)?;
            manifest.digest
        }
    };
    for name in &new.names {
        images::name(db, name, &digest)?;
    }
    Ok(())
}

/// A manifest for an image that came without one, and the archives in it.
fn make_manifest(db: &Transaction<'_>, new: &NewImage) -> Result<(Manifest, Vec<Digest>)> {
    let mut blobs = Vec::new();
    for diff_id in &new.layers {
        let of_layer = layers::blobs_of(db, diff_id)?;
        // The plain tar, as it came, where there is one.
        let chosen = of_layer
            .iter()
            .find(|blob| blob.digest == diff_id.digest())
            .or_else(|| of_layer.first())
            .ok_or_else(|| {
                StoreError::damaged(
                    format!("the archive of layer {diff_id} is missing"),
                    "run 'unionmount system check --repair'",
                )
            })?;
        blobs.push(chosen.clone());
    }
    let document = manifest_document(new.id, new.config.len(), &blobs)?;
    let manifest = Manifest {
        digest: Digest::of(&document),
        image: new.id,
        media_type: OWN_MANIFEST.to_owned(),
        document,
    };
    let digests = blobs.into_iter().map(|blob| blob.digest).collect();
    Ok((manifest, digests))
}

/// An OCI manifest of a configuration and archives, oldest first.
pub(in crate::store) fn manifest_document(
    config: ImageId,
    config_size: usize,
    blobs: &[Blob],
) -> Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        schema_version: u32,
        media_type: &'static str,
        config: Descriptor,
        layers: Vec<Descriptor>,
    }
    let descriptor = |media_type: &str, digest: Digest, size: u64| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        annotations: BTreeMap::new(),
        platform: None,
    };
    let layers = blobs
        .iter()
        .map(|blob| descriptor(layer_type(blob.compression), blob.digest, blob.size))
        .collect();
    write(&Document {
        schema_version: 2,
        media_type: OWN_MANIFEST,
        config: descriptor(
            OCI_CONFIG,
            config.digest(),
            u64::try_from(config_size).unwrap_or(u64::MAX),
        ),
        layers,
    })
}
