//! What commands show of a container.

use serde_json::{Value, json};

use super::mount::{Status, source_of};
use crate::store::Store;
use crate::store::base::{Result, measure, time};
use crate::store::catalog::containers::{self, BindSource, Container, Driver};
use crate::store::catalog::layers;
use crate::store::tree::changed_size;
use crate::sys::mountinfo::Mount;

impl Store {
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

    /// Docker's SIZE, the bytes of the writable layer (of a copy, what is new or different in it),
    /// and its virtual size, that and the image's layers together.
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
