//! Deleting what nothing refers to.
//!
//! Rows are deleted first, in one transaction (see [`catalog`](crate::store::catalog)). Then each
//! directory whose row is gone becomes an area itself, in a transaction that sees that no new row
//! came meanwhile, and is deleted there. Nothing is made for that: it works on a disk without room.
//! Killed between any two steps, directories without rows stay: the next collection finds them, as
//! it finds the areas of commands that were killed.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction};

use crate::store::Store;
use crate::store::base::{
    Area, Context, Result, abandoned, config_file, data_of,
    ids::{DiffId, ImageId},
    is_empty,
    lock::is_locked,
    measure,
};
use crate::store::catalog::layers::{self, Layer};
use crate::store::catalog::{containers, images};

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Collected {
    /// Layers, by diffID.
    pub(in crate::store) layers: Vec<DiffId>,
    /// Directories without a row, and areas of commands that were killed.
    pub(in crate::store) leftovers: usize,
    /// Bytes on the disk that were freed.
    pub(in crate::store) freed: u64,
}

impl Collected {
    /// Adds up two collections.
    pub(in crate::store) fn add(&mut self, other: Self) {
        self.layers.extend(other.layers);
        self.leftovers += other.leftovers;
        self.freed = self.freed.saturating_add(other.freed);
    }
}

impl Store {
    /// Deletes the layers and archives that no image and no container has any more.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(in crate::store) fn collect_layers(&mut self) -> Result<Collected> {
        let gone = self.catalog.change(layers::forget_unreferenced)?;
        self.delete_layers(&gone)
    }

    fn delete_layers(&mut self, gone: &[Layer]) -> Result<Collected> {
        let mut collected = Collected::default();
        for layer in gone {
            let paths = &self.paths;
            let place = paths.layer(&layer.short);
            let taken = self.catalog.change(|db| {
                let is_back = layers::shorts(db)?.contains(&layer.short);
                if is_back {
                    return Ok(None);
                }
                Area::of(paths, &place, None)
            })?;
            if let Some(taken) = taken {
                collected.freed += measure(taken.dir())?.disk;
                collected.layers.push(layer.diff_id);
            }
        }
        Ok(collected)
    }

    /// Deletes the files of images whose rows are gone.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(super) fn delete_image_files(&mut self, ids: &[ImageId]) -> Result<Collected> {
        let mut collected = Collected::default();
        for id in ids {
            let name = config_file(id);
            let place = self.paths.images().join(&name);
            let paths = &self.paths;
            let taken = self.catalog.change(|db| {
                if !paths.is_orphan(db, &place)? {
                    return Ok(None);
                }
                Area::of(paths, &place, None)
            })?;
            if let Some(taken) = taken {
                collected.freed += measure(taken.dir())?.disk;
            }
        }
        Ok(collected)
    }

    /// Deletes everything in the store's directories without a row in the catalog, and what killed
    /// commands left. Nothing that a living command works on is touched.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(in crate::store) fn collect_leftovers(&mut self) -> Result<Collected> {
        let mut collected = Collected::default();
        for area in abandoned(&self.paths)? {
            collected.leftovers += 1;
            collected.freed += measure(area.dir())?.disk;
        }
        for orphan in &self.orphans()? {
            if is_locked(orphan)? {
                // It is still mounted or about to be.
                continue;
            }
            let paths = &self.paths;
            let taken = self.catalog.change(|db| {
                if !paths.is_orphan(db, orphan)? || paths.is_lost_volume(db, orphan)? {
                    return Ok(None);
                }
                Area::of(paths, orphan, None)
            })?;
            if let Some(taken) = taken {
                collected.leftovers += 1;
                collected.freed += measure(taken.dir())?.disk;
            }
        }
        Ok(collected)
    }

    /// What lies in the store's directories without a row. Other commands wait meanwhile: what one
    /// of them is moving to its place is none.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(in crate::store) fn orphans(&mut self) -> Result<Vec<PathBuf>> {
        let paths = self.paths.clone();
        self.catalog.change(|db| {
            let mut found = Vec::new();
            let known = known(db)?;
            for dir in paths.kinds() {
                for entry in fs::read_dir(&dir).context("read", &dir)? {
                    let path = entry.context("read", &dir)?.path();
                    if !known.contains(path.strip_prefix(paths.root()).unwrap_or(&path)) {
                        found.push(path);
                    }
                }
            }
            // Archives in the directories of layers.
            for layer in layers::all(db)? {
                let dir = paths.layer(&layer.short);
                let Ok(listed) = fs::read_dir(&dir) else {
                    continue;
                };
                let blobs = layers::blobs_of(db, &layer.diff_id)?;
                for entry in listed {
                    let entry = entry.context("read", &dir)?;
                    let name = entry.file_name();
                    let is_known =
                        name == "diff" || blobs.iter().any(|blob| *blob.file_name() == *name);
                    if !is_known {
                        found.push(entry.path());
                    }
                }
            }
            found.sort();
            Ok(found)
        })
    }
}

/// The directories and files that rows stand for, from the root of the store.
fn known(db: &Connection) -> Result<HashSet<PathBuf>> {
    let mut known = HashSet::new();
    for short in layers::shorts(db)? {
        known.insert(Path::new("layers").join(short));
    }
    for image in images::all(db)? {
        known.insert(Path::new("images").join(config_file(&image.id)));
    }
    for container in containers::all(db)? {
        known.insert(Path::new("containers").join(container.id));
    }
    for volume in crate::store::catalog::volumes::all(db)? {
        known.insert(Path::new("volumes").join(volume.name));
    }
    Ok(known)
}

impl crate::store::base::Paths {
    /// The directories whose entries have rows.
    fn kinds(&self) -> [PathBuf; 4] {
        [
            self.layers(),
            self.images(),
            self.containers(),
            self.volumes(),
        ]
    }

    /// Whether a directory is a volume with content that no command removed: a leftover of a
    /// catalog that was lost.
    pub(super) fn is_lost_volume(&self, db: &Connection, path: &Path) -> Result<bool> {
        let Ok(name) = path.strip_prefix(self.volumes()) else {
            return Ok(false);
        };
        let name = name.to_string_lossy();
        Ok(!is_empty(&data_of(path))?
            && !crate::store::catalog::volumes::is_being_removed(db, &name)?)
    }

    /// Whether something still has no row.
    fn is_orphan(&self, db: &Transaction<'_>, path: &Path) -> Result<bool> {
        let inside = path.strip_prefix(self.root()).unwrap_or(path);
        let mut parts = inside.iter().map(|part| part.to_string_lossy());
        let kind = parts.next().unwrap_or_default();
        let name = parts.next().unwrap_or_default();
        let file = parts.next();
        Ok(match (&*kind, file) {
            ("layers", None) => !layers::shorts(db)?.contains(&name.into_owned()),
            ("layers", Some(file)) => {
                let hex = file.strip_prefix("blob-").unwrap_or_default();
                let is_known = match format!("sha256:{hex}").parse() {
                    Ok(digest) => layers::find_blob(db, &digest)?.is_some(),
                    Err(_) => file == "diff",
                };
                !is_known
            }
            ("images", _) => {
                let all = images::all(db)?;
                !all.iter().any(|image| config_file(&image.id) == name)
            }
            ("containers", _) => containers::find(db, &name)?.is_none(),
            ("volumes", _) => crate::store::catalog::volumes::find(db, &name)?.is_none(),
            _ => false,
        })
    }
}
