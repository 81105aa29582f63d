//! Removing a container, and what is remembered of where it is mounted.

use std::path::Path;

use super::mount::in_use;
use crate::store::Store;
use crate::store::base::{Area, Result, StoreError, lock};
use crate::store::catalog::containers::{self, BindSource, Container};
use crate::store::catalog::volumes;

impl Store {
    /// Removes a container that is not in use, with its changes; with `volumes` also those of its
    /// volumes that have no name and no other user.
    ///
    /// # Errors
    /// There is none, or it is in use.
    pub(crate) fn remove_container(&mut self, word: &str, volumes: bool) -> Result<Container> {
        let container = containers::resolve(self.db(), word)?;
        let dir = self.paths.container(&container.id);
        let lock = match lock::exclude(&dir) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Err(in_use(&container)),
            // Its directory is gone; only the row is there.
            Err(_) if !dir.exists() => None,
            Err(error) => return Err(error),
        };
        let binds = containers::binds_of(self.db(), &container.id)?;
        self.catalog.change(|db| {
            if !containers::delete(db, &container.id)? {
                return Err(StoreError::vanished(word));
            }
            Ok(())
        })?;
        let paths = &self.paths;
        let taken = self.catalog.change(|_| Area::of(paths, &dir, lock))?;
        drop(taken);
        for bind in binds {
            if let BindSource::Volume(name) = bind.source
                && volumes
                && self.is_disposable(&name)?
            {
                self.remove_volume(&name)?;
            }
        }
        self.collect_layers()?;
        Ok(container)
    }

    /// Records where a container is going to be mounted.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn note_mountpoint(&mut self, id: &str, mountpoint: &Path) -> Result<()> {
        self.catalog
            .change(|db| containers::set_mountpoint(db, id, Some(mountpoint)))
    }

    /// Forgets where a container was mounted.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn forget_mountpoint(&mut self, id: &str) -> Result<()> {
        let found = containers::find(self.db(), id)?;
        // Nothing is written when nothing changes: the disk may be full.
        if found.is_none_or(|found| found.mountpoint.is_none()) {
            return Ok(());
        }
        self.catalog
            .change(|db| containers::set_mountpoint(db, id, None))
    }

    fn is_disposable(&self, volume: &str) -> Result<bool> {
        let found = volumes::find(self.db(), volume)?;
        Ok(found.is_some_and(|found| found.anonymous)
            && volumes::users(self.db(), volume)?.is_empty())
    }
}
