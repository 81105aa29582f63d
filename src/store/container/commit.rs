//! `container commit` and `container export`.
//!
//! The changes are packed by one thread and unpacked into a new layer by another, in one pass, so
//! that the layer in the store is what its archive holds. Then everything is published as with
//! `image load`. A mounted container is read through a view of its own: what was closed is in the
//! upper.

use std::collections::BTreeMap;
use std::io::Write;

use super::mount::in_use;
use crate::archive::{Digest, Limits, Pack, Unpack, diff, export, unpack};
use crate::store::Store;
use crate::store::base::{
    Area, Context, Result, StoreError,
    ids::{DiffId, ImageId},
    lock,
    reference::Reference,
    time,
};
use crate::store::catalog::containers::{self, Container, Driver};
use crate::store::catalog::images;
use crate::store::catalog::layers;
use crate::store::image::documents::config::{Addition, extend};
use crate::store::image::{LayerBuilder, NewImage, Published, StagedLayer};
use crate::store::tree::changes_as_upper;
use crate::union::Config;

/// What a commit makes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitOptions {
    /// The name of the new image.
    pub(crate) name: Option<Reference>,
    /// Who made it.
    pub(crate) author: String,
    /// Why.
    pub(crate) message: String,
    /// Instructions as in a Dockerfile.
    pub(crate) changes: Vec<String>,
}

/// What a container's tree is made of, for reading.
pub(crate) struct ContainerView {
    /// The layers and the changes.
    pub(crate) config: Config,
    /// Where changes of a copied tree were gathered.
    _area: Option<Area>,
}

impl Store {
    /// Opens a container's tree for reading, whatever its driver.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(crate) fn view(&self, container: &Container) -> Result<ContainerView> {
        match container.driver {
            Driver::Fuse => Ok(ContainerView {
                config: self.view_of(container)?,
                _area: None,
            }),
            Driver::Vfs => {
                let area = Area::new(&self.paths)?;
                let lowers = self.lowers_of_container(&container.id)?;
                let tree = self.paths.merged(&container.id);
                let config = changes_as_upper(&lowers, &tree, &area)?;
                Ok(ContainerView {
                    config,
                    _area: Some(area),
                })
            }
        }
    }

    /// Makes an image of a container: the layers of its image, and its changes as one more. Returns
    /// the new image's id.
    ///
    /// # Errors
    /// There is no such container, its image was removed by force, a change is wrong, or the disk
    /// is full.
    pub(crate) fn commit(&mut self, word: &str, options: &CommitOptions) -> Result<ImageId> {
        let container = containers::resolve(self.db(), word)?;
        let _used =
            lock::share(&self.paths.container(&container.id))?.ok_or_else(|| in_use(&container))?;
        let base = images::find(self.db(), &container.image)?.ok_or_else(|| {
            StoreError::not_found(
                format!(
                    "the image of container {} was removed by force",
                    container.name
                ),
                "export the container instead (unionmount container export)",
            )
        })?;
        let created = time::creation()?;
        let area = Area::new(&self.paths)?;
        let view = self.view(&container)?;
        let ready = pack_changes(&container.name, &view.config, &area)?;
        let config = extend(
            &base.config,
            &Addition {
                diff_id: ready.blob.diff_id.digest(),
                created: &created,
                author: &options.author,
                message: &options.message,
                created_by: "unionmount container commit",
                changes: &options.changes,
            },
        )?;
        let id = ImageId::from(Digest::of(&config));
        let stack = layers::of_container(self.db(), &container.id)?;
        let mut layers: Vec<DiffId> = stack.into_iter().map(|layer| layer.diff_id).collect();
        layers.push(ready.blob.diff_id);
        let image = NewImage {
            id,
            config,
            created: time::parse(&created),
            layers,
            manifest: None,
            blobs: Vec::new(),
            names: options.name.iter().cloned().collect(),
        };
        let mut ready = BTreeMap::from([(ready.blob.diff_id.digest(), ready)]);
        match self.publish(&area, &mut ready, &[image])? {
            Published::Done => Ok(id),
            // The container keeps its layers.
            Published::Missing => Err(StoreError::vanished(word)),
        }
    }

    /// Writes what a container shows as one flat tar. Volumes are not in it, as with docker.
    ///
    /// # Errors
    /// There is no such container, a name that no tar can hold, and failures of writing.
    pub(crate) fn export(&self, word: &str, out: impl Write) -> Result<()> {
        let container = containers::resolve(self.db(), word)?;
        let _used =
            lock::share(&self.paths.container(&container.id))?.ok_or_else(|| in_use(&container))?;
        let view = self.view(&container)?;
        export(&view.config, out, &Pack::default())
            .map_err(|error| cannot_pack(&container.name, error))?;
        Ok(())
    }
}

fn cannot_pack(container: &str, error: crate::archive::Error) -> StoreError {
    StoreError::failed(
        format_args!("cannot pack container {container}"),
        error,
        "make room where it is written to, or remove what cannot be packed",
    )
}

/// Packs the changes and unpacks them as a layer.
fn pack_changes(container: &str, view: &Config, area: &Area) -> Result<StagedLayer> {
    let builder = LayerBuilder::begin(area, "layer", true)?;
    let tree = builder.tree().unwrap_or(builder.dir());
    let upper = view.upper.clone().unwrap_or_default();
    let (reader, writer) = std::io::pipe().context("pipe", builder.dir())?;
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packer = scope.spawn(|| diff(&upper, &view.lowers, writer, &Pack::default()));
        let options = Unpack {
            keep: Some(builder.archive()),
            // It is what was just written.
            limits: Limits::accepted_before(),
            below: &view.lowers,
            ..Unpack::default()
        };
        let unpacked = unpack(reader, tree, &options);
        (packer.join(), unpacked)
    });
    let Ok(packed) = packed else {
        return Err(StoreError::internal(
            format!("packing container {container} broke off"),
            "report this bug of unionmount",
        ));
    };
    // When one of them gives up, the other one finds the pipe broken, or the archive cut off.
    let got = match (packed, unpacked) {
        (Ok(_), unpacked) => unpacked.map_err(|error| cannot_pack(container, error))?,
        (Err(packed), Err(unpacked)) if packed.is_broken_pipe() => {
            return Err(cannot_pack(container, unpacked));
        }
        (Err(packed), _) => return Err(cannot_pack(container, packed)),
    };
    builder.end(&got)
}
