//! Making a container: planned, built in an area, published.
//!
//! A container is made in an area and renamed to its place before its row is committed, and its row
//! goes before its directory. Making one costs the same whatever the image holds: some directories
//! and a row. Killed between, a directory without a row is left, which the collector takes. After a
//! power failure a row still stands for a whole container: its directories and their names are on
//! the disk before the transaction ends.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use super::binds::BindRequest;
use crate::archive::disk::{sync_disk_of, sync_names_in};
use crate::store::Store;
use crate::store::base::ids::{DiffId, ImageId, check_name, name_for, random_id};
use crate::store::base::{Area, Context, PRIVATE, Paths, Result, StoreError, time};
use crate::store::catalog::containers::{self, Bind, BindSource, Container, Driver};
use crate::store::catalog::layers;
use crate::store::image::documents::config::ImageConfig;
use crate::store::tree::{copy_root, copy_tree, record_form};
use crate::store::volume;
use crate::union::{Config, Union};

/// Names that are tried before another id is taken.
const NAME_ATTEMPTS: u32 = 1000;

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
    /// It is removed when it is unmounted; volumes that the image declares are not made for it.
    pub(crate) temporary: bool,
    /// Where it will be mounted, when not in its own directory.
    pub(crate) mountpoint: Option<PathBuf>,
}

impl Store {
    /// Makes a container.
    ///
    /// # Errors
    /// There is no such image, the name is taken, a bind's source is not there, and those of the
    /// disk.
    pub(crate) fn create_container(&mut self, new: &NewContainer) -> Result<Container> {
        ContainerPlan::new(self, new)?.build(self)?.publish(self)
    }

    /// The layer with the root directory that an image shows, as a union.
    fn root_layer(&self, image: &ImageId) -> Result<Config> {
        let stack = layers::of_image(self.db(), image)?;
        let newest_first = || stack.iter().rev();
        let layer = newest_first()
            .find(|layer| layer.has_root)
            .or_else(|| newest_first().next())
            .ok_or_else(|| StoreError::vanished(image))?;
        Ok(Config {
            lowers: vec![self.paths.layer_tree(&layer.short)],
            ..Config::default()
        })
    }
}

/// What a container will be, but for its name and when it was made. Nothing of it is there yet but
/// its volumes.
struct ContainerPlan<'a> {
    new: &'a NewContainer,
    container: Container,
    /// The image's tree.
    image: Config,
    binds: Vec<Bind>,
}

impl<'a> ContainerPlan<'a> {
    fn new(store: &mut Store, new: &'a NewContainer) -> Result<Self> {
        let (found, image) = store.find_image(&new.image)?;
        let config = ImageConfig::read(&image.config, &image.id.to_string())?;
        if let Some(name) = &new.name {
            check_name(name, "container")?;
        }
        let requests = requests(new, &config);
        if new.driver == Driver::Vfs && !requests.is_empty() {
            return Err(StoreError::unsupported(
                "volumes cannot be shown with the driver vfs",
                "use --driver fuse, or leave -v and --mount out and copy files into the container",
            ));
        }
        let tree = Config {
            lowers: store.lowers_of_image(&image.id)?,
            ..Config::default()
        };
        let binds = store.prepare_binds(&requests, &tree)?;
        let name = found.name.map(|name| name.to_string());
        let container = Container {
            id: random_id()?,
            name: String::new(),
            image: image.id,
            image_name: name.unwrap_or_else(|| new.image.clone()),
            command: config.command(),
            created: 0,
            driver: new.driver,
            temporary: new.temporary,
            mountpoint: new.mountpoint.clone(),
        };
        Ok(Self {
            new,
            container,
            image: tree,
            binds,
        })
    }

    /// Makes the directories in an area, where a crash leaves them to the next collection.
    fn build(self, store: &Store) -> Result<BuiltContainer<'a>> {
        let area = Area::new(&store.paths)?;
        let dir = area.join(&self.container.id);
        for dir in [&dir, &dir.join("merged")] {
            make_private(dir)?;
        }
        let root = store.root_layer(&self.container.image)?;
        match self.container.driver {
            Driver::Fuse => build_upper(&root, &dir)?,
            Driver::Vfs => self.build_copy(&root, &dir, &area)?,
        }
        Ok(BuiltContainer {
            plan: self,
            area,
            dir,
        })
    }

    /// A copy of the image's tree, which is on the disk afterwards.
    fn build_copy(&self, root: &Config, dir: &Path, area: &Area) -> Result<()> {
        let (union, merged) = (Union::open(&self.image)?, dir.join("merged"));
        let work = area.join("work");
        make_private(&work)?;
        copy_tree(&union, &union.root(), &merged, &work, record_form())?;
        // As with the other driver: of the newest layer with an entry for it.
        let work = area.join("work-of-root");
        make_private(&work)?;
        copy_root(root, &merged, &work)?;
        sync_disk_of(dir).context("syncfs", dir)
    }
}

/// An upper directory whose root has the image's metadata, and a work directory.
fn build_upper(root: &Config, dir: &Path) -> Result<()> {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    for dir in [&upper, &work] {
        make_private(dir)?;
    }
    copy_root(root, &upper, &work)
}

fn make_private(dir: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(PRIVATE).create(dir).context("mkdir", dir)
}

/// What the user asked for, and the volumes that the image declares. In a copy, what an image
/// declares as a volume is a part of the copy.
fn requests(new: &NewContainer, config: &ImageConfig) -> Vec<BindRequest> {
    let mut requests = new.binds.clone();
    if new.temporary || new.driver != Driver::Fuse {
        return requests;
    }
    for target in config.volumes().into_iter().map(PathBuf::from) {
        if target.is_absolute() && !requests.iter().any(|bind| bind.target == target) {
            requests.push(BindRequest {
                source: None,
                target,
                read_only: false,
                no_copy: false,
            });
        }
    }
    requests
}

/// A container whose directories are complete in an area.
struct BuiltContainer<'a> {
    plan: ContainerPlan<'a>,
    area: Area,
    dir: PathBuf,
}

impl BuiltContainer<'_> {
    /// Chooses its name, moves it to its place and records it, in one transaction.
    fn publish(self, store: &mut Store) -> Result<Container> {
        let paths = store.paths.clone();
        store.catalog.change(|db| {
            let container = Container {
                name: self.choose_name(db)?,
                created: time::now(),
                ..self.plan.container.clone()
            };
            let stack = layers::of_image(db, &container.image)?;
            if stack.is_empty() {
                return Err(StoreError::vanished(&self.plan.new.image));
            }
            let stack: Vec<DiffId> = stack.into_iter().map(|layer| layer.diff_id).collect();
            self.place(&paths)?;
            for bind in &self.plan.binds {
                if let BindSource::Volume(name) = &bind.source {
                    volume::make(db, &paths, &self.area, name, false)?;
                }
            }
            containers::insert(db, &container, &stack, &self.plan.binds)?;
            Ok(container)
        })
    }

    fn choose_name(&self, db: &Transaction<'_>) -> Result<String> {
        match &self.plan.new.name {
            Some(name) if containers::name_is_taken(db, name)? => Err(StoreError::exists(
                format!("there is a container '{name}' already"),
                "choose another name, or remove it (unionmount container rm)",
            )),
            Some(name) => Ok(name.clone()),
            None => free_name(db, &self.plan.container.id),
        }
    }

    /// Renames it to its place. Its names are on the disk before the row is.
    fn place(&self, paths: &Paths) -> Result<()> {
        let place = paths.container(&self.plan.container.id);
        fs::rename(&self.dir, &place).context("rename", &self.dir)?;
        for part in self.plan.container.driver.parts() {
            let part = place.join(part);
            sync_names_in(&part).context("fsync", &part)?;
        }
        for dir in [&place, &paths.containers()] {
            sync_names_in(dir).context("fsync", dir)?;
        }
        Ok(())
    }
}

fn free_name(db: &Transaction<'_>, id: &str) -> Result<String> {
    for attempt in 0..NAME_ATTEMPTS {
        let name = name_for(id, attempt);
        if !containers::name_is_taken(db, &name)? {
            return Ok(name);
        }
    }
    Ok(id.to_owned())
}
