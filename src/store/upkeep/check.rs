//! `system check`: does the disk have what the catalog says, and nothing else?
//!
//! Repairs only remove what nothing refers to, correct numbers, and unpack layers again from their
//! archives. They are made one by one; killed between two, the next check finds the rest.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::check_layer;
use super::report::{CheckOptions, RELOAD, REPAIR, Report, is_dir, is_missing};
use crate::archive::Digest;
use crate::archive::disk::{sync_file, sync_names_in};
use crate::store::Store;
use crate::store::base::{Area, Context, PRIVATE, Result, abandoned, config_file, time};
use crate::store::catalog::containers::{self, Driver};
use crate::store::catalog::images;
use crate::store::catalog::layers;
use crate::store::catalog::volumes::{self, Volume};

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
            check_layer::check(self, &layer, options, &mut report)?;
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
            // They stay: only their locks are released.
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

    /// Records volumes again that have content and were not removed.
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
                found => Some(found.context("read", &file)?),
            };
            if found.as_ref() != Some(&image.config) {
                if options.repair {
                    let area = Area::new(&self.paths)?;
                    let built = area.join("config");
                    fs::write(&built, &image.config).context("write", &built)?;
                    sync_file(&built).context("fsync", &built)?;
                    fs::rename(&built, &file).context("rename", &built)?;
                    sync_names_in(&self.paths.images()).context("fsync", &file)?;
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
            let there = directories_in(&dir).context("read", &dir)?;
            for part in container.driver.parts() {
                let path = dir.join(part);
                if there.contains(OsStr::new(part)) {
                    continue;
                }
                // An upper that is gone cannot be restored.
                let can = options.repair && *part != "upper" && container.driver == Driver::Fuse;
                if can {
                    fs::DirBuilder::new()
                        .recursive(true)
                        .mode(PRIVATE)
                        .create(&path)
                        .context("mkdir", &path)?;
                    sync_names_in(&dir).context("fsync", &dir)?;
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
            if is_dir(&data).context("stat", &data)? {
                continue;
            }
            if options.repair {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(PRIVATE)
                    .create(&data)
                    .context("mkdir", &data)?;
                for dir in [data.parent().unwrap_or(&data), &self.paths.volumes()] {
                    sync_names_in(dir).context("fsync", dir)?;
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

/// The directories in a directory that may be missing, by the types in its listing: a mountpoint is
/// not touched, whose daemon may be dead or suspended.
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
