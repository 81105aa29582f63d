//! Directories that no entry of a layer's archive describes, once the layers below are there.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use rusqlite::Connection;

use super::StagedLayer;
use super::plan::ImagePlan;
use crate::archive::{Digest, apply_lower_metadata};
use crate::store::base::{Paths, Result, StoreError};
use crate::store::catalog::layers;

/// Applies the metadata that they have below, in every layer that was unpacked. A union shows them
/// so anyway; this is for others who read the directory of the layer. Of several images with one
/// layer the first one counts.
pub(super) fn describe(
    db: &Connection,
    paths: &Paths,
    plans: &[ImagePlan],
    ready: &BTreeMap<Digest, StagedLayer>,
) -> Result<()> {
    let mut described = HashSet::new();
    for plan in plans {
        let mut below: Vec<PathBuf> = Vec::new();
        for layer in &plan.layers {
            let diff_id = layer.diff_id;
            let fresh = ready
                .values()
                .find(|ready| ready.has_tree && ready.blob.diff_id == diff_id);
            let tree = match fresh {
                Some(fresh) => fresh.dir.join("diff"),
                None => match layers::find(db, &diff_id)? {
                    Some(stored) => paths.layer_tree(&stored.short),
                    // Removed meanwhile: it will be unpacked, and then this is done again.
                    None => return Ok(()),
                },
            };
            if let Some(fresh) = fresh
                && !fresh.implied.is_empty()
                && described.insert(diff_id)
            {
                match apply_lower_metadata(&tree, &fresh.implied, &below) {
                    Err(_) if !below.iter().all(|lower| lower.is_dir()) => return Ok(()),
                    done => done.map_err(|error| {
                        StoreError::failed(
                            format!(
                                "cannot set the metadata of directories of layer {}",
                                layer.diff_id.short()
                            ),
                            error,
                            "nothing was loaded; make room on the disk of the store and try again",
                        )
                    })?,
                }
            }
            below.insert(0, tree);
        }
    }
    Ok(())
}
