//! Volumes: directories that outlive containers.

use rusqlite::{Connection, OptionalExtension, Row, Transaction};

use super::sql::{column, exists, is_plain};
use crate::store::base::{Result, StoreError};

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Volume {
    /// Its name.
    pub(in crate::store) name: String,
    /// When it was made, in seconds since 1970.
    pub(in crate::store) created: i64,
    /// It was created without a name: `prune` removes it.
    pub(in crate::store) anonymous: bool,
}

fn volume(row: &Row<'_>) -> rusqlite::Result<Volume> {
    Ok(Volume {
        name: row.get(0)?,
        created: row.get(1)?,
        anonymous: row.get(2)?,
    })
}

const VOLUME: &str = "SELECT name, created, anonymous FROM volumes";

/// A volume by its whole name.
///
/// # Errors
/// Those of the catalog, as everywhere here.
pub(in crate::store) fn find(db: &Connection, name: &str) -> Result<Option<Volume>> {
    let mut statement = db.prepare_cached(&format!("{VOLUME} WHERE name = ?"))?;
    Ok(statement.query_row([name], volume).optional()?)
}

/// Finds a volume by name or its unique beginning.
///
/// # Errors
/// There is none, or several names begin so.
pub(in crate::store) fn resolve(db: &Connection, word: &str) -> Result<Volume> {
    if let Some(found) = find(db, word)? {
        return Ok(found);
    }
    let mut found = Vec::new();
    if is_plain(word) {
        let mut statement =
            db.prepare_cached(&format!("{VOLUME} WHERE name GLOB ? || '*' LIMIT 2"))?;
        for row in statement.query_map([word], volume)? {
            found.push(row?);
        }
    }
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(StoreError::not_found(
            format!("there is no volume '{}'", word.escape_debug()),
            "see 'unionmount volume ls'",
        )),
        _ => Err(StoreError::ambiguous(
            format!("several volumes begin with '{word}'"),
            "give more of the one that is meant",
        )),
    }
}

/// All volumes by name.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn all(db: &Connection) -> Result<Vec<Volume>> {
    let mut statement = db.prepare_cached(&format!("{VOLUME} ORDER BY name"))?;
    let rows = statement.query_map([], volume)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records a volume.
///
/// # Errors
/// Those of the catalog; it is there already.
pub(in crate::store) fn insert(db: &Transaction<'_>, volume: &Volume) -> Result<()> {
    db.execute(
        "INSERT INTO volumes VALUES (?, ?, ?)",
        (&volume.name, volume.created, volume.anonymous),
    )?;
    Ok(())
}

/// Deletes the row of a volume, and records that its directory is to be removed: a directory with
/// content for which there is neither row nor such a record comes from a catalog that was lost.
///
/// # Errors
/// Those of the catalog; a container uses it.
pub(in crate::store) fn delete(db: &Transaction<'_>, name: &str) -> Result<()> {
    db.execute("DELETE FROM volumes WHERE name = ?", [name])?;
    db.execute("INSERT OR IGNORE INTO doomed_volumes VALUES (?)", [name])?;
    Ok(())
}

/// Whether a volume's directory is still to be removed.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn is_being_removed(db: &Connection, name: &str) -> Result<bool> {
    exists(db, "SELECT 1 FROM doomed_volumes WHERE name = ?", [name])
}

/// The directory is gone, or in use again.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn end_removal(db: &Transaction<'_>, name: &str) -> Result<()> {
    db.execute("DELETE FROM doomed_volumes WHERE name = ?", [name])?;
    Ok(())
}

/// The names of the containers that use a volume.
///
/// # Errors
/// Those of the catalog.
pub(in crate::store) fn users(db: &Connection, name: &str) -> Result<Vec<String>> {
    column(
        db,
        "SELECT DISTINCT containers.name FROM binds JOIN containers ON container = containers.id
         WHERE volume = ? ORDER BY 1",
        [name],
    )
}
