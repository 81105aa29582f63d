//! `system check`: does the disk have what the catalog says, and nothing else?
//!
//! Repairs only take away what nobody refers to, correct numbers, and unpack layers again from their archives. They are made
//! one by one; killed between two, the next check finds the rest.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::archive::digest::HashingWriter;
use crate::archive::durable::{sync_disk_of, sync_file, sync_names_in};
use crate::archive::{Compression, Digest, Expect, Limits, Unpack, Unpacked, unpack};
use crate::store::Store;
use crate::store::base::{
    Area, Doing, PRIVATE, Result, StoreError, abandoned, config_file, is_of_system, measure, time,
};
use crate::store::catalog::containers::{self, Driver};
use crate::store::catalog::images;
use crate::store::catalog::layers::{self, Blob, Layer};
use crate::store::catalog::volumes::{self, Volume};
use crate::store::tree::first_difference;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Finding {
    /// What, in one line.
    pub(crate) what: String,
    /// It was put right.
    pub(crate) repaired: bool,
    /// What to do when it was not.
    pub(crate) cure: String,
}

/// How thorough a check is, and whether it puts things right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    /// Read every archive, verify its digests, and compare each layer with it, entry by entry.
    pub(crate) deep: bool,
    /// Put right what can be.
    pub(crate) repair: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Report {
    /// Layers that were looked at.
    pub(crate) layers: usize,
    /// Images that were looked at.
    pub(crate) images: usize,
    /// Containers that were looked at.
    pub(crate) containers: usize,
    /// Volumes that were looked at.
    pub(crate) volumes: usize,
    /// What is not as it should be.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Whether something is still wrong.
    #[must_use]
    pub(crate) fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| !finding.repaired)
    }

    fn add(&mut self, what: String, repaired: bool, cure: &str) {
        self.findings.push(Finding {
            what,
            repaired,
            cure: cure.to_owned(),
        });
    }
}

const REPAIR: &str = "run 'unionmount system check --repair'";
const RELOAD: &str = "remove the images that have it (unionmount layer ls) and load them again";

impl Store {
    /// Checks the store.
    ///
    /// # Errors
    /// The catalog or a directory cannot be read at all.
    pub(crate) fn check(&mut self, options: CheckOptions) -> Result<Report> {
        let mut report = Report::default();
        for damage in self.catalog.damages()? {
            report.add(
                format!("the catalog: {damage}"),
                false,
                "restore catalog.sqlite from a backup, or move the store away and load the images again",
            );
        }
        self.check_leftovers(options, &mut report)?;
        for layer in layers::all(self.db())? {
            report.layers += 1;
            self.check_layer(&layer, options, &mut report)?;
        }
        self.check_images(options, &mut report)?;
        self.check_containers(options, &mut report)?;
        self.check_volumes(options, &mut report)?;
        Ok(report)
    }

    fn check_leftovers(&mut self, options: CheckOptions, report: &mut Report) -> Result<()> {
        let areas = abandoned(&self.paths)?;
        let names: Vec<String> = areas
            .iter()
            .map(|area| area.dir().display().to_string())
            .collect();
        if options.repair {
            drop(areas);
        } else {
            // They stay: only their locks are given back.
            areas.into_iter().for_each(Area::leave);
        }
        for name in names {
            report.add(
                format!("a command that died left '{name}'"),
                options.repair,
                "run 'unionmount system prune', or 'unionmount system check --repair'",
            );
        }
        let orphans = self.orphans()?;
        if options.repair && !orphans.is_empty() {
            self.adopt_volumes(&orphans)?;
            self.collect_leftovers()?;
        }
        let left = self.orphans()?;
        for orphan in orphans {
            report.add(
                format!("'{}' is not in the catalog", orphan.display()),
                options.repair && !left.contains(&orphan),
                REPAIR,
            );
        }
        Ok(())
    }

    /// Volumes with content that nobody removed come back into the catalog.
    fn adopt_volumes(&mut self, orphans: &[PathBuf]) -> Result<()> {
        let paths = self.paths.clone();
        self.catalog.change(|db| {
            for orphan in orphans {
                if let Ok(name) = orphan.strip_prefix(paths.volumes())
                    && paths.is_lost_volume(db, orphan)?
                {
                    let name = name.to_string_lossy().into_owned();
                    if volumes::find(db, &name)?.is_none() {
                        volumes::insert(
                            db,
                            &Volume {
                                name,
                                created: time::now(),
                                anonymous: false,
                            },
                        )?;
                    }
                }
            }
            Ok(())
        })
    }

    fn check_layer(
        &mut self,
        layer: &Layer,
        options: CheckOptions,
        report: &mut Report,
    ) -> Result<()> {
        let name = &layer.short;
        let tree = self.paths.layer_tree(name);
        let blobs = layers::blobs_of(self.db(), &layer.diff_id)?;
        let mut sound = Vec::new();
        for blob in blobs {
            match self.check_blob(layer, &blob, options.deep) {
                Ok(()) => sound.push(blob),
                Err(wrong) => report.add(
                    format!("layer {name}: {}", wrong.what()),
                    false,
                    wrong.cure(),
                ),
            }
        }
        if !is_dir(&tree).doing("stat", &tree)? {
            let repaired = options.repair && self.mend(layer, &sound, report);
            report.add(
                format!(
                    "layer {name}: its directory '{}' is missing",
                    tree.display()
                ),
                repaired,
                if sound.is_empty() { RELOAD } else { REPAIR },
            );
            return Ok(());
        }
        if options.deep
            && let Some(blob) = sound.first()
        {
            match self.compare_with(layer, blob) {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    let repaired = options.repair && self.mend(layer, &sound, report);
                    report.add(
                        format!(
                            "layer {name}: its directory is not what its archive holds: {difference}"
                        ),
                        repaired,
                        REPAIR,
                    );
                    return Ok(());
                }
                Err(error) => report.add(
                    format!(
                        "layer {name} was not compared with its archive: {}",
                        error.what()
                    ),
                    false,
                    error.cure(),
                ),
            }
        }
        let size = measure(&tree)?.size;
        if size != layer.size {
            if options.repair {
                self.catalog
                    .change(|db| layers::set_size(db, &layer.diff_id, size))?;
            }
            report.add(
                format!(
                    "layer {name}: it has {size} bytes, the catalog says {}",
                    layer.size
                ),
                options.repair,
                "run 'unionmount system check --deep' to see what was changed",
            );
        }
        Ok(())
    }

    /// Looks at an archive.
    ///
    /// # Errors
    /// What is wrong with it. That it cannot be read is a fault of the disk, not of what it holds.
    fn check_blob(&self, layer: &Layer, blob: &Blob, deep: bool) -> Result<()> {
        let path = self.paths.layer(&layer.short).join(blob.file_name());
        let shown = blob.digest.short();
        let wrong = |what: &str| {
            Err(StoreError::new(
                format!("its archive {shown} {what}"),
                RELOAD,
            ))
        };
        let meta = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return wrong("is missing"),
            meta => meta.doing("stat", &path)?,
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
                Err(error) if is_of_system(&error) => Err(error).doing("read", &path),
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
        crate::store::base::remove_tree(&tree)?;
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&tree)
            .doing("mkdir", &tree)?;
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
        let file = File::open(&path).doing("open", &path)?;
        let unpacked = unpack(file, &tree, &options).map_err(|error| {
            StoreError::of_archive("it cannot be unpacked once more", &error, RELOAD)
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
        let disk = rustix::fs::statvfs(self.paths.root()).doing("statvfs", self.paths.root())?;
        let room = disk.f_bavail.saturating_mul(disk.f_frsize);
        if room < needed {
            return Err(StoreError::new(
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

    /// Unpacks a layer again; says whether it is whole, and reports why not.
    fn mend(&mut self, layer: &Layer, sound: &[Blob], report: &mut Report) -> bool {
        self.unpack_again(layer, sound).unwrap_or_else(|error| {
            report.add(
                format!("layer {} cannot be repaired: {}", layer.short, error.what()),
                false,
                error.cure(),
            );
            false
        })
    }

    /// Puts a fresh copy, which is on the disk, in the place of a layer's tree; says whether that was possible.
    fn unpack_again(&mut self, layer: &Layer, sound: &[Blob]) -> Result<bool> {
        let Some(blob) = sound.first() else {
            return Ok(false);
        };
        let area = Area::new(&self.paths)?;
        let (fresh, _) = self.unpack_into(layer, blob, &area)?;
        let size = measure(&fresh)?.size;
        sync_disk_of(&fresh).doing("syncfs", &fresh)?;
        let dir = self.paths.layer(&layer.short);
        let tree = self.paths.layer_tree(&layer.short);
        self.catalog.change(|db| {
            if !dir.is_dir() {
                fs::DirBuilder::new()
                    .mode(PRIVATE)
                    .create(&dir)
                    .doing("mkdir", &dir)?;
            }
            area.take(&tree, "old")?;
            fs::rename(&fresh, &tree).doing("rename", &fresh)?;
            sync_names_in(&dir).doing("fsync", &dir)?;
            layers::set_size(db, &layer.diff_id, size)
        })?;
        Ok(true)
    }

    fn check_images(&mut self, options: CheckOptions, report: &mut Report) -> Result<()> {
        for image in images::all(self.db())? {
            report.images += 1;
            let name = image.id.short();
            if Digest::of(&image.config) != image.id.digest() {
                report.add(
                    format!("image {name}: its configuration is damaged"),
                    false,
                    RELOAD,
                );
            }
            let manifest = images::latest_manifest(self.db(), &image.id)?;
            if Digest::of(&manifest.document) != manifest.digest {
                report.add(
                    format!("image {name}: its manifest is damaged"),
                    false,
                    RELOAD,
                );
            }
            let file = self.paths.images().join(config_file(&image.id));
            let found = match fs::read(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                found => Some(found.doing("read", &file)?),
            };
            if found.as_ref() != Some(&image.config) {
                if options.repair {
                    let area = Area::new(&self.paths)?;
                    let built = area.join("config");
                    fs::write(&built, &image.config).doing("write", &built)?;
                    sync_file(&built).doing("fsync", &built)?;
                    fs::rename(&built, &file).doing("rename", &built)?;
                    sync_names_in(&self.paths.images()).doing("fsync", &file)?;
                }
                report.add(
                    format!(
                        "image {name}: '{}' is not its configuration",
                        file.display()
                    ),
                    options.repair,
                    REPAIR,
                );
            }
        }
        Ok(())
    }

    fn check_containers(&mut self, options: CheckOptions, report: &mut Report) -> Result<()> {
        for container in containers::all(self.db())? {
            report.containers += 1;
            let dir = self.paths.container(&container.id);
            let there = directories_in(&dir).doing("read", &dir)?;
            for part in container.driver.parts() {
                let path = dir.join(part);
                if there.contains(OsStr::new(part)) {
                    continue;
                }
                // An upper that is gone cannot be made up for.
                let can = options.repair && *part != "upper" && container.driver == Driver::Fuse;
                if can {
                    fs::DirBuilder::new()
                        .recursive(true)
                        .mode(PRIVATE)
                        .create(&path)
                        .doing("mkdir", &path)?;
                    sync_names_in(&dir).doing("fsync", &dir)?;
                }
                report.add(
                    format!(
                        "container {}: '{}' is missing",
                        container.name,
                        path.display()
                    ),
                    can,
                    "remove the container (unionmount container rm)",
                );
            }
        }
        Ok(())
    }

    fn check_volumes(&mut self, options: CheckOptions, report: &mut Report) -> Result<()> {
        for volume in volumes::all(self.db())? {
            report.volumes += 1;
            let data = self.paths.volume_data(&volume.name);
            if is_dir(&data).doing("stat", &data)? {
                continue;
            }
            if options.repair {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(PRIVATE)
                    .create(&data)
                    .doing("mkdir", &data)?;
                for dir in [data.parent().unwrap_or(&data), &self.paths.volumes()] {
                    sync_names_in(dir).doing("fsync", dir)?;
                }
            }
            report.add(
                format!(
                    "volume {}: '{}' is missing; it is empty now",
                    volume.name,
                    data.display()
                ),
                options.repair,
                "restore it from a backup, or remove the volume",
            );
        }
        Ok(())
    }
}

/// Whether a directory is there. What cannot be told is an error, not an answer.
fn is_dir(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if is_missing(&error) => Ok(false),
        meta => Ok(meta?.is_dir()),
    }
}

/// The directories in a directory that may be missing, by what it says itself: a mountpoint is not touched, whose daemon may
/// be dead or suspended.
fn directories_in(dir: &Path) -> io::Result<HashSet<OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_missing(&error) => return Ok(HashSet::new()),
        entries => entries?,
    };
    let mut directories = HashSet::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.insert(entry.file_name());
        }
    }
    Ok(directories)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
