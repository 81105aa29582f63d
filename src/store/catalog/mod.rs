//! The catalog: what refers to what. One SQLite file, which any number of commands use at a time.
//!
//! Every change is one transaction that begins by taking the write lock (`BEGIN IMMEDIATE`), so
//! that a command that changes something has seen the state that it changes. Files follow these
//! rules, in which a crash between two steps leaves nothing but something unreferenced:
//!
//! * what is new is built in an area (`base/area.rs`), renamed to its place *inside* the
//!   transaction, and then committed: killed before the commit, it is in its place without a row,
//!   where the next command that needs the place moves it away and the collector (`collect.rs`)
//!   finds it;
//! * what goes loses its row first; then, in a second transaction that has seen that no new row
//!   came meanwhile, it is renamed into an area, and then it is deleted.
//!
//! The catalog is made before anything gets a place beside it. So a store that has layers or
//! containers and no catalog has lost it: it is refused, since in a new catalog all of them would
//! be leftovers.
//!
//! Commits survive kill -9, and power failures where the disk keeps what it has synced
//! (`synchronous=FULL`). On a full disk the catalog can be read, and what frees space can be
//! written (`space.rs`).

pub(in crate::store) mod containers;
pub(in crate::store) mod images;
pub(in crate::store) mod layers;
mod space;
mod sql;
mod tables;
pub(in crate::store) mod volumes;

use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use tables::{TABLES, VERSION};

use crate::archive::disk::sync_names_in;
use crate::cancel::WholeStep;
use crate::store::base::{Context, Paths, Result, StoreError};

/// How long a command waits for another one's transaction.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many pages of 4 KiB the log has before it is copied into the catalog: what it takes is a
/// store's, not a container's.
const LOG_PAGES: i64 = 32;

/// The catalog, opened.
#[derive(Debug)]
pub(in crate::store) struct Catalog {
    paths: Paths,
    connection: Connection,
    /// Other commands wait, since the index of its log is in this process's memory.
    is_alone: bool,
}

impl Catalog {
    /// Opens the catalog of a store, and makes it when there is none.
    ///
    /// # Errors
    /// It cannot be opened or made, it is damaged, or a later version of this program made it.
    pub(in crate::store) fn open(paths: &Paths) -> Result<Self> {
        let is_alone = space::is_short(paths);
        let mut catalog = Self {
            paths: paths.clone(),
            connection: connect(paths, is_alone)?,
            is_alone,
        };
        match version(&catalog.connection)? {
            VERSION => {}
            0 => catalog.make_tables(paths)?,
            later => {
                return Err(StoreError::unsupported(
                    format!("the store '{}' has version {later}", paths.root().display()),
                    "use the newer unionmount that made it, or another --root",
                ));
            }
        }
        Ok(catalog)
    }

    /// Opens it once more when the disk became full since: then the index of the log must not be
    /// mapped any more.
    fn keep_off_a_full_disk(&mut self) -> Result<()> {
        if self.is_alone || !space::is_short(&self.paths) {
            return Ok(());
        }
        // It waits for all who have it open, and that must not be this one.
        self.connection = Connection::open_in_memory()?;
        self.connection = connect(&self.paths, true)?;
        self.is_alone = true;
        Ok(())
    }

    fn make_tables(&mut self, paths: &Paths) -> Result<()> {
        self.change(|db| {
            // Another command may have made them meanwhile.
            if version(db)? == 0 {
                // An empty file is as good as none. No other command can add anything before this
                // is committed.
                if has_content(paths)? {
                    return Err(lost(paths));
                }
                db.execute_batch(TABLES)?;
                db.pragma_update(None, "user_version", VERSION)?;
            }
            sync_names_in(paths.root()).context("fsync", paths.root())
        })
    }

    /// For reading. Several reads that must agree belong into [`Catalog::view`].
    #[must_use]
    pub(in crate::store) fn read(&self) -> &Connection {
        &self.connection
    }

    /// Several reads of one state.
    ///
    /// # Errors
    /// Those of `look`, and of the catalog.
    pub(in crate::store) fn view<T>(
        &mut self,
        look: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        self.keep_off_a_full_disk()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Deferred)?;
        look(&transaction)
    }

    /// One change: all of it or nothing. Other commands wait while `change` runs.
    ///
    /// # Errors
    /// Those of `change`, which undo it, and of the catalog.
    pub(in crate::store) fn change<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.keep_off_a_full_disk()?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A command that is interrupted publishes nothing any more.
        let _whole = WholeStep::begin()?;
        let result = change(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// What SQLite finds wrong with the file itself; nothing when it is sound.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(in crate::store) fn damages(&self) -> Result<Vec<String>> {
        let mut statement = self.connection.prepare("PRAGMA integrity_check")?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut damages: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
        damages.retain(|line| line != "ok");
        let mut statement = self.connection.prepare("PRAGMA foreign_key_check")?;
        let found = statement.query_map([], |row| {
            Ok(format!(
                "a row of {} refers to a row of {} that is not there",
                row.get::<_, String>(0)?,
                row.get::<_, String>(2)?
            ))
        })?;
        for line in found {
            damages.push(line?);
        }
        Ok(damages)
    }
}

/// Opens the file, for this process alone or for all. What is new is on the disk under its name.
fn connect(paths: &Paths, is_alone: bool) -> Result<Connection> {
    let file = paths.catalog();
    // SQLite would make it with the umask's mode; the other files of the catalog take this one's.
    let made = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&file)
        .context("open", &file)?;
    space::keep_for_catalog(&made);
    drop(made);
    let connection = Connection::open(&file)?;
    connection.busy_timeout(PATIENCE)?;
    if is_alone {
        connection.pragma_update(None, "locking_mode", "exclusive")?;
    }
    connection.pragma_update(None, "journal_mode", "wal")?;
    // The log is synced once for each change, which is then on the disk. That it were copied into
    // the catalog whenever a command ends would take three syncs more, so that waits until there is
    // something to copy; what it takes to read the log again is bounded by that.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The log is made when the catalog is read first.
    version(&connection)?;
    space::keep_for_log(&file.with_extension("sqlite-wal"));
    Ok(connection)
}

fn version(db: &Connection) -> Result<i64> {
    Ok(db.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Refuses a store whose catalog is gone while its layers or containers are there. Changes nothing.
///
/// # Errors
/// It is so, or the directories cannot be read.
pub(in crate::store) fn refuse_lost(paths: &Paths) -> Result<()> {
    let is_there = || {
        let file = paths.catalog();
        file.try_exists().context("stat", &file)
    };
    // Looked at again: another first command may have made the catalog and what it describes
    // between the two looks.
    if !is_there()? && has_content(paths)? && !is_there()? {
        return Err(lost(paths));
    }
    Ok(())
}

/// Whether anything has a place in the store that only a catalog can explain.
fn has_content(paths: &Paths) -> Result<bool> {
    for dir in [paths.containers(), paths.layers()] {
        match std::fs::read_dir(&dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("read", &dir),
        }
    }
    Ok(false)
}

fn lost(paths: &Paths) -> StoreError {
    StoreError::damaged(
        format!(
            "the catalog '{}' is missing or empty, and the store has layers or containers",
            paths.catalog().display()
        ),
        "restore it from a backup, or move the directories containers and layers away to begin a new store",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_catalog_is_made_once_and_refuses_what_it_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().to_owned());
        Catalog::open(&paths).unwrap();
        let mut catalog = Catalog::open(&paths).unwrap();
        assert!(catalog.damages().unwrap().is_empty());
        let failed: Result<()> = catalog.change(|db| {
            db.execute("INSERT INTO volumes VALUES ('v', 1, 0)", [])?;
            Err(StoreError::invalid("no", "none"))
        });
        assert!(failed.is_err());
        assert!(!sql::exists(catalog.read(), "SELECT 1 FROM volumes", []).unwrap());
        catalog
            .connection
            .pragma_update(None, "user_version", VERSION + 1)
            .unwrap();
        drop(catalog);
        let message = Catalog::open(&paths).unwrap_err().to_string();
        assert!(message.contains("newer unionmount"), "{message}");
        // The log has the newer pages.
        std::fs::remove_file(paths.catalog().with_extension("sqlite-wal")).unwrap();
        std::fs::write(
            paths.catalog(),
            "this is no database, however long it may be",
        )
        .unwrap();
        let message = Catalog::open(&paths).unwrap_err().to_string();
        assert!(message.contains("backup"), "{message}");
    }
}
