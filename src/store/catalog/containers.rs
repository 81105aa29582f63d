//! Containers: a writable layer over the layers of an image, and what is seen inside it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::sql::{column, exists, is_plain};
use crate::store::base::{
    Result, StoreError,
    ids::{DiffId, ImageId},
};

/// How a container's tree is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// A union mount of the layers and the container's upper directory.
    Fuse,
    /// A copy of the image's tree, where FUSE is not available.
    Vfs,
}

impl Driver {
    /// Its name.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Vfs => "vfs",
        }
    }

    /// The directories of such a container.
    #[must_use]
    pub(crate) fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Fuse => &["upper", "work", "merged"],
            Self::Vfs => &["merged"],
        }
    }

    fn from_name(name: &str) -> Self {
        if name == "vfs" { Self::Vfs } else { Self::Fuse }
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// The image's id; the image itself may have been removed by force.
    pub(crate) image: ImageId,
    /// What the user called the image.
    pub(crate) image_name: String,
    /// What the image would run.
    pub(crate) command: String,
    /// When it was made, in seconds since 1970.
    pub(crate) created: i64,
    /// How its tree is shown.
    pub(crate) driver: Driver,
    /// It is removed when it is unmounted.
    pub(crate) temporary: bool,
    /// Where it was mounted last, when not in its own directory.
    pub(crate) mountpoint: Option<PathBuf>,
}

/// What is shown at a place of a container's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    /// A volume's name, or a directory of the machine.
    pub(crate) source: BindSource,
    /// The absolute path inside the container.
    pub(crate) target: PathBuf,
    /// Nothing can be changed through it.
    pub(crate) read_only: bool,
}

/// Where the content of a [`Bind`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BindSource {
    /// A volume of the store.
    Volume(String),
    /// A directory of the machine.
    Directory(PathBuf),
}

const CONTAINER: &str =
    "SELECT id, name, image, image_name, command, created, driver, temporary, mountpoint
    FROM containers";

fn container(row: &Row<'_>) -> rusqlite::Result<Container> {
    Ok(Container {
        id: row.get(0)?,
        name: row.get(1)?,
        image: row.get(2)?,
        image_name: row.get(3)?,
        command: row.get(4)?,
        created: row.get(5)?,
        driver: Driver::from_name(&row.get::<_, String>(6)?),
        temporary: row.get(7)?,
        mountpoint: row.get::<_, Option<Vec<u8>>>(8)?.map(path),
    })
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// Finds a container by name, or by id or its unique beginning.
///
/// # Errors
/// There is none, or several ids begin so.
pub(crate) fn resolve(db: &Connection, word: &str) -> Result<Container> {
    let mut statement = db.prepare_cached(&format!("{CONTAINER} WHERE name = ?1 OR id = ?1"))?;
    if let Some(found) = statement.query_row([word], container).optional()? {
        return Ok(found);
    }
    let mut found = Vec::new();
    if is_plain(word) {
        let mut statement = db.prepare_cached(&format!(
            "{CONTAINER} WHERE id GLOB ?1 || '*' OR name GLOB ?1 || '*' LIMIT 2"
        ))?;
        for row in statement.query_map([word], container)? {
            found.push(row?);
        }
    }
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(StoreError::not_found(
            format!("there is no container '{}'", word.escape_debug()),
            "see 'unionmount container ls'",
        )),
        _ => Err(StoreError::ambiguous(
            format!("several containers begin with '{word}'"),
            "give more of the one that is meant",
        )),
    }
}

/// A container by its whole id.
///
/// # Errors
/// Those of the catalog, as everywhere here.
pub(crate) fn find(db: &Connection, id: &str) -> Result<Option<Container>> {
    let mut statement = db.prepare_cached(&format!("{CONTAINER} WHERE id = ?"))?;
    Ok(statement.query_row([id], container).optional()?)
}

/// All containers, the newest first.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn all(db: &Connection) -> Result<Vec<Container>> {
    let mut statement =
        db.prepare_cached(&format!("{CONTAINER} ORDER BY created DESC, rowid DESC"))?;
    let rows = statement.query_map([], container)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether a name is taken.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn name_is_taken(db: &Connection, name: &str) -> Result<bool> {
    exists(db, "SELECT 1 FROM containers WHERE name = ?", [name])
}

/// Records a container over these layers, oldest first.
///
/// # Errors
/// Those of the catalog; the name is taken, a layer or a volume is not there.
pub(crate) fn insert(
    db: &Transaction<'_>,
    container: &Container,
    layers: &[DiffId],
    binds: &[Bind],
) -> Result<()> {
    db.prepare_cached("INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute((
            &container.id,
            &container.name,
            &container.image,
            &container.image_name,
            &container.command,
            container.created,
            container.driver.name(),
            container.temporary,
            container
                .mountpoint
                .as_ref()
                .map(|path| path.as_os_str().as_bytes()),
        ))?;
    let mut statement = db.prepare_cached("INSERT INTO container_layers VALUES (?, ?, ?)")?;
    for (position, diff_id) in (0_i64..).zip(layers) {
        statement.execute((&container.id, position, diff_id))?;
    }
    let mut statement = db.prepare_cached("INSERT INTO binds VALUES (?, ?, ?, ?, ?, ?)")?;
    for (position, bind) in (0_i64..).zip(binds) {
        let (volume, source) = match &bind.source {
            BindSource::Volume(name) => (Some(name), None),
            BindSource::Directory(path) => (None, Some(path.as_os_str().as_bytes())),
        };
        let target = bind.target.as_os_str().as_bytes();
        statement.execute((
            &container.id,
            position,
            volume,
            source,
            target,
            bind.read_only,
        ))?;
    }
    Ok(())
}

/// What is shown inside a container.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn binds_of(db: &Connection, id: &str) -> Result<Vec<Bind>> {
    let mut statement = db.prepare_cached(
        "SELECT volume, source, target, read_only FROM binds WHERE container = ? ORDER BY position",
    )?;
    let rows = statement.query_map([id], |row| {
        let source = match row.get::<_, Option<String>>(0)? {
            Some(name) => BindSource::Volume(name),
            None => BindSource::Directory(path(row.get(1)?)),
        };
        Ok(Bind {
            source,
            target: path(row.get(2)?),
            read_only: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records where a container is mounted.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn set_mountpoint(
    db: &Transaction<'_>,
    id: &str,
    mountpoint: Option<&std::path::Path>,
) -> Result<()> {
    db.execute(
        "UPDATE containers SET mountpoint = ? WHERE id = ?",
        (mountpoint.map(|path| path.as_os_str().as_bytes()), id),
    )?;
    Ok(())
}

/// Deletes the row of a container; returns whether there was one.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn delete(db: &Transaction<'_>, id: &str) -> Result<bool> {
    Ok(db.execute("DELETE FROM containers WHERE id = ?", [id])? > 0)
}

/// The names of the containers that have a layer.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn with_layer(db: &Connection, diff_id: &DiffId) -> Result<Vec<String>> {
    column(
        db,
        "SELECT name FROM container_layers JOIN containers ON container = id
         WHERE diff_id = ? ORDER BY name",
        [diff_id],
    )
}

/// The names of the containers made from an image.
///
/// # Errors
/// Those of the catalog.
pub(crate) fn of_image(db: &Connection, image: &ImageId) -> Result<Vec<String>> {
    column(
        db,
        "SELECT name FROM containers WHERE image = ? ORDER BY name",
        [image],
    )
}
