//! Layers and the archives they came in.

use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction};

use super::sql::{column, exists, signed, unsigned};
use crate::archive::{Compression, Digest};
use crate::store::base::{
    Result,
    ids::{DiffId, ImageId},
};

/// A stored layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Layer {
    /// Digest of its uncompressed tar.
    pub(in crate::store) diff_id: DiffId,
    /// The name of its directory.
    pub(in crate::store) short: String,
    /// Bytes of its files, each inode once, as Docker counts.
    pub(in crate::store) size: u64,
    /// Bytes of the uncompressed tar.
    pub(in crate::store) tar_size: u64,
    /// Its archive has an entry for the root directory.
    pub(in crate::store) has_root: bool,
    /// When it was stored, in seconds since 1970.
    pub(in crate::store) created: i64,
}

/// An archive of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Blob {
    /// Digest of its bytes as they came.
    pub(in crate::store) digest: Digest,
    /// The layer that it holds.
    pub(in crate::store) diff_id: DiffId,
    /// Bytes as they came.
    pub(in crate::store) size: u64,
    /// How it is compressed; a plain one is kept compressed with zstd.
    pub(in crate::store) compression: Compression,
    /// Bytes that it takes in the store.
    pub(in crate::store) stored_size: u64,
}

impl Blob {
    /// Its file in the layer's directory.
    #[must_use]
    pub(in crate::store) fn file_name(&self) -> String {
        blob_file(&self.digest)
    }
}

/// The file of an archive in its layer's directory.
#[must_use]
pub(in crate::store) fn blob_file(digest: &Digest) -> String {
    format!("blob-{}", digest.hex())
}

fn compression(name: &str) -> Compression {
    let all = [Compression::Gzip, Compression::Zstd];
    all.into_iter()
        .find(|compression| compression.name() == name)
        .unwrap_or(Compression::None)
}

fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    Ok(Layer {
        diff_id: row.get(0)?,
        short: row.get(1)?,
        size: unsigned(row.get(2)?),
        tar_size: unsigned(row.get(3)?),
        has_root: row.get(4)?,
        created: row.get(5)?,
    })
}

fn blob(row: &Row<'_>) -> rusqlite::Result<Blob> {
    Ok(Blob {
        digest: row.get(0)?,
        diff_id: row.get(1)?,
        size: unsigned(row.get(2)?),
        compression: compression(&row.get::<_, String>(3)?),
        stored_size: unsigned(row.get(4)?),
    })
}

const LAYER: &str = "SELECT diff_id, short, size, tar_size, has_root, created FROM layers";
const BLOB: &str = "SELECT digest, diff_id, size, compression, stored_size FROM blobs";

/// The layer with this diffID.
///
/// # Errors
/// Those of the catalog, as everywhere here.
pub(in crate::store) fn find(db: &Connection, diff_id: &DiffId) -> Result<Option<Layer>> {
    let mut statement = db.prepare_cached(&format!("{LAYER} WHERE diff_id = ?"))?;
    Ok(statement.query_row([diff_id], layer).optional()?)
}

/// All layers, the oldest first.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn all(db: &Connection) -> Result<Vec<Layer>> {
    let mut statement = db.prepare_cached(&format!("{LAYER} ORDER BY created, diff_id"))?;
    let rows = statement.query_map([], layer)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The layers of an image, the oldest (lowest) first.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn of_image(db: &Connection, image: &ImageId) -> Result<Vec<Layer>> {
    stack(db, "image_layers", "image", image)
}

/// The layers of a container, the oldest (lowest) first.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn of_container(db: &Connection, container: &str) -> Result<Vec<Layer>> {
    stack(db, "container_layers", "container", container)
}

fn stack(db: &Connection, table: &str, column: &str, id: impl ToSql) -> Result<Vec<Layer>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT diff_id, short, size, tar_size, has_root, created FROM {table} JOIN layers USING (diff_id)
         WHERE {column} = ? ORDER BY position"
    ))?;
    let rows = statement.query_map([id], layer)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records a layer.
///
/// # Errors
/// Those of the catalog; it is there already.
pub(in crate::store) fn insert(db: &Transaction<'_>, layer: &Layer) -> Result<()> {
    db.prepare_cached("INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?)")?
        .execute((
            &layer.diff_id,
            &layer.short,
            signed(layer.size),
            signed(layer.tar_size),
            layer.has_root,
            layer.created,
        ))?;
    Ok(())
}

/// Corrects the size of a layer.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn set_size(db: &Transaction<'_>, diff_id: &DiffId, size: u64) -> Result<()> {
    db.execute(
        "UPDATE layers SET size = ? WHERE diff_id = ?",
        (signed(size), diff_id),
    )?;
    Ok(())
}

/// A directory name for a layer that no other layer has: as much of the digest as it takes.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn free_short(db: &Connection, diff_id: &DiffId) -> Result<String> {
    let hex = diff_id.digest().hex();
    for length in crate::store::base::ids::SHORT..hex.len() {
        let short = hex.get(..length).unwrap_or(&hex);
        if !exists(db, "SELECT 1 FROM layers WHERE short = ?", [short])? {
            return Ok(short.to_owned());
        }
    }
    Ok(hex)
}

/// The directory names of all layers.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn shorts(db: &Connection) -> Result<Vec<String>> {
    column(db, "SELECT short FROM layers", [])
}

/// One archive.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn find_blob(db: &Connection, digest: &Digest) -> Result<Option<Blob>> {
    let mut statement = db.prepare_cached(&format!("{BLOB} WHERE digest = ?"))?;
    Ok(statement.query_row([digest], blob).optional()?)
}

/// The archives of a layer.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn blobs_of(db: &Connection, diff_id: &DiffId) -> Result<Vec<Blob>> {
    let mut statement = db.prepare_cached(&format!("{BLOB} WHERE diff_id = ? ORDER BY digest"))?;
    let rows = statement.query_map([diff_id], blob)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The archives of a manifest, in its order.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn blobs_of_manifest(db: &Connection, manifest: &Digest) -> Result<Vec<Blob>> {
    let mut statement = db.prepare_cached(
        "SELECT digest, diff_id, size, compression, stored_size FROM manifest_blobs
         JOIN blobs USING (digest) WHERE manifest = ? ORDER BY position",
    )?;
    let rows = statement.query_map([manifest], blob)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records an archive of a layer that is there.
///
/// # Errors
/// Those of the catalog; it is there already.
pub(in crate::store) fn insert_blob(db: &Transaction<'_>, blob: &Blob) -> Result<()> {
    db.prepare_cached("INSERT INTO blobs VALUES (?, ?, ?, ?, ?)")?
        .execute((
            &blob.digest,
            &blob.diff_id,
            signed(blob.size),
            blob.compression.name(),
            signed(blob.stored_size),
        ))?;
    Ok(())
}

/// Deletes the rows of archives that no manifest has, and then those of layers that no image and no
/// container has. Returns the layers.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn forget_unreferenced(db: &Transaction<'_>) -> Result<Vec<Layer>> {
    db.execute(
        "DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM manifest_blobs)",
        [],
    )?;
    let condition = "diff_id NOT IN (SELECT diff_id FROM image_layers)
        AND diff_id NOT IN (SELECT diff_id FROM container_layers)";
    let gone = {
        let mut statement = db.prepare(&format!("{LAYER} WHERE {condition}"))?;
        let rows = statement.query_map([], layer)?;
        rows.collect::<rusqlite::Result<Vec<_>>>()?
    };
    db.execute(&format!("DELETE FROM layers WHERE {condition}"), [])?;
    Ok(gone)
}
