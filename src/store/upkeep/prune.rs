//! `system prune`: removing what nothing uses.

use serde::Serialize;

use crate::store::Store;
use crate::store::base::{Result, time};
use crate::store::catalog::containers::{self, Container};
use crate::store::catalog::images;
use crate::store::collect::Collected;
use crate::store::container::{Status, mounts};
use crate::sys::mountinfo::Mount;

/// What `system prune` may remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PruneOptions {
    /// Images that no container was made from, not only those without a name.
    pub(crate) all: bool,
    /// Volumes without a name that no container uses.
    pub(crate) volumes: bool,
}

/// What `system prune` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Pruned {
    /// Temporary containers that are not in use any more.
    pub(crate) containers: Vec<String>,
    /// Images.
    pub(crate) images: Vec<String>,
    /// Layers.
    pub(crate) layers: Vec<String>,
    /// Volumes.
    pub(crate) volumes: Vec<String>,
    /// Leftovers of commands that were killed.
    pub(crate) leftovers: usize,
    /// Bytes.
    pub(crate) space_reclaimed: u64,
}

impl Store {
    /// Removes what is not in use.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(crate) fn prune(&mut self, options: PruneOptions) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let mounts = mounts()?;
        for container in containers::all(self.db())? {
            if self.is_stale(&container, &mounts)? {
                self.remove_container(&container.id, false)?;
                pruned.containers.push(container.name);
            }
        }
        let images = self.catalog.change(|db| {
            let mut gone = images::dangling(db)?;
            if options.all {
                gone = images::all(db)?.into_iter().map(|image| image.id).collect();
            }
            let mut removed = Vec::new();
            for id in gone {
                if !images::is_used(db, &id)? {
                    images::delete(db, &id)?;
                    removed.push(id);
                }
            }
            Ok(removed)
        })?;
        let mut collected: Collected = self.collect_layers()?;
        if options.volumes {
            let (names, freed) = self.prune_volumes(false)?;
            pruned.volumes = names;
            collected.freed += freed;
        }
        collected.add(self.delete_image_files(&images)?);
        pruned.images = images.iter().map(ToString::to_string).collect();
        collected.add(self.collect_leftovers()?);
        pruned.layers = collected.layers.iter().map(ToString::to_string).collect();
        pruned.leftovers = collected.leftovers;
        pruned.space_reclaimed = collected.freed;
        Ok(pruned)
    }

    /// A temporary container whose mount has ended without `umount`.
    fn is_stale(&self, container: &Container, mounts: &[Mount]) -> Result<bool> {
        // One that was made a moment ago may be about to be mounted.
        const YOUNG: i64 = 60;
        Ok(container.temporary
            && time::now() - container.created > YOUNG
            && self.status(container, mounts)? == Status::Idle)
    }
}
