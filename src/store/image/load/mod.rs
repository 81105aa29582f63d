//! `image load`: from an archive into the store.
//!
//! First all documents are read (`plan.rs`), which is cheap and finds nearly everything that can be
//! wrong. Then the layers that are not stored yet are unpacked into an area, several at a time
//! (`fetch.rs`). At last everything gets its place in one transaction (`publish.rs`). Killed before
//! that, an area is left and nothing is half loaded; when layers that were stored already are
//! removed meanwhile by another command, the missing ones are unpacked too and it is tried again.

mod fetch;
mod implied;
mod plan;
mod publish;
mod ready;

use std::collections::BTreeMap;
use std::path::Path;

use crate::archive::{Digest, Limits, Progress};
use crate::store::Store;
use crate::store::base::{
    Area, Result, StoreError,
    ids::{DiffId, ImageId},
    reference::Reference,
};
use crate::store::image::documents::Platform;
use crate::store::image::source::ImageSource;
use plan::ImagePlan;
pub(in crate::store) use publish::{NewImage, Published, manifest_document};
pub(in crate::store) use ready::{LayerBuilder, StagedLayer};

/// How often a load begins again because others removed layers meanwhile.
const ATTEMPTS: u32 = 5;

/// What is loaded, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadOptions {
    /// The platform to choose from an image for several; the machine's when missing.
    pub(crate) platform: Option<Platform>,
    /// The name that the image gets, besides those that it brings.
    pub(crate) name: Option<Reference>,
    /// How much an archive may ask for.
    pub(crate) limits: Limits,
}

/// Is notified of the layers that are worked on.
pub(crate) trait LoadProgress: Sync {
    /// A layer of so many bytes (as it is stored in the archive) begins; what is returned is
    /// notified of its progress, and is dropped at its end.
    fn begins(&self, layer: &str, bytes: u64) -> Box<dyn Progress + '_>;
    /// A layer is stored already.
    fn exists(&self, layer: &str);
}

/// No notification is wanted.
impl LoadProgress for () {
    fn begins(&self, _layer: &str, _bytes: u64) -> Box<dyn Progress + '_> {
        Box::new(())
    }

    fn exists(&self, _layer: &str) {}
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Its id.
    pub(crate) id: ImageId,
    /// The names it came with.
    pub(crate) names: Vec<Reference>,
    /// Its layers, oldest first, and whether each was stored already.
    pub(crate) layers: Vec<(DiffId, bool)>,
}

impl Store {
    /// Loads all images of an archive: an OCI layout (directory or tar), an archive of `docker
    /// save`, or one of them on standard input (`-`).
    ///
    /// # Errors
    /// Whatever is wrong with the archive, and failures of the disk; nothing is loaded then.
    pub(crate) fn load(
        &mut self,
        given: &Path,
        options: &LoadOptions,
        watch: &dyn LoadProgress,
    ) -> Result<Vec<Loaded>> {
        let area = Area::new(&self.paths)?;
        let source = ImageSource::open(given, &area, &options.limits)?;
        let mut plans = plan::read(&source, options)?;
        if let Some(name) = &options.name {
            match plans.as_mut_slice() {
                [only] => only.names = vec![name.clone()],
                _ => {
                    return Err(StoreError::invalid(
                        format!("'{}' holds {} images", given.display(), plans.len()),
                        "load them without --name, and name them with 'unionmount image tag'",
                    ));
                }
            }
        }
        let mut ready: BTreeMap<Digest, StagedLayer> = BTreeMap::new();
        let mut stored: Option<Vec<DiffId>> = None;
        for _ in 0..ATTEMPTS {
            let wanted = fetch::missing(self.catalog.read(), &plans, &ready)?;
            if stored.is_none() {
                stored = Some(announce_stored(&plans, &wanted, watch));
            }
            fetch::run(&source, &area, wanted, &options.limits, watch, &mut ready)?;
            implied::describe(self.catalog.read(), &self.paths, &plans, &ready)?;
            let images: Vec<NewImage> = plans.iter().map(ImagePlan::to_image).collect();
            if self.publish(&area, &mut ready, &images)? == Published::Done {
                let stored = stored.unwrap_or_default();
                return Ok(plans.iter().map(|plan| plan.loaded(&stored)).collect());
            }
            log::info!("layers were removed by another command meanwhile; unpacking them");
        }
        Err(StoreError::conflict(
            "another command keeps removing layers that are being loaded",
            "wait for its end and try again",
        ))
    }
}

/// Notifies of the layers of the plans that need not be fetched, and returns them.
fn announce_stored(
    plans: &[ImagePlan],
    wanted: &[fetch::Job],
    watch: &dyn LoadProgress,
) -> Vec<DiffId> {
    let mut stored = Vec::new();
    for layer in plans.iter().flat_map(|plan| &plan.layers) {
        let id = layer.diff_id;
        let is_fetched = wanted
            .iter()
            .any(|job| job.unpacks() && job.is_of(&layer.diff_id));
        if !is_fetched && !stored.contains(&id) {
            watch.exists(&layer.diff_id.short());
            stored.push(id);
        }
    }
    stored
}
