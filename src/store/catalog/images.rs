//! Images, their manifests and their names.

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::sql::{column, exists, is_plain};
use crate::archive::Digest;
use crate::store::base::{
    Result, StoreError,
    ids::{DiffId, ImageId},
    reference::{LOCAL, Reference},
};

/// An image: its configuration, whose digest is its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Image {
    /// Digest of the configuration.
    pub(in crate::store) id: ImageId,
    /// The configuration, byte for byte.
    pub(in crate::store) config: Vec<u8>,
    /// When it was made, by its own account, in seconds since 1970.
    pub(in crate::store) created: Option<i64>,
    /// When it was stored, in seconds since 1970.
    pub(in crate::store) loaded: i64,
}

/// A manifest of an image: the same image may have come with layers compressed in several ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Manifest {
    /// Digest of the document.
    pub(in crate::store) digest: Digest,
    /// The image it describes.
    pub(in crate::store) image: ImageId,
    /// Its media type.
    pub(in crate::store) media_type: String,
    /// The document, byte for byte.
    pub(in crate::store) document: Vec<u8>,
}

fn image(row: &Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image {
        id: row.get(0)?,
        config: row.get(1)?,
        created: row.get(2)?,
        loaded: row.get(3)?,
    })
}

fn manifest(row: &Row<'_>) -> rusqlite::Result<Manifest> {
    Ok(Manifest {
        digest: row.get(0)?,
        image: row.get(1)?,
        media_type: row.get(2)?,
        document: row.get(3)?,
    })
}

fn reference(row: &Row<'_>) -> rusqlite::Result<Reference> {
    Ok(Reference {
        repository: row.get(0)?,
        tag: row.get(1)?,
    })
}

const MANIFEST: &str = "SELECT digest, image, media_type, document FROM manifests";

/// What a user's word for an image found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct FoundImage {
    /// The image's id.
    pub(in crate::store) image: ImageId,
    /// The manifest that is meant.
    pub(in crate::store) manifest: Digest,
    /// The name, when it was one.
    pub(in crate::store) name: Option<Reference>,
}

/// Finds an image by name, by id or its unique beginning, or by the digest of a manifest.
///
/// # Errors
/// There is none, or several ids begin so.
pub(in crate::store) fn resolve(db: &Connection, word: &str) -> Result<FoundImage> {
    if let Ok(name) = Reference::parse(word) {
        let local = Reference {
            repository: format!("{LOCAL}{}", name.repository),
            tag: name.tag.clone(),
        };
        for name in [name, local] {
            if let Some(manifest) = named(db, &name)? {
                return Ok(FoundImage {
                    image: manifest.image,
                    manifest: manifest.digest,
                    name: Some(name),
                });
            }
        }
    }
    let hex = word.strip_prefix("sha256:").unwrap_or(word);
    if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) && is_plain(hex) {
        let pattern = format!("sha256:{hex}*");
        let found: Vec<ImageId> = column(
            db,
            "SELECT id FROM images WHERE id GLOB ? LIMIT 2",
            [&pattern],
        )?;
        match found.as_slice() {
            [image] => {
                return Ok(FoundImage {
                    manifest: latest_manifest(db, image)?.digest,
                    image: *image,
                    name: None,
                });
            }
            [] => {}
            _ => {
                return Err(StoreError::ambiguous(
                    format!("several images begin with '{word}'"),
                    "give more digits of the one that is meant",
                ));
            }
        }
        let sql = format!("{MANIFEST} WHERE digest = ?");
        let found = db
            .query_row(&sql, [format!("sha256:{hex}")], manifest)
            .optional()?;
        if let Some(found) = found {
            return Ok(FoundImage {
                image: found.image,
                manifest: found.digest,
                name: None,
            });
        }
    }
    Err(StoreError::not_found(
        format!("there is no image '{}'", word.escape_debug()),
        "see 'unionmount image ls', or load it with 'unionmount image load'",
    ))
}

/// The manifest that a name stands for.
///
/// # Errors
/// Those of the catalog, as everywhere here.
pub(in crate::store) fn named(db: &Connection, name: &Reference) -> Result<Option<Manifest>> {
    let mut statement = db.prepare_cached(
        "SELECT digest, image, media_type, document FROM manifests
         JOIN names ON names.manifest = manifests.digest WHERE repository = ? AND tag = ?",
    )?;
    let found = statement.query_row((&name.repository, &name.tag), manifest);
    Ok(found.optional()?)
}

/// The manifest that an image came with last.
///
/// # Errors
/// Those of the catalog; it has none.
pub(in crate::store) fn latest_manifest(db: &Connection, image: &ImageId) -> Result<Manifest> {
    let mut statement = db.prepare_cached(&format!(
        "{MANIFEST} WHERE image = ? ORDER BY position DESC LIMIT 1"
    ))?;
    Ok(statement.query_row([image], manifest)?)
}

/// One manifest by its digest.
///
/// # Errors
/// Those of the catalog; there is none.
pub(in crate::store) fn manifest_by_digest(db: &Connection, digest: &Digest) -> Result<Manifest> {
    let mut statement = db.prepare_cached(&format!("{MANIFEST} WHERE digest = ?"))?;
    Ok(statement.query_row([digest], manifest)?)
}

/// An image by its id.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn find(db: &Connection, id: &ImageId) -> Result<Option<Image>> {
    let mut statement =
        db.prepare_cached("SELECT id, config, created, loaded FROM images WHERE id = ?")?;
    Ok(statement.query_row([id], image).optional()?)
}

/// All images, the newest first.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn all(db: &Connection) -> Result<Vec<Image>> {
    let mut statement = db.prepare_cached(
        "SELECT id, config, created, loaded FROM images ORDER BY created DESC, loaded DESC, id",
    )?;
    let rows = statement.query_map([], image)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The names of an image.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn names_of(db: &Connection, image: &ImageId) -> Result<Vec<Reference>> {
    let mut statement = db.prepare_cached(
        "SELECT repository, tag FROM names JOIN manifests ON names.manifest = manifests.digest
         WHERE image = ? ORDER BY repository, tag",
    )?;
    let rows = statement.query_map([image], reference)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The digests of an image's manifests that have a name, with the repository.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn repo_digests(db: &Connection, image: &ImageId) -> Result<Vec<String>> {
    column(
        db,
        "SELECT DISTINCT repository || '@' || digest FROM names
         JOIN manifests ON names.manifest = manifests.digest WHERE image = ? ORDER BY 1",
        [image],
    )
}

/// Records an image with its layers, oldest first, and a manifest with its archives, oldest first.
/// What is there already stays; the manifest becomes the latest one.
///
/// # Errors
/// Those of the catalog; a layer or an archive is not there.
pub(in crate::store) fn insert(
    db: &Transaction<'_>,
    image: &Image,
    layers: &[DiffId],
    manifest: &Manifest,
    blobs: &[Digest],
) -> Result<()> {
    if find(db, &image.id)?.is_none() {
        db.execute(
            "INSERT INTO images VALUES (?, ?, ?, ?)",
            (&image.id, &image.config, image.created, image.loaded),
        )?;
        let mut statement = db.prepare_cached("INSERT INTO image_layers VALUES (?, ?, ?)")?;
        for (position, diff_id) in (0_i64..).zip(layers) {
            statement.execute((&image.id, position, diff_id))?;
        }
    }
    let position: i64 = db.query_row(
        "SELECT coalesce(max(position), 0) + 1 FROM manifests",
        [],
        |row| row.get(0),
    )?;
    let known = db.execute(
        "UPDATE manifests SET position = ? WHERE digest = ?",
        (position, &manifest.digest),
    )?;
    if known == 0 {
        db.execute(
            "INSERT INTO manifests VALUES (?, ?, ?, ?, ?)",
            (
                &manifest.digest,
                &manifest.image,
                &manifest.media_type,
                &manifest.document,
                position,
            ),
        )?;
        let mut statement = db.prepare_cached("INSERT INTO manifest_blobs VALUES (?, ?, ?)")?;
        for (position, digest) in (0_i64..).zip(blobs) {
            statement.execute((&manifest.digest, position, digest))?;
        }
    }
    Ok(())
}

/// Sets a name to a manifest; the manifest that had it loses it.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn name(
    db: &Transaction<'_>,
    name: &Reference,
    manifest: &Digest,
) -> Result<()> {
    db.execute(
        "INSERT INTO names VALUES (?, ?, ?)
         ON CONFLICT (repository, tag) DO UPDATE SET manifest = excluded.manifest",
        (&name.repository, &name.tag, manifest),
    )?;
    forget_superseded(db)
}

/// Manifests without a name, of images that have another one with a name or a later one, are of no
/// use any more.
fn forget_superseded(db: &Transaction<'_>) -> Result<()> {
    db.execute(
        "DELETE FROM manifests AS m
         WHERE digest NOT IN (SELECT manifest FROM names)
         AND EXISTS (SELECT 1 FROM manifests o WHERE o.image = m.image AND o.digest <> m.digest
             AND (o.digest IN (SELECT manifest FROM names) OR o.position > m.position))",
        [],
    )?;
    Ok(())
}

/// Takes a name away.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn unname(db: &Transaction<'_>, name: &Reference) -> Result<()> {
    db.execute(
        "DELETE FROM names WHERE repository = ? AND tag = ?",
        (&name.repository, &name.tag),
    )?;
    Ok(())
}

/// Deletes the rows of an image with its names and manifests. Its layers stay for other images and
/// containers.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn delete(db: &Transaction<'_>, id: &ImageId) -> Result<()> {
    db.execute(
        "DELETE FROM names WHERE manifest IN (SELECT digest FROM manifests WHERE image = ?)",
        [id],
    )?;
    db.execute("DELETE FROM images WHERE id = ?", [id])?;
    Ok(())
}

/// Ids of images without a name.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn dangling(db: &Connection) -> Result<Vec<ImageId>> {
    column(
        db,
        "SELECT id FROM images WHERE id NOT IN
         (SELECT image FROM manifests JOIN names ON names.manifest = manifests.digest) ORDER BY id",
        [],
    )
}

/// Whether a container was made from an image.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn is_used(db: &Connection, id: &ImageId) -> Result<bool> {
    exists(db, "SELECT 1 FROM containers WHERE image = ?", [id])
}

/// The images that have a layer.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn with_layer(db: &Connection, diff_id: &DiffId) -> Result<Vec<ImageId>> {
    column(
        db,
        "SELECT DISTINCT image FROM image_layers WHERE diff_id = ? ORDER BY image",
        [diff_id],
    )
}
