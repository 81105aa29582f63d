//! From a container, or layers, to the configuration of a union.

use std::path::{Path, PathBuf};

use crate::store::Store;
use crate::store::base::{
    Paths, Result, StoreError,
    ids::{ImageId, short},
};
use crate::store::catalog::containers::{self, Bind, BindSource, Container};
use crate::store::catalog::layers;
use crate::store::tree::record_form;
use crate::sys::mountinfo::{self, Mount};
use crate::union::Config;
use crate::union::config::Volume;

/// How a container is used at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It is not mounted.
    Idle,
    /// It is mounted here.
    Mounted(PathBuf),
    /// Its daemon was killed; the mount is dead.
    Dead(PathBuf),
    /// It is mounted where this process cannot see it, or another command works on it.
    Elsewhere,
    /// Its tree is a copy: there is nothing to mount.
    Copied(PathBuf),
}

impl Store {
    /// A container by name or id.
    ///
    /// # Errors
    /// There is none, or several ids begin so.
    pub(crate) fn container(&self, word: &str) -> Result<Container> {
        containers::resolve(self.db(), word)
    }

    /// A container by its whole id.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn find_container(&self, id: &str) -> Result<Option<Container>> {
        containers::find(self.db(), id)
    }

    /// All containers, the newest first.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn containers(&self) -> Result<Vec<Container>> {
        containers::all(self.db())
    }

    /// The trees of a container's layers, newest first.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn lowers_of_container(&self, id: &str) -> Result<Vec<PathBuf>> {
        trees(
            &self.paths,
            &format!("container {}", short(id)),
            layers::of_container(self.db(), id)?,
        )
    }

    /// The trees of an image's layers, newest first.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn lowers_of_image(&self, id: &ImageId) -> Result<Vec<PathBuf>> {
        trees(
            &self.paths,
            &format!("image {}", id.short()),
            layers::of_image(self.db(), id)?,
        )
    }

    /// The union of a container, to be mounted writable.
    ///
    /// # Errors
    /// Those of the catalog; a bind's source is not there.
    pub(crate) fn union_of(&self, container: &Container) -> Result<Config> {
        let id = &container.id;
        Ok(Config {
            lowers: self.lowers_of_container(id)?,
            upper: Some(self.paths.upper(id)),
            work: Some(self.paths.container(id).join("work")),
            xattr_permissions: record_form(),
            volumes: self
                .binds_of(id)?
                .into_iter()
                .map(|(bind, source)| Volume {
                    source,
                    target: bind.target,
                    read_only: bind.read_only,
                })
                .collect(),
            ..Config::default()
        })
    }

    /// The same for reading only, without volumes: it may be mounted meanwhile.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn view_of(&self, container: &Container) -> Result<Config> {
        Ok(Config {
            lowers: self.lowers_of_container(&container.id)?,
            upper: Some(self.paths.upper(&container.id)),
            read_only: true,
            ..Config::default()
        })
    }

    /// What is shown inside a container, with the directories of volumes.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn binds_of(&self, id: &str) -> Result<Vec<(Bind, PathBuf)>> {
        let binds = containers::binds_of(self.db(), id)?;
        Ok(binds
            .into_iter()
            .map(|bind| {
                let source = match &bind.source {
                    BindSource::Volume(name) => self.paths.volume_data(name),
                    BindSource::Directory(path) => path.clone(),
                };
                (bind, source)
            })
            .collect())
    }

    /// How a container is used. `mounts` are those of this process.
    ///
    /// # Errors
    /// Its directory cannot be opened.
    pub(crate) fn status(&self, container: &Container, mounts: &[Mount]) -> Result<Status> {
        let merged = self.paths.merged(&container.id);
        if container.driver == containers::Driver::Vfs {
            return Ok(Status::Copied(merged));
        }
        let in_use = crate::store::base::lock::is_locked(&self.paths.container(&container.id))?;
        let place = container.mountpoint.as_deref().unwrap_or(&merged);
        let is_here = [place, &merged].into_iter().find(|place| {
            mountinfo::at(mounts, place).is_some_and(|mount| is_of(mount, &container.id))
        });
        Ok(match (is_here, in_use) {
            (Some(place), true) => Status::Mounted(place.to_owned()),
            (Some(place), false) => Status::Dead(place.to_owned()),
            (None, true) => Status::Elsewhere,
            (None, false) => Status::Idle,
        })
    }
}

/// Whether a mount is that of a container: at its mountpoint something else may be mounted by now.
fn is_of(mount: &Mount, id: &str) -> bool {
    let source = mount.source.as_str();
    let named = source.rsplit(['/', ':']).next();
    mount.is_ours() && named == Some(id)
}

/// The mounts of this process.
///
/// # Errors
/// `/proc` is not mounted.
pub(crate) fn mounts() -> Result<Vec<Mount>> {
    mountinfo::read().map_err(|error| {
        StoreError::failed(
            "cannot read /proc/self/mountinfo",
            error,
            "mount proc on /proc",
        )
    })
}

fn trees(paths: &Paths, owner: &str, oldest_first: Vec<layers::Layer>) -> Result<Vec<PathBuf>> {
    if oldest_first.is_empty() {
        return Err(StoreError::unsupported(
            format!("{owner} has no layers"),
            "nothing can be mounted of it; images need at least one layer",
        ));
    }
    Ok(oldest_first
        .iter()
        .rev()
        .map(|layer| paths.layer_tree(&layer.short))
        .collect())
}

/// The source that a container's mount shows in `/proc/mounts`: its directory, by which `umount`
/// finds the store again. Characters that would end it there are not shown.
#[must_use]
pub(crate) fn source_of(paths: &Paths, id: &str) -> String {
    let path = paths.container(id).to_string_lossy().into_owned();
    if path
        .chars()
        .any(|c| c == ',' || c == '\\' || c.is_control())
    {
        return format!("unionmount:{id}");
    }
    path
}

/// The store and the container that a mount's source names.
#[must_use]
pub(crate) fn container_of_source(source: &str) -> Option<(PathBuf, String)> {
    let path = Path::new(source);
    let id = path.file_name()?.to_str()?;
    let containers = path.parent()?;
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && path.is_absolute() && containers.file_name()? == "containers")
        .then_some((containers.parent()?.to_owned(), id.to_owned()))
}

/// The message when a container cannot be removed because it is in use.
#[must_use]
pub(crate) fn in_use(container: &Container) -> StoreError {
    StoreError::in_use(
        format!("container {} is mounted or in use", container.name),
        format!(
            "unmount it first (unionmount container umount {}), or use --force",
            container.name
        ),
    )
}
