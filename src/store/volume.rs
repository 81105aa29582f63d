//! Volumes: directories that containers share and that outlive them.
//!
//! A volume is made in an area and renamed to its place before its row is committed. It is filled
//! from an image by renaming a complete copy over the empty directory. Killed between, there is an
//! empty volume, or a directory without a row. What is renamed, and its name, are on the disk
//! before the row is: so it is after a power failure, too.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rusqlite::Transaction;
use serde::Serialize;

use crate::archive::disk::{sync_disk_of, sync_names_in};
use crate::store::Store;
use crate::store::base::{
    Area, Context, PRIVATE, Paths, Result, StoreError, data_of, ids::check_name, ids::random_id,
    is_empty, lock, measure, time,
};
use crate::store::catalog::volumes::{self, Volume};
use crate::store::tree::{copy_tree, find_dir};
use crate::union::{Config, Union};

/// The mode of a new volume's content, as docker makes it.
const DATA_MODE: u32 = 0o755;

/// A volume as commands show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VolumeView {
    /// Always `local`.
    pub(crate) driver: &'static str,
    /// Its name.
    pub(crate) name: String,
    /// Its directory.
    pub(crate) mountpoint: String,
    /// In RFC 3339.
    pub(crate) created_at: String,
    /// It was created without a name.
    pub(crate) anonymous: bool,
    /// Always `local`.
    pub(crate) scope: &'static str,
    /// The containers that use it.
    pub(crate) containers: Vec<String>,
}

impl Store {
    /// Makes a volume; one that is there stays as it is. Without a name it gets a random one.
    ///
    /// # Errors
    /// The name is not valid, and those of the disk.
    pub(crate) fn create_volume(&mut self, name: Option<&str>) -> Result<String> {
        let (name, anonymous) = match name {
            Some(name) => (name.to_owned(), false),
            None => (random_id()?, true),
        };
        check_name(&name, "volume")?;
        if volumes::find(self.db(), &name)?.is_some() {
            return Ok(name);
        }
        let area = Area::new(&self.paths)?;
        let paths = self.paths.clone();
        self.catalog
            .change(|db| make(db, &paths, &area, &name, anonymous))?;
        Ok(name)
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn volumes(&mut self) -> Result<Vec<VolumeView>> {
        let all = volumes::all(self.db())?;
        all.into_iter()
            .map(|volume| self.volume_view(volume))
            .collect()
    }

    /// One volume by name or its beginning.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn inspect_volume(&mut self, word: &str) -> Result<VolumeView> {
        let volume = volumes::resolve(self.db(), word)?;
        self.volume_view(volume)
    }

    fn volume_view(&self, volume: Volume) -> Result<VolumeView> {
        let mountpoint = self.paths.volume_data(&volume.name);
        Ok(VolumeView {
            driver: "local",
            mountpoint: mountpoint.to_string_lossy().into_owned(),
            created_at: time::format(volume.created),
            anonymous: volume.anonymous,
            scope: "local",
            containers: volumes::users(self.db(), &volume.name)?,
            name: volume.name,
        })
    }

    /// Removes a volume with everything in it.
    ///
    /// # Errors
    /// There is none, or a container uses it.
    pub(crate) fn remove_volume(&mut self, word: &str) -> Result<String> {
        let name = self.catalog.change(|db| {
            let volume = volumes::resolve(db, word)?;
            let users = volumes::users(db, &volume.name)?;
            if !users.is_empty() {
                return Err(StoreError::in_use(
                    format!(
                        "volume {} is used by container {}",
                        volume.name,
                        users.join(", ")
                    ),
                    "remove the containers first (unionmount container rm)",
                ));
            }
            volumes::delete(db, &volume.name)?;
            Ok(volume.name)
        })?;
        self.delete_volume_dir(&name)?;
        Ok(name)
    }

    fn delete_volume_dir(&mut self, name: &str) -> Result<()> {
        let paths = &self.paths;
        let place = paths.volumes().join(name);
        let taken = self.catalog.change(|db| {
            Ok(match volumes::find(db, name)? {
                None => Area::of(paths, &place, None)?,
                Some(_) => None,
            })
        })?;
        // After a power failure its directory may be back under its name: until that cannot happen
        // it stays recorded as one that is being removed, so that it is not taken for a volume of a
        // lost catalog.
        sync_names_in(&paths.volumes()).context("fsync", &place)?;
        drop(taken);
        self.catalog.change(|db| volumes::end_removal(db, name))
    }

    /// Removes the volumes that no container uses; with `all` also those that have a name. Returns
    /// their names and the bytes that they took.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(crate) fn prune_volumes(&mut self, all: bool) -> Result<(Vec<String>, u64)> {
        let gone = self.catalog.change(|db| {
            let mut gone = Vec::new();
            for volume in volumes::all(db)? {
                if (all || volume.anonymous) && volumes::users(db, &volume.name)?.is_empty() {
                    volumes::delete(db, &volume.name)?;
                    gone.push(volume.name);
                }
            }
            Ok(gone)
        })?;
        let mut freed = 0;
        for name in &gone {
            freed += measure(&self.paths.volumes().join(name))?.disk;
            self.delete_volume_dir(name)?;
        }
        Ok((gone, freed))
    }

    /// Copies an image's directory into a volume that is empty, as docker does when a container is
    /// made. A volume in use, one that holds something, and a directory that the image does not
    /// have are left alone.
    ///
    /// # Errors
    /// The disk is full, or the image cannot be read.
    pub(super) fn fill_volume(&mut self, name: &str, image: &Config, target: &Path) -> Result<()> {
        let data = self.paths.volume_data(name);
        if !is_empty(&data)? {
            return Ok(());
        }
        let union = Union::open(image)?;
        let Some(dir) = find_dir(&union, target)? else {
            return Ok(());
        };
        let area = Area::new(&self.paths)?;
        let (copy, work) = (area.join("data"), area.join("work"));
        for dir in [&copy, &work] {
            fs::DirBuilder::new()
                .mode(DATA_MODE)
                .create(dir)
                .context("mkdir", dir)?;
        }
        copy_tree(&union, &dir, &copy, &work, None)?;
        sync_disk_of(&copy).context("syncfs", &copy)?;
        let place = self.paths.volumes().join(name);
        self.catalog.change(|db| {
            // No container begins to use it during this transaction, and none that uses it loses
            // its directory.
            let in_use = lock::exclude(&data)?.is_none();
            if in_use || volumes::find(db, name)?.is_none() || !is_empty(&data)? {
                return Ok(());
            }
            fs::rename(&copy, &data).context("rename", &copy)?;
            sync_names_in(&place).context("fsync", &place)
        })
    }
}

/// Makes a volume inside a transaction, unless it is there.
pub(super) fn make(
    db: &Transaction<'_>,
    paths: &Paths,
    area: &Area,
    name: &str,
    anonymous: bool,
) -> Result<()> {
    if volumes::find(db, name)?.is_some() {
        return Ok(());
    }
    let built = area.join(&format!("volume-{name}"));
    fs::DirBuilder::new()
        .mode(PRIVATE)
        .create(&built)
        .context("mkdir", &built)?;
    let data = built.join("_data");
    fs::create_dir(&data).context("mkdir", &data)?;
    fs::set_permissions(
        &data,
        std::os::unix::fs::PermissionsExt::from_mode(DATA_MODE),
    )
    .context("chmod", &data)?;
    let place = paths.volumes().join(name);
    // A killed command may have left one without a row.
    if place.exists() && !is_empty(&data_of(&place))? && !volumes::is_being_removed(db, name)? {
        return Err(StoreError::conflict(
            format!(
                "'{}' holds data, but the catalog does not know this volume",
                place.display()
            ),
            "take it over with 'unionmount system check --repair', or move it away",
        ));
    }
    area.take(&place, &format!("old-{name}"))?;
    volumes::end_removal(db, name)?;
    fs::rename(&built, &place).context("rename", &built)?;
    for dir in [&data_of(&place), &place, &paths.volumes()] {
        sync_names_in(dir).context("fsync", dir)?;
    }
    let volume = Volume {
        name: name.to_owned(),
        created: time::now(),
        anonymous,
    };
    volumes::insert(db, &volume)
}
