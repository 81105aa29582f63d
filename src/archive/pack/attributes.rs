//! What the xattrs of an object in an upper say of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::flistxattr;
use rustix::io::Errno;

use crate::archive::error::{Context as _, Result};
use crate::archive::merged::{is_kept, sorted};
use crate::archive::tar::Xattr;
use crate::layer::marks::own::is_own_xattr;
use crate::layer::marks::{DEVICE_XATTR, DirMarks, read};
use crate::layer::stat::Stat;
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::seen;

/// So many bytes of names of xattrs are read without asking how many there are.
const USUAL_NAMES: usize = 256;

/// Whether a file has its attributes only, as the union finds out: one that has as many blocks as
/// it needs is not looked at, unless its directory holds copies.
pub(super) fn is_metacopy(stat: &Stat, marks: &DirMarks, names: &[u8]) -> bool {
    (stat.blocks * 512 < stat.size || marks.impure) && read::is_metacopy(names)
}

/// The names of the xattrs of an open file, as [`XattrPath::list`] returns them.
pub(super) fn names_of(file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let mut names = [0; USUAL_NAMES];
    match flistxattr(file, &mut names) {
        Ok(len) => Ok(names[..len].to_vec()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(Errno::RANGE) => {
            XattrPath::of_fd(Arc::new(file.try_clone().map_err(|_| Errno::MFILE)?)).list()
        }
        Err(errno) => Err(errno),
    }
}

pub(super) fn own_device(names: &[u8]) -> bool {
    let mut names = names.split(|byte| *byte == 0);
    names.any(|name| is_own_xattr(name, DEVICE_XATTR))
}

/// The xattrs of an object of a layer as the merged view shows them, without bookkeeping.
pub(super) fn shown_xattrs(path: &XattrPath, names: &[u8]) -> Result<Vec<Xattr>> {
    let mut shown: Vec<Xattr> = Vec::new();
    for stored in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let Some(name) = seen(stored).filter(|seen| is_kept(&seen.name)) else {
            continue;
        };
        let Some(value) = path.get_opt(stored).context("getxattr", stored)? else {
            continue;
        };
        match shown.iter_mut().find(|(known, _)| *known == *name.name) {
            // One that is kept under another name stands for what the disk says.
            Some((_, known)) if name.kept => *known = value,
            Some(_) => {}
            None => shown.push((name.name.into_owned(), value)),
        }
    }
    Ok(sorted(shown))
}
