//! What a writable union needs of the upper's disk, proved by trying.

use std::path::Path;

use rustix::io::Errno;

use super::layers::Roots;
use super::stat_overrides::begin_records;
use crate::layer::WritableDir;
use crate::layer::marks::TRUSTED_PREFIX;
use crate::layer::marks::root::{
    KernelNamespaces, has_kernel_xattr, reads_plain_names, set_devices,
};
use crate::layer::probe::{FsFeatures, probe};
use crate::layer::xattr_name::XattrMapping;
use crate::union::config::{Config, Setup, SetupError, WhiteoutForm, cure_for_work};
use crate::union::copyup::publish_names::finish_publications;
use crate::union::work::stage::WorkDir;
use crate::union::work::writable::Writable;

/// Opens the writable side, if there is one, and says whether `.wh.` names of the upper are
/// ordinary names.
pub(super) fn open(config: &Config, roots: &Roots) -> Setup<(Option<Writable>, bool)> {
    let (Some(root), Some(path)) = (&roots.upper, &config.upper) else {
        return Ok((None, false));
    };
    if config.read_only {
        let auto = config.whiteout == WhiteoutForm::Auto;
        let plain = reads_plain_names(root) || (auto && has_kernel_xattr(root));
        return Ok((None, plain));
    }
    let Some(work) = &config.work else {
        return Err(SetupError::new(
            "an upper directory needs a work directory",
            "give one with --work, on the same file system",
        ));
    };
    let opening = Opening {
        config,
        root,
        path,
        work,
    };
    let stage = opening.open_work_dir(roots)?;
    opening.clean(&stage)?;
    let abilities = opening.try_abilities(&stage)?;
    let char_marks = opening.has_char_marks(&abilities);
    opening.check_abilities(&abilities, char_marks)?;
    if let Some(records) = root.records() {
        begin_records(records, root, stage.dir(), path)?;
    }
    let plain = char_marks && opening.has_plain_names(&abilities)?;
    let trusted = abilities.own_xattrs == Some(TRUSTED_PREFIX);
    let form = root.records().map(|records| records.form());
    let writable = Writable {
        stage,
        abilities,
        char_marks,
        keeping: XattrMapping::of(form, trusted),
    };
    Ok((Some(writable), plain))
}

/// An upper and its work directory that are being opened.
struct Opening<'a> {
    config: &'a Config,
    root: &'a WritableDir,
    path: &'a Path,
    work: &'a Path,
}

impl Opening<'_> {
    /// Opens and locks the work directory, which must be on the disk of the upper.
    fn open_work_dir(&self, roots: &Roots) -> Setup<WorkDir> {
        let stage = WorkDir::open(self.work, &roots.fds, self.root.records().cloned())?;
        let disk_of = |dir: &WritableDir| match dir.stat() {
            Ok(stat) => Ok(stat.dev),
            Err(errno) => Err(self.problem("cannot stat upper or work directory", errno)),
        };
        if disk_of(self.root)? != disk_of(stage.dir())? {
            return Err(SetupError::new(
                format!(
                    "work directory {} is not on the file system of the upper {}",
                    self.work.display(),
                    self.path.display()
                ),
                "give a work directory beside the upper",
            ));
        }
        Ok(stage)
    }

    /// Finishes or takes away what a killed mount left.
    fn clean(&self, stage: &WorkDir) -> Setup<()> {
        finish_publications(self.root, stage.dir())
            .map_err(|errno| self.problem("cannot finish what a killed mount left in", errno))?;
        stage
            .empty()
            .map_err(|errno| self.problem("cannot empty work directory", errno))
    }

    fn try_abilities(&self, stage: &WorkDir) -> Setup<FsFeatures> {
        let mut abilities = probe(stage.dir())
            .map_err(|errno| self.problem("cannot write to work directory", errno))?;
        // What the kernel wrote with `userxattr`, it reads that way again: `trusted.` marks would
        // mean nothing to it.
        if abilities.overlay_xattrs.is_some() && KernelNamespaces::of(self.root).only_user() {
            abilities.overlay_xattrs = Some("user.");
        }
        Ok(abilities)
    }

    /// Whether whiteouts are 0/0 devices.
    fn has_char_marks(&self, abilities: &FsFeatures) -> bool {
        match self.config.whiteout {
            WhiteoutForm::Wh if reads_plain_names(self.root) => {
                // Its `.wh.` names are ordinary entries: a whiteout of that form would be taken
                // for one.
                log::warn!(
                    "{} was begun with whiteout=char and goes on with it",
                    self.path.display()
                );
                true
            }
            WhiteoutForm::Wh => false,
            WhiteoutForm::Char => true,
            WhiteoutForm::Auto => {
                reads_plain_names(self.root)
                    || (has_kernel_xattr(self.root) && abilities.whiteout_devices)
            }
        }
    }

    /// Refuses an upper whose disk cannot store what the configuration asks for.
    fn check_abilities(&self, abilities: &FsFeatures, char_marks: bool) -> Setup<()> {
        let config = self.config;
        let rows = [
            (
                char_marks && !(abilities.whiteout_devices && abilities.overlay_xattrs.is_some()),
                "cannot store 0/0 devices and overlay xattrs",
                "mount with whiteout=wh (an upper that was begun with whiteout=char needs the rights it was begun with)",
            ),
            (
                char_marks && !(abilities.exchange && abilities.rename_whiteout),
                "knows no RENAME_EXCHANGE and RENAME_WHITEOUT, which whiteouts that are devices need",
                "mount with whiteout=wh",
            ),
            (
                config.redirect_dir && !abilities.rename_whiteout,
                "knows no RENAME_WHITEOUT, which redirects need",
                "mount without redirect_dir=on",
            ),
            (
                !char_marks && !abilities.whiteout_files,
                "cannot store whiteouts",
                "use an upper on a POSIX file system (ext4, xfs, btrfs, tmpfs), or mount with whiteout=char",
            ),
            (
                abilities.own_xattrs.is_none() && !config.no_xattrs,
                "cannot store extended attributes",
                "use another file system for the upper, or mount with noxattrs (inode numbers then change at a remount)",
            ),
        ];
        if let Some((_, what, cure)) = rows.into_iter().find(|(lacks, ..)| *lacks) {
            let disk = self.path.display();
            return Err(SetupError::new(
                format!("the file system of {disk} {what}"),
                cure,
            ));
        }
        if !abilities.hard_links {
            log::warn!(
                "the file system of {} has no hard links: files of a layer that have several names cannot be changed",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Whether `.wh.` names of the upper are ordinary: when devices were its whiteouts from the
    /// beginning.
    fn has_plain_names(&self, abilities: &FsFeatures) -> Setup<bool> {
        let root = self.root;
        if reads_plain_names(root) || has_kernel_xattr(root) {
            return Ok(true);
        }
        let mut empty = true;
        let problem = |errno| {
            SetupError::new(
                format!(
                    "cannot read and mark upper directory {}: {errno}",
                    self.path.display()
                ),
                "give a directory that you may read and write",
            )
            .caused_by(&errno)
        };
        root.for_each(|_, _, _| empty = false).map_err(problem)?;
        let Some(prefix) = abilities.own_xattrs.filter(|_| empty) else {
            return Ok(false);
        };
        set_devices(root, prefix).map_err(problem)?;
        Ok(true)
    }

    fn problem(&self, what: &str, errno: Errno) -> SetupError {
        SetupError::new(
            format!("{what} {}: {errno}", self.work.display()),
            cure_for_work(errno),
        )
        .caused_by(&errno)
    }
}
