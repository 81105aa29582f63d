//! An opened store: where things are, and the catalog. Each room adds its own operations.

use std::path::Path;

use crate::store::base::{Paths, Result, locate};
use crate::store::catalog::{self, Catalog};

/// An opened store.
#[derive(Debug)]
pub(crate) struct Store {
    pub(in crate::store) paths: Paths,
    pub(in crate::store) catalog: Catalog,
}

impl Store {
    /// Opens the store that a command works on, and makes it when there is none; see [`locate`].
    ///
    /// # Errors
    /// It cannot be made or opened, it belongs to another user, others may write it, or it has lost
    /// its catalog.
    pub(crate) fn open(root: Option<&Path>) -> Result<Self> {
        let paths = locate(root)?;
        paths.refuse_foreign()?;
        catalog::refuse_lost(&paths)?;
        paths.create()?;
        // Symlinks on the way were not there to be resolved before it was made.
        let paths = locate(Some(paths.root()))?;
        let catalog = Catalog::open(&paths)?;
        Ok(Self { paths, catalog })
    }

    /// Where things are.
    #[must_use]
    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The catalog, for reading.
    #[must_use]
    pub(in crate::store) fn db(&self) -> &rusqlite::Connection {
        self.catalog.read()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn an_empty_directory_of_somebody_else_stays_empty() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(1000), None).unwrap();
        let message = Store::open(Some(dir.path())).unwrap_err().to_string();
        assert!(message.contains("belongs to user 1000"), "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
