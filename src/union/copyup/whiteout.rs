//! Writing whiteouts and opaque marks, in the form of this union.
//!
//! In every form the order of steps leaves no window: with `.wh.` files the mark is written before the entry
//! goes, and removed after an entry came, because a mark beside an entry of the same layer never hides it; with
//! marks in place one rename replaces the entry by its mark and the other way round.

use rustix::fs::{RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::layer::UpperDir;
use crate::layer::dir::Name;
use crate::layer::mark::{Mark, OPAQUE_FILE, WHITEOUT_XATTRS, whiteout_name};
use crate::layer::stat::Kind;
use crate::union::error::{During, Error, Result};
use crate::union::work::writable::Writable;

/// The mode of mark files: they have no content, and nobody needs to read them.
const MARK_MODE: u32 = 0o444;

impl Writable {
    /// The form in which a whiteout of `name` is written.
    pub(in crate::union) fn mark_for(&self, name: &[u8]) -> Mark {
        if self.char_marks || whiteout_name(name).is_none() {
            Mark::InPlace
        } else {
            Mark::Beside
        }
    }

    /// Writes a `.wh.` file. That it is there already is fine.
    pub(in crate::union) fn mark_beside(&self, dir: &UpperDir, name: &[u8]) -> Result<()> {
        let Some(mark) = whiteout_name(name) else {
            return Err(Error::rule(Errno::NAMETOOLONG));
        };
        match dir.mknod(&mark, Kind::File, MARK_MODE, 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno).during("create whiteout", &mark),
        }
    }

    /// Removes a `.wh.` file, after an entry of the name came. It hides nothing any more, so a failure does
    /// not fail the operation.
    pub(in crate::union) fn clear_beside(&self, dir: &UpperDir, name: &[u8]) {
        if let Some(mark) = whiteout_name(name)
            && let Err(errno) = dir.unlink(&mark)
        {
            log::warn!("unlink whiteout {}: {errno}", mark.escape_ascii());
        }
    }

    /// Builds a mark in the stage that hides a name when it is moved to it: a 0/0 device, or, where none can
    /// be made, an empty file with an xattr, which counts only in a directory that says so.
    pub(in crate::union) fn stage_mark(&self, dir: &UpperDir) -> Result<Name> {
        let staged = self.stage.fresh_name();
        if self.abilities.whiteout_devices {
            let made = self.stage.dir().mknod(&staged, Kind::Char, 0, 0);
            made.during("mknod whiteout", &staged)?;
            return Ok(staged);
        }
        let Some(namespace) = self.abilities.overlay_xattrs else {
            return Err(Error::rule(Errno::NAMETOOLONG));
        };
        let opaque = format!("{namespace}overlay.opaque");
        let xattrs = dir.xattrs().during("open directory", b".")?;
        if xattrs
            .get_opt(opaque.as_bytes())
            .during("getxattr", b".")?
            .is_none()
        {
            let this = dir.this().during("open directory", b".")?;
            this.set_xattr(opaque.as_bytes(), b"x", XattrFlags::empty())
                .during("setxattr", b".")?;
        }
        let stage = self.stage.dir();
        stage
            .mknod(&staged, Kind::File, MARK_MODE, 0)
            .during("create whiteout", &staged)?;
        let whiteout = format!("{namespace}overlay.whiteout");
        let set = stage.set_xattr(&staged, whiteout.as_bytes(), b"y", XattrFlags::empty());
        if set.is_err() {
            self.stage.discard(&staged);
        }
        set.during("setxattr", &staged)?;
        Ok(staged)
    }

    /// Puts a mark at the name itself, replacing an entry that is not a directory.
    pub(in crate::union) fn mark_in_place(&self, dir: &UpperDir, name: &[u8]) -> Result<()> {
        let staged = self.stage_mark(dir)?;
        let moved = self
            .stage
            .dir()
            .rename(&staged, dir, name, RenameFlags::empty());
        if moved.is_err() {
            self.stage.discard(&staged);
        }
        moved.during("rename whiteout", name)
    }

    /// One xattr says either that a directory is opaque or that whiteouts in it may be xattrs. Before it says the
    /// first, whiteouts of that kind become devices, each by one rename.
    fn devices_for_xattr_marks(&self, dir: &UpperDir, opaque: &[u8]) -> Result<()> {
        let xattrs = dir.xattrs().during("open directory", b".")?;
        if xattrs
            .get_opt(opaque)
            .during("getxattr", opaque)?
            .as_deref()
            != Some(b"x")
        {
            return Ok(());
        }
        let mut names = Vec::new();
        dir.for_each(|name, _, _| names.push(Name::from(name)))
            .during("getdents", b".")?;
        for name in names {
            let xattrs = dir.xattrs_of(&name).during("open directory", b".")?;
            let is_mark = WHITEOUT_XATTRS
                .iter()
                .any(|xattr| matches!(xattrs.get_opt(xattr.as_bytes()), Ok(Some(_))));
            if is_mark {
                self.mark_in_place(dir, &name)?;
            }
        }
        Ok(())
    }

    /// Makes a directory hide everything below it. That it does already is fine.
    pub(in crate::union) fn make_opaque(&self, dir: &UpperDir) -> Result<()> {
        if self.char_marks
            && let Some(namespace) = self.abilities.overlay_xattrs
        {
            let xattr = format!("{namespace}overlay.opaque");
            self.devices_for_xattr_marks(dir, xattr.as_bytes())?;
            return dir
                .this()
                .and_then(|this| this.set_xattr(xattr.as_bytes(), b"y", XattrFlags::empty()))
                .during("setxattr", xattr.as_bytes());
        }
        match dir.mknod(OPAQUE_FILE, Kind::File, MARK_MODE, 0) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno).during("create opaque mark", OPAQUE_FILE),
        }
    }
}
