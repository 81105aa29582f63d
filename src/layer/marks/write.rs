//! The one writer of whiteouts and opaque marks, in every form.
//!
//! Each function makes or removes one mark. In which order marks and entries change is up to those
//! who call: a `.wh.` file never hides an entry of its own layer, so it may be there beside it; a
//! mark at the name itself is made elsewhere and moved there, where an entry is to be replaced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, mknodat, openat, unlinkat};
use rustix::io::{Errno, Result};

use super::names::{OPAQUE_FILE, whiteout_name};
use super::read::{METACOPY_XATTRS, REDIRECT_XATTRS};
use crate::layer::dir::os;
use crate::layer::object::WritableObject;
use crate::layer::xattr::XattrPath;

/// The mode of mark files: they have no content, and no reader opens them.
const MARK_MODE: Mode = Mode::RUSR.union(Mode::RGRP).union(Mode::ROTH);

/// The namespaces in which kernel overlayfs keeps its marks, in the order in which they are tried.
pub(crate) const NAMESPACES: [&str; 2] = ["trusted.", "user."];

/// What the opaque xattr of a directory says. It has room for one of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpaqueValue {
    /// The directory hides everything below it.
    Opaque,
    /// Empty files in it may be whiteouts by xattr.
    HoldsXattrWhiteouts,
}

impl OpaqueValue {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Opaque => b"y",
            Self::HoldsXattrWhiteouts => b"x",
        }
    }
}

/// Makes the file that hides `hidden` from beside it. That it is there already is fine. Errors:
/// ENAMETOOLONG when the file's name would be longer than a name may be; those of mknod(2).
pub(crate) fn create_whiteout_file(dir: impl AsFd, hidden: &[u8]) -> Result<()> {
    let name = whiteout_name(hidden).ok_or(Errno::NAMETOOLONG)?;
    create_mark_file(dir, &name)
}

/// Removes the file that hides `hidden` from beside it, if a name of that length can have one.
/// Errors: those of unlink(2), ENOENT when it is not there.
pub(crate) fn remove_whiteout_file(dir: impl AsFd, hidden: &[u8]) -> Result<()> {
    match whiteout_name(hidden) {
        Some(name) => unlinkat(dir, os(&name), AtFlags::empty()),
        None => Ok(()),
    }
}

/// Makes the file by which its directory hides everything below it. That it is there already is
/// fine. Errors: those of mknod(2).
pub(crate) fn create_opaque_file(dir: impl AsFd) -> Result<()> {
    create_mark_file(dir, OPAQUE_FILE)
}

/// Removes that file. Errors: those of unlink(2).
pub(crate) fn remove_opaque_file(dir: impl AsFd) -> Result<()> {
    unlinkat(dir, os(OPAQUE_FILE), AtFlags::empty())
}

fn create_mark_file(dir: impl AsFd, name: &[u8]) -> Result<()> {
    match mknodat(dir, os(name), FileType::RegularFile, MARK_MODE, 0) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Makes a 0/0 device: a whiteout of the name that it has. Errors: EEXIST, those of mknod(2).
pub(crate) fn create_whiteout_device(dir: impl AsFd, name: &[u8]) -> Result<()> {
    mknodat(dir, os(name), FileType::CharacterDevice, Mode::empty(), 0)
}

/// Makes an empty file with the whiteout xattr: a whiteout of the name that it has, in a directory
/// that says that there are such files. Uses the first of `namespaces` that may be written.
///
/// A crash between both steps leaves an empty file that hides nothing; where the xattr cannot be
/// set that file is removed again. Errors: those of mknod(2) but EEXIST, and of setxattr(2).
pub(crate) fn create_xattr_whiteout(
    dir: &Arc<OwnedFd>,
    name: &[u8],
    namespaces: &[&str],
) -> Result<()> {
    create_mark_file(dir, name)?;
    let set = set_whiteout_xattr(dir, name, namespaces);
    if set.is_err()
        && let Err(errno) = unlinkat(dir, os(name), AtFlags::empty())
    {
        log::warn!("unlink whiteout {}: {errno}", name.escape_ascii());
    }
    set
}

fn set_whiteout_xattr(dir: &Arc<OwnedFd>, name: &[u8], namespaces: &[&str]) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = Arc::new(openat(dir, os(name), flags, Mode::empty())?);
    set_overlay_xattr(&file, namespaces, "whiteout", b"y")
}

/// Sets the opaque xattr of a directory, in the first of `namespaces` that may be written. Errors:
/// those of setxattr(2) in the last of them.
pub(crate) fn set_opaque_xattr(
    dir: &Arc<OwnedFd>,
    namespaces: &[&str],
    value: OpaqueValue,
) -> Result<()> {
    set_overlay_xattr(dir, namespaces, "opaque", value.bytes())
}

/// Returns what the opaque xattr of a directory says in the first of `namespaces` that has one with
/// a meaning. Errors: those of getxattr(2).
pub(crate) fn opaque_xattr(dir: &Arc<OwnedFd>, namespaces: &[&str]) -> Result<Option<OpaqueValue>> {
    let xattrs = XattrPath::of_fd(Arc::clone(dir));
    for namespace in namespaces {
        let name = format!("{namespace}overlay.opaque");
        let value = xattrs.get_opt(name.as_bytes())?;
        let known = [OpaqueValue::Opaque, OpaqueValue::HoldsXattrWhiteouts];
        if let Some(value) = known
            .into_iter()
            .find(|known| value.as_deref() == Some(known.bytes()))
        {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Has a directory say where it continues in the layers below. Errors: those of setxattr(2).
pub(crate) fn set_redirect(dir: &WritableObject, namespace: &str, target: &[u8]) -> Result<()> {
    let name = format!("{namespace}overlay.redirect");
    dir.set_xattr(name.as_bytes(), target, XattrFlags::empty())
}

/// Takes the redirect off a directory, in either namespace. Errors: those of getxattr(2) and
/// removexattr(2).
pub(crate) fn remove_redirect(dir: &WritableObject) -> Result<()> {
    let xattrs = dir.xattrs();
    for xattr in REDIRECT_XATTRS.map(str::as_bytes) {
        if xattrs.get_opt(xattr)?.is_some() {
            dir.remove_xattr(xattr)?;
        }
    }
    Ok(())
}

/// Takes off a file that the layer has its attributes only, in either namespace. A crash between
/// both leaves it saying so. Errors: those of removexattr(2).
pub(crate) fn remove_metacopy(file: &WritableObject) -> Result<()> {
    for xattr in METACOPY_XATTRS {
        match file.remove_xattr(xattr.as_bytes()) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn set_overlay_xattr(
    fd: &Arc<OwnedFd>,
    namespaces: &[&str],
    name: &str,
    value: &[u8],
) -> Result<()> {
    let object = WritableObject::new(Arc::clone(fd), None);
    let mut set = Err(Errno::OPNOTSUPP);
    for namespace in namespaces {
        let name = format!("{namespace}overlay.{name}");
        set = object.set_xattr(name.as_bytes(), value, XattrFlags::empty());
        if set.is_ok() {
            break;
        }
    }
    set
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::layer::marks::read::{has_whiteout_xattr, is_opaque, marks_by_xattr};
    use crate::layer::{FdCache, ReadOnlyDir};

    fn layer(dir: &tempfile::TempDir) -> (Arc<OwnedFd>, ReadOnlyDir) {
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let layer = ReadOnlyDir::alone(open(), &FdCache::new(16));
        (Arc::new(open()), layer)
    }

    #[test]
    fn what_is_written_is_read() {
        let temporary = tempfile::tempdir().unwrap();
        let (fd, layer) = layer(&temporary);
        create_whiteout_file(&fd, b"a").unwrap();
        create_whiteout_file(&fd, b"a").unwrap();
        assert!(temporary.path().join(".wh.a").exists());
        remove_whiteout_file(&fd, b"a").unwrap();
        assert_eq!(remove_whiteout_file(&fd, b"a"), Err(Errno::NOENT));
        let long = [b'x'; 252];
        assert_eq!(create_whiteout_file(&fd, &long), Err(Errno::NAMETOOLONG));
        remove_whiteout_file(&fd, &long).unwrap();
        create_opaque_file(&fd).unwrap();
        assert!(is_opaque(&layer));
        remove_opaque_file(&fd).unwrap();
        assert!(!is_opaque(&layer));
    }

    #[test]
    fn a_whiteout_by_xattr_counts_where_it_is_announced() {
        let temporary = tempfile::tempdir().unwrap();
        let (fd, layer) = layer(&temporary);
        create_xattr_whiteout(&fd, b"gone", &NAMESPACES).unwrap();
        create_xattr_whiteout(&fd, b"gone", &NAMESPACES).unwrap();
        let hides = || {
            let marks = marks_by_xattr(&layer.xattrs().unwrap()).unwrap();
            let entry = layer.xattrs_of(b"gone").unwrap();
            marks.xattr_whiteouts && has_whiteout_xattr(&entry).unwrap()
        };
        assert!(!hides());
        assert_eq!(opaque_xattr(&fd, &NAMESPACES), Ok(None));
        set_opaque_xattr(&fd, &NAMESPACES, OpaqueValue::HoldsXattrWhiteouts).unwrap();
        assert!(hides() && !is_opaque(&layer));
        set_opaque_xattr(&fd, &NAMESPACES, OpaqueValue::Opaque).unwrap();
        assert!(!hides() && is_opaque(&layer));
        assert_eq!(
            opaque_xattr(&fd, &NAMESPACES),
            Ok(Some(OpaqueValue::Opaque))
        );
    }
}
