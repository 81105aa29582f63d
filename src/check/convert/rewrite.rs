//! Rewriting the marks of one directory after the other.

use rustix::fs::RenameFlags;
use rustix::io::{Errno, Result};

use super::times::Times;
use super::{Converted, Form};
use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::marks::inventory::Marks;
use crate::layer::marks::write::{
    OpaqueValue, create_opaque_file, create_whiteout_device, create_whiteout_file,
    remove_opaque_file, remove_whiteout_file, set_opaque_xattr,
};
use crate::layer::marks::{WH_PREFIX, whiteout_name};
use crate::layer::remove;
use crate::layer::stat::Kind;

/// The name under which a device is made before it takes the place of a file: readers pass over
/// such names.
const STAGED: &[u8] = b".wh..wh.convert";

/// How the marks of a layer are rewritten, and what was done so far.
pub(super) struct Rewrite {
    pub(super) to: Form,
    /// The xattr that stores a directory's times.
    pub(super) times: String,
    /// `.wh.` names are ordinary ones.
    pub(super) plain_names: bool,
    /// Where the xattr is that makes a directory opaque: `trusted.` or `user.`.
    pub(super) namespace: &'static str,
    pub(super) done: Converted,
}

impl Rewrite {
    /// Rewrites the marks of one directory, and returns the directories in it.
    ///
    /// The new marks are made first and brought to the disk, then the old ones are removed: a crash
    /// leaves marks of either form or of both, and the times of the directory in an xattr.
    pub(super) fn directory(&mut self, dir: &WritableDir) -> Result<Vec<Name>> {
        let marks = Marks::read(dir, self.plain_names)?;
        let times = Times::before(dir, self.times.as_bytes(), marks.any())?;
        let changed = match self.to {
            Form::Wh => self.write_files(dir, &marks)?,
            Form::Char => self.write_devices(dir, &marks)?,
        };
        if changed || times.interrupted {
            times.restore(dir)?;
        }
        match dir.this()?.remove_xattr(self.times.as_bytes()) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(marks.directories),
            Err(errno) => Err(errno),
        }
    }

    /// Towards `.wh.` files. Returns whether anything was changed.
    fn write_files(&mut self, dir: &WritableDir, marks: &Marks) -> Result<bool> {
        let is_short = |name: &&Name| whiteout_name(name).is_some();
        let in_place = || marks.devices.iter().chain(&marks.xattr_files);
        self.done.kept += in_place().filter(|name| !is_short(name)).count();
        let mut changed = false;
        for name in in_place().filter(is_short) {
            create_whiteout_file(dir.fd()?, name)?;
            self.done.whiteouts += 1;
            changed = true;
        }
        if !marks.opaque_xattrs.is_empty() {
            create_opaque_file(dir.fd()?)?;
            self.done.opaque += 1;
            changed = true;
        }
        // Xattr whiteouts whose names are too long for the other form stay, and so does what
        // announces them.
        let all_short = marks.xattr_files.iter().all(|name| is_short(&name));
        let announces = !marks.announcing_xattrs.is_empty() && all_short;
        if !changed && !announces {
            return Ok(false);
        }
        rustix::fs::fsync(dir.fd()?)?;
        for name in in_place().filter(is_short) {
            dir.unlink(name)?;
        }
        for xattr in &marks.opaque_xattrs {
            remove_xattr(dir, xattr)?;
        }
        if announces {
            for xattr in &marks.announcing_xattrs {
                remove_xattr(dir, xattr)?;
            }
        }
        Ok(true)
    }

    /// Towards devices and xattrs. Returns whether anything was changed.
    fn write_devices(&mut self, dir: &WritableDir, marks: &Marks) -> Result<bool> {
        // Before the directory stops saying that there are such files.
        self.devices_for_xattr_files(dir, marks)?;
        for name in &marks.beside {
            self.hide_in_place(dir, name)?;
            self.done.whiteouts += 1;
        }
        let replaced = self.opaque_for_others(dir, marks)?;
        if !replaced.any
            && marks.beside.is_empty()
            && marks.xattr_files.is_empty()
            && marks.leftovers.is_empty()
        {
            return Ok(false);
        }
        rustix::fs::fsync(dir.fd()?)?;
        for name in &marks.beside {
            remove_whiteout_file(dir.fd()?, name)?;
        }
        if marks.opaque_file {
            remove_opaque_file(dir.fd()?)?;
        }
        for xattr in replaced.xattrs {
            remove_xattr(dir, xattr)?;
        }
        for name in &marks.leftovers {
            remove_leftover(dir, name)?;
            self.done.leftovers += 1;
        }
        Ok(true)
    }

    /// Hides a name in the layers below by what has it: a device, or a directory that is opaque.
    fn hide_in_place(&mut self, dir: &WritableDir, name: &Name) -> Result<()> {
        match dir.stat_on_disk(name) {
            Err(Errno::NOENT) => create_whiteout_device(dir.fd()?, name),
            Ok(stat) if stat.kind() == Kind::Dir => {
                let inner = dir.child(name);
                let marks = Marks::read(&inner, false)?;
                self.devices_for_xattr_files(&inner, &marks)?;
                self.make_opaque(&inner)
            }
            // What hides the name is the entry itself.
            Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a directory opaque in our form if it is so in another one, and has it no longer
    /// announce xattr whiteouts. Returns what is to be removed then.
    fn opaque_for_others(&mut self, dir: &WritableDir, marks: &Marks) -> Result<Replaced> {
        let ours = format!("{}overlay.opaque", self.namespace);
        let ours = ours.as_bytes();
        let others = |xattrs: &[&'static [u8]]| -> Vec<&'static [u8]> {
            let others = xattrs.iter().filter(|xattr| **xattr != ours);
            others.copied().collect()
        };
        let mut xattrs = others(&marks.opaque_xattrs);
        let is_opaque = marks.opaque_file || !xattrs.is_empty();
        if is_opaque {
            self.make_opaque(dir)?;
            self.done.opaque += 1;
        } else if marks.announcing_xattrs.contains(&ours) && !marks.opaque_xattrs.contains(&ours) {
            remove_xattr(dir, ours)?;
        }
        xattrs.extend(others(&marks.announcing_xattrs));
        Ok(Replaced {
            any: is_opaque || !marks.announcing_xattrs.is_empty(),
            xattrs,
        })
    }

    /// Each by one rename, from a name that no reader looks at.
    fn devices_for_xattr_files(&mut self, dir: &WritableDir, marks: &Marks) -> Result<()> {
        for name in &marks.xattr_files {
            match create_whiteout_device(dir.fd()?, STAGED) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            dir.rename(STAGED, dir, name, RenameFlags::empty())?;
            self.done.whiteouts += 1;
        }
        Ok(())
    }

    fn make_opaque(&self, dir: &WritableDir) -> Result<()> {
        set_opaque_xattr(&dir.fd()?, &[self.namespace], OpaqueValue::Opaque)
    }
}

/// What our opaque xattr stands for now.
struct Replaced {
    /// There was something.
    any: bool,
    /// Xattrs that say the same, or announce xattr whiteouts.
    xattrs: Vec<&'static [u8]>,
}

fn remove_xattr(dir: &WritableDir, xattr: &[u8]) -> Result<()> {
    match dir.this()?.remove_xattr(xattr) {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

/// Removes `.wh..wh.` and more, as AUFS had it, or what a killed conversion staged. That something
/// else has been moved over it is fine.
fn remove_leftover(dir: &WritableDir, name: &Name) -> Result<()> {
    debug_assert!(name.starts_with(WH_PREFIX));
    match remove::remove(dir.fd()?, name) {
        Ok(_) => Ok(()),
        Err(failure) => {
            log::warn!("{failure}");
            Err(failure.errno)
        }
    }
}
