//! Containers: making, showing and removing them.
//!
//! A container is made in an area and renamed to its place before its row is committed, and its row goes before its
//! directory. Making one costs the same whatever the image holds: some directories and a row. Killed between, a
//! directory without a row is left, which the collector takes. After a power failure a row still stands for a whole container:
//! its directories and their names are on the disk before the transaction ends.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::mount::{Status, source_of};
use crate::archive::durable::{sync_disk_of, sync_names_in};
use crate::fuse::mountinfo::Mount;
use crate::store::Store;
use crate::store::base::{
    Area, Doing, PRIVATE, Result, StoreError,
    ids::check_name,
    ids::{DiffId, ImageId},
    ids::{name_for, random_id},
    lock, measure, time,
};
use crate::store::catalog::containers::{self, Bind, BindSource, Container, Driver};
use crate::store::catalog::layers;
use crate::store::image::documents::config::ImageConfig;
use crate::store::tree::changed_size;
use crate::store::tree::record_form;
use crate::store::tree::{copy_root, copy_tree};
use crate::store::volume;
use crate::union::{Config, NodeId, Union};

/// Names that are tried before another id is taken.
const NAME_ATTEMPTS: u32 = 1000;

/// What is shown in a container, as the user asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindRequest {
    /// `None` is a new volume without a name.
    pub(crate) source: Option<BindSource>,
    /// The absolute path inside the container.
    pub(crate) target: PathBuf,
    /// Nothing can be changed through it.
    pub(crate) read_only: bool,
    /// An empty volume stays empty.
    pub(crate) no_copy: bool,
}

/// A container that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewContainer {
    /// Name or id of the image.
    pub(crate) image: String,
    /// Its name; one is made up when missing.
    pub(crate) name: Option<String>,
    /// What is shown in it.
    pub(crate) binds: Vec<BindRequest>,
    /// How its tree is shown.
    pub(crate) driver: Driver,
    /// It goes when it is unmounted; volumes that the image declares are not made for it.
    pub(crate) temporary: bool,
    /// Where it will be mounted, when not in its own directory.
    pub(crate) mountpoint: Option<PathBuf>,
}

impl Store {
    /// Makes a container.
    ///
    /// # Errors
    /// There is no such image, the name is taken, a bind's source is not there, and those of the disk.
    pub(crate) fn create_container(&mut self, new: &NewContainer) -> Result<Container> {
        let (found, image) = self.find_image(&new.image)?;
        let config = ImageConfig::read(&image.config, &image.id.to_string())?;
        if let Some(name) = &new.name {
            check_name(name, "container")?;
        }
        let mut requests = new.binds.clone();
        // In a copy, what an image declares as a volume is a part of the copy.
        if !new.temporary && new.driver == Driver::Fuse {
            for target in config.volumes() {
                let target = PathBuf::from(target);
                if target.is_absolute() && !requests.iter().any(|bind| bind.target == target) {
                    requests.push(BindRequest {
                        source: None,
                        target,
                        read_only: false,
                        no_copy: false,
                    });
                }
            }
        }
        if new.driver == Driver::Vfs && !requests.is_empty() {
            return Err(StoreError::new(
                "volumes cannot be shown with the driver vfs",
                "use --driver fuse, or leave -v and --mount out and copy files into the container",
            ));
        }
        let image_union = Config {
            lowers: self.lowers_of_image(&image.id)?,
            ..Config::default()
        };
        let binds = self.prepare_binds(&requests, &image_union)?;
        let id = random_id()?;
        let area = Area::new(&self.paths)?;
        let built = area.join(&id);
        let private = |dir: &Path| {
            fs::DirBuilder::new()
                .mode(PRIVATE)
                .create(dir)
                .doing("mkdir", dir)
        };
        for dir in [&built, &built.join("merged")] {
            private(dir)?;
        }
        match new.driver {
            Driver::Fuse => {
                for name in ["upper", "work"] {
                    private(&built.join(name))?;
                }
                let root = self.root_layer(&image.id)?;
                copy_root(&root, &built.join("upper"), &built.join("work"))?;
            }
            Driver::Vfs => {
                let (union, work) = (Union::open(&image_union)?, area.join("work"));
                private(&work)?;
                copy_tree(
                    &union,
                    NodeId::ROOT,
                    &built.join("merged"),
                    &work,
                    record_form(),
                )?;
                // As with the other driver: of the newest layer that says what it looks like.
                let (root, work) = (self.root_layer(&image.id)?, area.join("work-of-root"));
                private(&work)?;
                copy_root(&root, &built.join("merged"), &work)?;
                sync_disk_of(&built).doing("syncfs", &built)?;
            }
        }
        let mut container = Container {
            id: id.clone(),
            name: String::new(),
            image: image.id,
            image_name: found
                .name
                .map_or_else(|| new.image.clone(), |name| name.to_string()),
            command: config.command(),
            created: time::now(),
            driver: new.driver,
            temporary: new.temporary,
            mountpoint: new.mountpoint.clone(),
        };
        let paths = self.paths.clone();
        self.catalog.change(|db| {
            container.name = match &new.name {
                Some(name) if containers::name_is_taken(db, name)? => {
                    return Err(StoreError::new(
                        format!("there is a container '{name}' already"),
                        "choose another name, or remove it (unionmount container rm)",
                    ));
                }
                Some(name) => name.clone(),
                None => free_name(db, &id)?,
            };
            let stack = layers::of_image(db, &image.id)?;
            if stack.is_empty() {
                return Err(StoreError::vanished(&new.image));
            }
            let stack: Vec<DiffId> = stack.into_iter().map(|layer| layer.diff_id).collect();
            let place = paths.container(&id);
            fs::rename(&built, &place).doing("rename", &built)?;
            for part in new.driver.parts() {
                let part = place.join(part);
                sync_names_in(&part).doing("fsync", &part)?;
            }
            for dir in [&place, &paths.containers()] {
                sync_names_in(dir).doing("fsync", dir)?;
            }
            for bind in &binds {
                if let BindSource::Volume(name) = &bind.source {
                    volume::make(db, &paths, &area, name, false)?;
                }
            }
            containers::insert(db, &container, &stack, &binds)
        })?;
        Ok(container)
    }

    /// The layer that says what the root directory of an image looks like, as a union.
    fn root_layer(&self, image: &ImageId) -> Result<Config> {
        let stack = layers::of_image(self.db(), image)?;
        let newest_first = || stack.iter().rev();
        let layer = newest_first()
            .find(|layer| layer.has_root)
            .or_else(|| newest_first().next())
            .ok_or_else(|| StoreError::vanished(&image.to_string()))?;
        Ok(Config {
            lowers: vec![self.paths.layer_tree(&layer.short)],
            ..Config::default()
        })
    }

    /// Makes the volumes that are missing, and fills those that are empty.
    fn prepare_binds(&mut self, requests: &[BindRequest], image: &Config) -> Result<Vec<Bind>> {
        let mut binds: Vec<Bind> = Vec::new();
        for request in requests {
            let target = request.target.clone();
            let problem = |what: &str| {
                StoreError::new(
                    format!("the mount target '{}' {what}", target.display()),
                    "give each mount an absolute path of its own inside the container",
                )
            };
            if !target.is_absolute() || target == Path::new("/") {
                return Err(problem("is not an absolute path below /"));
            }
            if target
                .components()
                .any(|part| part == std::path::Component::ParentDir)
            {
                return Err(problem("has '..' in it"));
            }
            if binds.iter().any(|bind| bind.target == target) {
                return Err(problem("is given twice"));
            }
            let source = match &request.source {
                Some(BindSource::Directory(path)) => {
                    BindSource::Directory(path.canonicalize().map_err(|error| {
                        StoreError::new(
                            format!("the mount source '{}': {error}", path.display()),
                            "create it first, or name a volume",
                        )
                    })?)
                }
                Some(BindSource::Volume(name)) => {
                    BindSource::Volume(self.create_volume(Some(name))?)
                }
                None => BindSource::Volume(self.create_volume(None)?),
            };
            if let BindSource::Volume(name) = &source
                && !request.no_copy
            {
                self.fill_volume(name, image, &target)?;
            }
            binds.push(Bind {
                source,
                target,
                read_only: request.read_only,
            });
        }
        Ok(binds)
    }

    /// Everything about a container.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn inspect_container(&mut self, word: &str, mounts: &[Mount]) -> Result<Value> {
        let container = containers::resolve(self.db(), word)?;
        let status = self.status(&container, mounts)?;
        let lowers: Vec<String> = self
            .lowers_of_container(&container.id)?
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let binds: Vec<Value> = self
            .binds_of(&container.id)?
            .iter()
            .map(|(bind, source)| {
                let (kind, name) = match &bind.source {
                    BindSource::Volume(name) => ("volume", name.as_str()),
                    BindSource::Directory(_) => ("bind", ""),
                };
                json!({
                    "Type": kind,
                    "Name": name,
                    "Source": source.to_string_lossy(),
                    "Destination": bind.target.to_string_lossy(),
                    "RW": !bind.read_only,
                })
            })
            .collect();
        let id = &container.id;
        let (size, virtual_size) = self.container_size(&container)?;
        Ok(json!({
            "Id": id,
            "Name": container.name,
            "Created": time::format(container.created),
            "Image": container.image,
            "ImageName": container.image_name,
            "Command": container.command,
            "State": { "Status": status_word(&status), "Mountpoint": mountpoint(&status) },
            "Temporary": container.temporary,
            "Driver": container.driver.name(),
            "GraphDriver": {
                "Name": "unionmount",
                "Data": {
                    "LowerDir": lowers.join(":"),
                    "UpperDir": self.paths.upper(id).to_string_lossy(),
                    "WorkDir": self.paths.container(id).join("work").to_string_lossy(),
                    "MergedDir": self.paths.merged(id).to_string_lossy(),
                    "Source": source_of(&self.paths, id),
                },
            },
            "Mounts": binds,
            "SizeRw": size,
            "SizeRootFs": virtual_size,
        }))
    }

    /// Docker's SIZE, the bytes of the writable layer (of a copy, what is new or different in it), and its virtual size,
    /// that and the image's layers together.
    ///
    /// # Errors
    /// The upper, or the copy and its image, cannot be read.
    pub(crate) fn container_size(&self, container: &Container) -> Result<(u64, u64)> {
        let layers = layers::of_container(self.db(), &container.id)?;
        let image: u64 = layers.iter().map(|layer| layer.size).sum();
        let own = match container.driver {
            Driver::Fuse => measure(&self.paths.upper(&container.id))?.size,
            Driver::Vfs => {
                let lowers = self.lowers_of_container(&container.id)?;
                changed_size(&lowers, &self.paths.merged(&container.id))?
            }
        };
        Ok((own, own.saturating_add(image)))
    }

    /// Removes a container that nobody uses, with its changes; with `volumes` also those of its volumes that have no name
    /// and no other user.
    ///
    /// # Errors
    /// There is none, or somebody uses it.
    pub(crate) fn remove_container(&mut self, word: &str, volumes: bool) -> Result<Container> {
        let container = containers::resolve(self.db(), word)?;
        let dir = self.paths.container(&container.id);
        let lock = match lock::exclude(&dir) {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Err(in_use(&container)),
            // The row is all that is left of it.
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

    /// Remembers where a container is going to be mounted.
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
        // What is so already needs no room on the disk.
        if found.is_none_or(|found| found.mountpoint.is_none()) {
            return Ok(());
        }
        self.catalog
            .change(|db| containers::set_mountpoint(db, id, None))
    }

    fn is_disposable(&self, volume: &str) -> Result<bool> {
        use crate::store::catalog::volumes;
        let found = volumes::find(self.db(), volume)?;
        Ok(found.is_some_and(|found| found.anonymous)
            && volumes::users(self.db(), volume)?.is_empty())
    }
}

/// The message when a container cannot be removed because somebody uses it.
#[must_use]
pub(crate) fn in_use(container: &Container) -> StoreError {
    StoreError::new(
        format!("container {} is mounted or in use", container.name),
        format!(
            "unmount it first (unionmount container umount {}), or use --force",
            container.name
        ),
    )
}

/// A status in one word.
#[must_use]
pub(crate) fn status_word(status: &Status) -> &'static str {
    match status {
        Status::Idle => "created",
        Status::Mounted(_) => "mounted",
        Status::Dead(_) => "dead",
        Status::Elsewhere => "in use",
        Status::Copied(_) => "copied",
    }
}

/// Where a container can be seen; empty when it cannot.
#[must_use]
pub(crate) fn mountpoint(status: &Status) -> String {
    match status {
        Status::Mounted(path) | Status::Dead(path) | Status::Copied(path) => {
            path.to_string_lossy().into_owned()
        }
        Status::Idle | Status::Elsewhere => String::new(),
    }
}

fn free_name(db: &rusqlite::Connection, id: &str) -> Result<String> {
    for attempt in 0..NAME_ATTEMPTS {
        let name = name_for(id, attempt);
        if !containers::name_is_taken(db, &name)? {
            return Ok(name);
        }
    }
    Ok(id.to_owned())
}
