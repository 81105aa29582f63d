//! One layer of `system check`: its archives, its tree, its size; and its tree made again from an
//! archive.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::report::{CheckOptions, RELOAD, REPAIR, Report, is_dir};
use crate::archive::codec::HashingWriter;
use crate::archive::disk::{sync_disk_of, sync_names_in};
use crate::archive::{Compression, Expect, Limits, Unpack, Unpacked, unpack};
use crate::store::Store;
use crate::store::base::{
    Area, Context, PRIVATE, Result, StoreError, is_of_system, measure, remove_tree,
};
use crate::store::catalog::images;
use crate::store::catalog::layers::{self, Blob, Layer};
use crate::store::tree::first_difference;

/// Checks a layer, and repairs it when that was asked for.
pub(super) fn check(
    store: &mut Store,
    layer: &Layer,
    options: CheckOptions,
    report: &mut Report,
) -> Result<()> {
    let mut check = LayerCheck {
        layer,
        options,
        sound: Vec::new(),
        report,
    };
    check.archives(store)?;
    if check.has_tree(store)? && check.is_as_archived(store) {
        check.size(store)?;
    }
    Ok(())
}

struct LayerCheck<'a> {
    layer: &'a Layer,
    options: CheckOptions,
    report: &'a mut Report,
    /// Archives without a finding.
    sound: Vec<Blob>,
}

impl LayerCheck<'_> {
    fn archives(&mut self, store: &Store) -> Result<()> {
        for blob in layers::blobs_of(store.db(), &self.layer.diff_id)? {
            match store.check_blob(self.layer, &blob, self.options.deep) {
                Ok(()) => self.sound.push(blob),
                Err(wrong) => {
                    let what = format!("layer {}: {}", self.layer.short, wrong.what());
                    self.report.add(what, false, wrong.hint());
                }
            }
        }
        Ok(())
    }

    /// Whether the tree is there; one that is missing is made again.
    fn has_tree(&mut self, store: &mut Store) -> Result<bool> {
        let name = &self.layer.short;
        let tree = store.paths.layer_tree(name);
        if is_dir(&tree).context("stat", &tree)? {
            return Ok(true);
        }
        let what = format!(
            "layer {name}: its directory '{}' is missing",
            tree.display()
        );
        let repaired = self.mend(store);
        let hint = if self.sound.is_empty() {
            RELOAD
        } else {
            REPAIR
        };
        self.report.add(what, repaired, hint);
        Ok(false)
    }

    /// Whether the tree has what its archive holds, as far as that is asked for and can be found
    /// out; one that has not is made again.
    fn is_as_archived(&mut self, store: &mut Store) -> bool {
        let name = &self.layer.short;
        let Some(blob) = self.sound.first().filter(|_| self.options.deep) else {
            return true;
        };
        match store.compare_with(self.layer, blob) {
            Ok(None) => true,
            Ok(Some(difference)) => {
                let what = format!(
                    "layer {name}: its directory is not what its archive holds: {difference}"
                );
                let repaired = self.mend(store);
                self.report.add(what, repaired, REPAIR);
                false
            }
            Err(error) => {
                let what = format!(
                    "layer {name} was not compared with its archive: {}",
                    error.what()
                );
                self.report.add(what, false, error.hint());
                true
            }
        }
    }

    fn size(&mut self, store: &mut Store) -> Result<()> {
        let layer = self.layer;
        let size = measure(&store.paths.layer_tree(&layer.short))?.size;
        if size == layer.size {
            return Ok(());
        }
        if self.options.repair {
            store
                .catalog
                .change(|db| layers::set_size(db, &layer.diff_id, size))?;
        }
        let what = format!(
            "layer {}: it has {size} bytes, the catalog says {}",
            layer.short, layer.size
        );
        self.report.add(
            what,
            self.options.repair,
            "run 'unionmount system check --deep' to see what was changed",
        );
        Ok(())
    }

    /// Makes the tree again when that was asked for; returns whether it is whole, and reports why
    /// not.
    fn mend(&mut self, store: &mut Store) -> bool {
        if !self.options.repair {
            return false;
        }
        store
            .unpack_again(self.layer, &self.sound)
            .unwrap_or_else(|error| {
                let name = &self.layer.short;
                let what = format!("layer {name} cannot be repaired: {}", error.what());
                self.report.add(what, false, error.hint());
                false
            })
    }
}

impl Store {
    /// Looks at an archive.
    ///
    /// # Errors
    /// What is wrong with it. That it cannot be read is a fault of the disk, not of what it holds.
    fn check_blob(&self, layer: &Layer, blob: &Blob, deep: bool) -> Result<()> {
        let path = self.paths.layer(&layer.short).join(blob.file_name());
        let shown = blob.digest.short();
        let wrong = |what: &str| {
            Err(StoreError::damaged(
                format!("its archive {shown} {what}"),
                RELOAD,
            ))
        };
        let meta = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return wrong("is missing"),
            meta => meta.context("stat", &path)?,
        };
        if meta.len() != blob.stored_size {
            return wrong(&format!(
                "has {} bytes, not {}",
                meta.len(),
                blob.stored_size
            ));
        }
        if !deep {
            return Ok(());
        }
        let digest_of = |mut from: Box<dyn io::Read>| {
            let mut hash = HashingWriter::new(io::sink());
            match io::copy(&mut from, &mut hash) {
                Ok(_) => Ok(Some(hash.finish().1)),
                Err(error) if is_of_system(&error) => Err(error).context("read", &path),
                Err(_) => Ok(None),
            }
        };
        if digest_of(self.open_blob(blob)?)? != Some(blob.digest) {
            return wrong("is damaged");
        }
        if blob.compression != Compression::None {
            let plain = digest_of(Box::new(self.open_plain(blob)?))?;
            if plain != Some(layer.diff_id.digest()) {
                return wrong("holds another layer");
            }
        }
        Ok(())
    }

    /// Unpacks a layer from one of its archives.
    fn unpack_into(&self, layer: &Layer, blob: &Blob, area: &Area) -> Result<(PathBuf, Unpacked)> {
        let tree = area.join("diff");
        remove_tree(&tree)?;
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&tree)
            .context("mkdir", &tree)?;
        let path = self.blob_file(blob)?;
        let below = self.layers_below(layer)?;
        let options = Unpack {
            below: &below,
            expect: Expect {
                diff_id: Some(layer.diff_id.digest()),
                ..Expect::default()
            },
            limits: Limits::accepted_before(),
            ..Unpack::default()
        };
        let file = File::open(&path).context("open", &path)?;
        let unpacked = unpack(file, &tree, &options).map_err(|error| {
            StoreError::of_archive("it cannot be unpacked once more", error, RELOAD)
        })?;
        Ok((tree, unpacked))
    }

    /// The trees below a layer in one of the images that have it, newest first.
    fn layers_below(&self, layer: &Layer) -> Result<Vec<PathBuf>> {
        let Some(image) = images::with_layer(self.db(), &layer.diff_id)?.pop() else {
            return Ok(Vec::new());
        };
        let stack = layers::of_image(self.db(), &image)?;
        let below = stack
            .iter()
            .take_while(|below| below.diff_id != layer.diff_id);
        let mut trees: Vec<PathBuf> = below
            .map(|below| self.paths.layer_tree(&below.short))
            .filter(|tree| tree.is_dir())
            .collect();
        trees.reverse();
        Ok(trees)
    }

    /// Unpacks the archive beside the layer; the disk is not filled by that.
    fn compare_with(&self, layer: &Layer, blob: &Blob) -> Result<Option<String>> {
        let needed = measure(&self.paths.layer_tree(&layer.short))?.disk;
        let disk = rustix::fs::statvfs(self.paths.root()).context("statvfs", self.paths.root())?;
        let room = disk.f_bavail.saturating_mul(disk.f_frsize);
        if room < needed {
            return Err(StoreError::limit(
                format!(
                    "that takes {needed} bytes on the disk of the store, which has {room} left"
                ),
                "make room and check again",
            ));
        }
        let area = Area::new(&self.paths)?;
        let (fresh, unpacked) = self.unpack_into(layer, blob, &area)?;
        // What the archive does not describe is as it was made.
        let mut implied: HashSet<Vec<u8>> = unpacked.implied.into_iter().collect();
        if !unpacked.has_root {
            implied.insert(Vec::new());
        }
        first_difference(&fresh, &self.paths.layer_tree(&layer.short), &implied)
    }

    /// Puts a fresh copy, which is on the disk, in the place of a layer's tree; returns whether
    /// that was possible.
    fn unpack_again(&mut self, layer: &Layer, sound: &[Blob]) -> Result<bool> {
        let Some(blob) = sound.first() else {
            return Ok(false);
        };
        let area = Area::new(&self.paths)?;
        let (fresh, _) = self.unpack_into(layer, blob, &area)?;
        let size = measure(&fresh)?.size;
        sync_disk_of(&fresh).context("syncfs", &fresh)?;
        let dir = self.paths.layer(&layer.short);
        let tree = self.paths.layer_tree(&layer.short);
        self.catalog.change(|db| {
            if !dir.is_dir() {
                fs::DirBuilder::new()
                    .mode(PRIVATE)
                    .create(&dir)
                    .context("mkdir", &dir)?;
            }
            area.take(&tree, "old")?;
            fs::rename(&fresh, &tree).context("rename", &fresh)?;
            sync_names_in(&dir).context("fsync", &dir)?;
            layers::set_size(db, &layer.diff_id, size)
        })?;
        Ok(true)
    }
}
