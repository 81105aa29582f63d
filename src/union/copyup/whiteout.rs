//! Whiteouts and opaque marks in the form of this union; [`crate::layer::marks::write`] makes each.
//!
//! In every form the order of steps leaves no window: with `.wh.` files the mark is written before
//! the entry goes, and removed after an entry came, because a mark beside an entry of the same
//! layer never hides it; with marks in place one rename replaces the entry by its mark and the
//! other way round.

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::marks::read::has_whiteout_xattr;
use crate::layer::marks::write::{
    OpaqueValue, create_opaque_file, create_whiteout_device, create_whiteout_file,
    create_xattr_whiteout, opaque_xattr, remove_whiteout_file, set_opaque_xattr,
};
use crate::layer::marks::{Mark, OPAQUE_FILE, whiteout_name};
use crate::union::error::{Context, Error, Result};
use crate::union::work::writable::Writable;

impl Writable {
    /// Returns the form in which a whiteout of `name` is written.
    pub(in crate::union) fn mark_for(&self, name: &[u8]) -> Mark {
        if self.char_marks || whiteout_name(name).is_none() {
            Mark::InPlace
        } else {
            Mark::Beside
        }
    }

    /// Writes a `.wh.` file. That it is there already is fine.
    pub(in crate::union) fn mark_beside(&self, dir: &WritableDir, name: &[u8]) -> Result<()> {
        dir.fd()
            .and_then(|fd| create_whiteout_file(fd, name))
            .context("create whiteout", name)
    }

    /// Removes a `.wh.` file, after an entry of the name came. It hides nothing any more, so a
    /// failure does not fail the operation.
    pub(in crate::union) fn clear_beside(&self, dir: &WritableDir, name: &[u8]) {
        if let Err(errno) = dir.fd().and_then(|fd| remove_whiteout_file(fd, name)) {
            log::warn!("unlink whiteout of {}: {errno}", name.escape_ascii());
        }
    }

    /// Builds a mark in the stage that hides a name when it is moved to it: a 0/0 device, or, where
    /// none can be made, an empty file with an xattr, which counts only in a directory that says
    /// so. The directory says so first: a crash leaves it saying that, and no such file.
    pub(in crate::union) fn stage_mark(&self, dir: &WritableDir) -> Result<Name> {
        let staged = self.stage.fresh_name();
        let stage = self.stage.dir().fd().context("open work directory", b".")?;
        if self.abilities.whiteout_devices {
            create_whiteout_device(stage, &staged).context("mknod whiteout", &staged)?;
            return Ok(staged);
        }
        let Some(namespace) = self.abilities.overlay_xattrs else {
            return Err(Error::rule(Errno::NAMETOOLONG));
        };
        let this = dir.fd().context("open directory", b".")?;
        if opaque_xattr(&this, &[namespace])
            .context("getxattr", b".")?
            .is_none()
        {
            set_opaque_xattr(&this, &[namespace], OpaqueValue::HoldsXattrWhiteouts)
                .context("setxattr", b".")?;
        }
        create_xattr_whiteout(&stage, &staged, &[namespace]).context("create whiteout", &staged)?;
        Ok(staged)
    }

    /// Puts a mark at the name itself, replacing an entry that is not a directory. One rename: a
    /// crash leaves the entry or its mark.
    pub(in crate::union) fn mark_in_place(&self, dir: &WritableDir, name: &[u8]) -> Result<()> {
        let staged = self.stage_mark(dir)?;
        let moved = self
            .stage
            .dir()
            .rename(&staged, dir, name, RenameFlags::empty());
        if moved.is_err() {
            self.stage.discard(&staged);
        }
        moved.context("rename whiteout", name)
    }

    /// One xattr says either that a directory is opaque or that whiteouts in it may be xattrs.
    /// Before it says the first, whiteouts of that kind become devices, each by one rename.
    fn devices_for_xattr_marks(&self, dir: &WritableDir, namespace: &str) -> Result<()> {
        let this = dir.fd().context("open directory", b".")?;
        let says = opaque_xattr(&this, &[namespace]).context("getxattr", b".")?;
        if says != Some(OpaqueValue::HoldsXattrWhiteouts) {
            return Ok(());
        }
        let mut names = Vec::new();
        dir.for_each(|name, _, _| names.push(Name::from(name)))
            .context("getdents", b".")?;
        for name in names {
            let xattrs = dir.xattrs_of(&name).context("open directory", b".")?;
            if has_whiteout_xattr(&xattrs).unwrap_or(false) {
                self.mark_in_place(dir, &name)?;
            }
        }
        Ok(())
    }

    /// Makes a directory hide everything below it. That it does already is fine.
    pub(in crate::union) fn make_opaque(&self, dir: &WritableDir) -> Result<()> {
        if self.char_marks
            && let Some(namespace) = self.abilities.overlay_xattrs
        {
            self.devices_for_xattr_marks(dir, namespace)?;
            return dir
                .fd()
                .and_then(|this| set_opaque_xattr(&this, &[namespace], OpaqueValue::Opaque))
                .context("setxattr opaque", b".");
        }
        dir.fd()
            .and_then(create_opaque_file)
            .context("create opaque mark", OPAQUE_FILE)
    }
}
