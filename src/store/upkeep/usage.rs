//! `system df` and `layer ls`: what takes how much space, and what can be removed.

use serde::Serialize;

use crate::store::Store;
use crate::store::base::{Result, measure};
use crate::store::catalog::containers;
use crate::store::catalog::{images, layers, volumes};
use crate::store::container::mounts;

/// One kind of things in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DfLine {
    /// Images, Containers, Local Volumes, Layer Archives, Leftovers.
    #[serde(rename = "Type")]
    pub(crate) kind: &'static str,
    /// How many there are.
    pub(crate) total_count: usize,
    /// How many are in use.
    pub(crate) active: usize,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes of those not in use.
    pub(crate) reclaimable: u64,
}

/// What an image takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageUsage {
    /// Its first name, or `<none>`.
    pub(crate) repository: String,
    /// Its tag, or `<none>`.
    pub(crate) tag: String,
    /// Its id.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: Option<i64>,
    /// Bytes of all its layers.
    pub(crate) size: u64,
    /// Bytes of layers that other images have too.
    pub(crate) shared_size: u64,
    /// Bytes of layers that it alone has.
    pub(crate) unique_size: u64,
    /// Containers made from it.
    pub(crate) containers: usize,
}

/// What a container takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerUsage {
    /// Its id.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// What the user called its image.
    pub(crate) image: String,
    /// What the image would run.
    pub(crate) command: String,
    /// Its volumes and binds.
    pub(crate) local_volumes: usize,
    /// Bytes of its writable layer.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// How it is used.
    pub(crate) status: String,
    /// Its name.
    pub(crate) names: String,
}

/// What a volume takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VolumeUsage {
    /// Its name.
    pub(crate) volume_name: String,
    /// Containers that use it.
    pub(crate) links: usize,
    /// Bytes.
    pub(crate) size: u64,
}

/// Everything that takes space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Usage {
    /// A line for each kind.
    pub(crate) summary: Vec<DfLine>,
    /// Each image.
    pub(crate) images: Vec<ImageUsage>,
    /// Each container.
    pub(crate) containers: Vec<ContainerUsage>,
    /// Each volume.
    pub(crate) volumes: Vec<VolumeUsage>,
}

/// A line of `layer ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LayerLine {
    /// The name of its directory.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// Digest of its uncompressed tar.
    #[serde(rename = "DiffID")]
    pub(crate) diff_id: String,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// Bytes of the archives that are kept of it.
    pub(crate) archive_size: u64,
    /// The images that share it: a name, or a short id.
    pub(crate) images: Vec<String>,
    /// The containers that stand on it.
    pub(crate) containers: Vec<String>,
    /// Its directory.
    pub(crate) path: String,
    /// When it was stored, in seconds since 1970.
    pub(crate) created: i64,
}

impl DfLine {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            total_count: 0,
            active: 0,
            size: 0,
            reclaimable: 0,
        }
    }

    /// The line of things of these sizes, each in use or not.
    fn of(kind: &'static str, things: impl Iterator<Item = (u64, bool)>) -> Self {
        let mut line = Self::new(kind);
        for (size, is_active) in things {
            line.add(size, is_active);
        }
        line
    }

    fn add(&mut self, size: u64, is_active: bool) {
        self.total_count += 1;
        self.active += usize::from(is_active);
        self.size += size;
        if !is_active {
            self.reclaimable += size;
        }
    }
}

/// Images share layers: what they take is what all layers take, and of that only layers without a
/// container can go.
fn images_line(images: &[ImageUsage], layers: &[LayerLine]) -> DfLine {
    let of_layers = DfLine::of(
        "Images",
        layers
            .iter()
            .map(|layer| (layer.size, !layer.containers.is_empty())),
    );
    DfLine {
        total_count: images.len(),
        active: images.iter().filter(|line| line.containers > 0).count(),
        ..of_layers
    }
}

impl Store {
    /// All layers, the oldest first.
    ///
    /// # Errors
    /// Those of the catalog.
    pub(crate) fn layer_lines(&mut self) -> Result<Vec<LayerLine>> {
        let paths = self.paths.clone();
        self.catalog.view(|db| {
            let mut lines = Vec::new();
            for layer in layers::all(db)? {
                let mut shown = Vec::new();
                for image in images::with_layer(db, &layer.diff_id)? {
                    let names = images::names_of(db, &image)?;
                    shown.push(match names.first() {
                        Some(name) => name.to_string(),
                        None => image.short(),
                    });
                }
                let blobs = layers::blobs_of(db, &layer.diff_id)?;
                lines.push(LayerLine {
                    path: paths
                        .layer_tree(&layer.short)
                        .to_string_lossy()
                        .into_owned(),
                    containers: containers::with_layer(db, &layer.diff_id)?,
                    archive_size: blobs.iter().map(|blob| blob.stored_size).sum(),
                    images: shown,
                    id: layer.short,
                    diff_id: layer.diff_id.to_string(),
                    size: layer.size,
                    created: layer.created,
                });
            }
            Ok(lines)
        })
    }

    /// What everything takes.
    ///
    /// # Errors
    /// Those of the catalog and of the disk.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        let mounts = mounts()?;
        let image_lines = self.image_usage()?;
        let container_lines = self.container_usage(&mounts)?;
        let mut volume_lines = Vec::new();
        for volume in volumes::all(self.db())? {
            volume_lines.push(VolumeUsage {
                links: volumes::users(self.db(), &volume.name)?.len(),
                size: measure(&self.paths.volume_data(&volume.name))?.size,
                volume_name: volume.name,
            });
        }
        let all_layers = self.layer_lines()?;
        let archives = all_layers.iter().map(|layer| (layer.archive_size, true));
        let summary = vec![
            images_line(&image_lines, &all_layers),
            DfLine::of(
                "Containers",
                container_lines
                    .iter()
                    .map(|line| (line.size, line.status != "created")),
            ),
            DfLine::of(
                "Local Volumes",
                volume_lines.iter().map(|line| (line.size, line.links > 0)),
            ),
            DfLine::of("Layer Archives", archives),
            self.leftovers()?,
        ];
        Ok(Usage {
            summary,
            images: image_lines,
            containers: container_lines,
            volumes: volume_lines,
        })
    }

    fn leftovers(&mut self) -> Result<DfLine> {
        let mut line = DfLine::new("Leftovers");
        let mut left = self.orphans()?;
        let tmp = self.paths.tmp();
        if let Ok(areas) = std::fs::read_dir(&tmp) {
            left.extend(areas.filter_map(|area| Some(area.ok()?.path())));
        }
        for path in left {
            let in_use = crate::store::base::lock::is_locked(&path)?;
            let size = measure(&path).map_or(0, |usage| usage.size);
            line.add(size, in_use);
        }
        Ok(line)
    }

    fn image_usage(&mut self) -> Result<Vec<ImageUsage>> {
        self.catalog.view(|db| {
            let mut lines = Vec::new();
            for image in images::all(db)? {
                let name = images::names_of(db, &image.id)?.into_iter().next();
                let (mut size, mut shared) = (0, 0);
                for layer in layers::of_image(db, &image.id)? {
                    size += layer.size;
                    if images::with_layer(db, &layer.diff_id)?.len() > 1 {
                        shared += layer.size;
                    }
                }
                let none = || "<none>".to_owned();
                lines.push(ImageUsage {
                    repository: name
                        .as_ref()
                        .map_or_else(none, |name| name.repository.clone()),
                    tag: name.map_or_else(none, |name| name.tag),
                    created: image.created,
                    size,
                    shared_size: shared,
                    unique_size: size - shared,
                    containers: containers::of_image(db, &image.id)?.len(),
                    id: image.id.to_string(),
                });
            }
            Ok(lines)
        })
    }

    fn container_usage(
        &mut self,
        mounts: &[crate::sys::mountinfo::Mount],
    ) -> Result<Vec<ContainerUsage>> {
        let mut lines = Vec::new();
        for container in containers::all(self.db())? {
            let status = self.status(&container, mounts)?;
            lines.push(ContainerUsage {
                local_volumes: containers::binds_of(self.db(), &container.id)?.len(),
                size: self.container_size(&container)?.0,
                status: crate::store::container::status_word(&status).to_owned(),
                id: container.id,
                image: container.image_name,
                command: container.command,
                created: container.created,
                names: container.name,
            });
        }
        Ok(lines)
    }
}
