//! What the xattrs of a directory and of an entry of it say.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use super::names::{OPAQUE_FILE, whiteout_name};
use super::own::{WHITEOUT_RENAME, is_own_xattr};
use crate::layer::dir::{Dir, os};
use crate::layer::stat::{Kind, Stat};
use crate::layer::xattr::XattrPath;

/// The xattrs that mark a directory opaque (`y`), or as one that holds whiteouts by xattr (`x`).
pub(crate) const OPAQUE_XATTRS: [&[u8]; 3] = [
    b"trusted.overlay.opaque",
    b"user.overlay.opaque",
    b"user.fuseoverlayfs.opaque",
];
/// The xattrs that make an empty file a whiteout, where the directory says that there are such
/// files.
const WHITEOUT_XATTRS: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];
/// The xattrs by which a renamed directory names its lower one.
pub(crate) const REDIRECT_XATTRS: [&str; 2] = ["trusted.overlay.redirect", "user.overlay.redirect"];
/// The xattrs of a file of which the layer has the attributes only.
pub(crate) const METACOPY_XATTRS: [&str; 2] = ["trusted.overlay.metacopy", "user.overlay.metacopy"];

/// The xattrs that say: a directory of an upper may hold entries with an origin or a redirect.
const IMPURE_XATTRS: [&[u8]; 4] = [
    b"trusted.overlay.unionmount.impure",
    b"user.fuseoverlayfs.unionmount.impure",
    b"trusted.overlay.impure",
    b"user.overlay.impure",
];

/// What the xattrs of a directory in a layer say about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirMarks {
    /// Hides everything in the layers below.
    pub opaque: bool,
    /// Empty files in it may be whiteouts by xattr.
    pub xattr_whiteouts: bool,
    /// Entries in it may carry the `st_ino` of what they were copied up from.
    pub impure: bool,
    /// It says of an entry that the whiteout device there is a device of the merged view (see
    /// [`WHITEOUT_RENAME`]).
    pub leaving: bool,
}

impl DirMarks {
    /// Whether an entry of a type, as getdents(2) tells it, may be a whiteout, so that it has to be
    /// looked at with [`DirMarks::is_whiteout`].
    #[must_use]
    pub(crate) fn may_be_whiteout(self, kind: Option<Kind>) -> bool {
        match kind {
            None | Some(Kind::Char) => true,
            Some(Kind::File) => self.xattr_whiteouts,
            Some(_) => false,
        }
    }

    /// Whether an entry of the directory is a whiteout at the name itself: a 0/0 device, or a file
    /// with the whiteout xattr where the directory says that there are such. Errors: ENOENT when
    /// the name is gone, those of getxattr(2).
    pub(crate) fn is_whiteout(self, dir: &Dir, name: &[u8]) -> Result<bool> {
        let stat = dir.stat_on_disk(name)?;
        if stat.is_whiteout_device() {
            return Ok(true);
        }
        if !self.xattr_whiteouts || stat.kind() != Kind::File {
            return Ok(false);
        }
        has_whiteout_xattr(&dir.xattrs_of(name)?)
    }
}

/// Whether what has a name is a whiteout at the name itself, if its directory says that there are
/// such files. Something that is not there is none. Errors: those of statx(2) and openat(2).
pub(crate) fn may_be_whiteout_at(dir: impl AsFd, name: &[u8]) -> Result<bool> {
    let stat = match Stat::of_entry(&dir, os(name)) {
        Err(Errno::NOENT) => return Ok(false),
        other => other?,
    };
    if stat.kind() != Kind::File || stat.size > 0 {
        return Ok(stat.is_whiteout_device());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, os(name), flags, Mode::empty())?;
    Ok(has_whiteout_xattr(&XattrPath::of_fd(Arc::new(file))).unwrap_or(false))
}

/// Whether a file carries the xattr that makes it a whiteout. Errors: those of getxattr(2).
pub(crate) fn has_whiteout_xattr(entry: &XattrPath) -> Result<bool> {
    for xattr in WHITEOUT_XATTRS {
        if entry.get_opt(xattr.as_bytes())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the marks among a directory's xattrs: `names` is what listxattr(2) returned, `value`
/// fetches one.
pub(crate) fn dir_marks(names: &[u8], mut value: impl FnMut(&[u8]) -> Vec<u8>) -> DirMarks {
    let mut marks = DirMarks::default();
    for name in names.split(|byte| *byte == 0).filter(|n| !n.is_empty()) {
        if OPAQUE_XATTRS.contains(&name) {
            match value(name).as_slice() {
                b"y" => marks.opaque = true,
                b"x" => marks.xattr_whiteouts = true,
                _ => {}
            }
        } else if IMPURE_XATTRS.contains(&name) {
            marks.impure = true;
        } else if is_own_xattr(name, WHITEOUT_RENAME) {
            marks.leaving = true;
        }
    }
    marks
}

/// Returns the marks of a directory by its xattrs. A value that cannot be read counts as none.
/// Errors: those of listxattr(2).
pub(crate) fn marks_by_xattr(xattrs: &XattrPath) -> Result<DirMarks> {
    let names = xattrs.list()?;
    Ok(dir_marks(&names, |name| {
        xattrs.get(name).unwrap_or_default()
    }))
}

/// The same, where a value that cannot be read is an error: EACCES of getxattr(2), for example.
pub(crate) fn marks_by_readable_xattr(xattrs: &XattrPath) -> Result<DirMarks> {
    let names = xattrs.list()?;
    let mut failed = None;
    let marks = dir_marks(&names, |name| {
        xattrs.get(name).unwrap_or_else(|errno| {
            failed = Some(errno);
            Vec::new()
        })
    });
    failed.map_or(Ok(marks), Err)
}

/// Whether an xattr of a directory says that it hides what lies below it. One that cannot be read
/// says nothing.
pub(crate) fn has_opaque_xattr(dir: &Dir) -> bool {
    let marks = dir.xattrs().and_then(|xattrs| marks_by_xattr(&xattrs));
    marks.is_ok_and(|marks| marks.opaque)
}

/// Whether a directory, in which `.wh.` names are marks, hides what lies below it.
pub(crate) fn is_opaque(dir: &Dir) -> bool {
    has_opaque_xattr(dir) || dir.stat_entry(OPAQUE_FILE).is_ok()
}

/// Whether a `.wh.` file beside a name hides it. Errors: those of statx(2).
pub(crate) fn has_whiteout_file(dir: &Dir, hidden: &[u8]) -> Result<bool> {
    match whiteout_name(hidden) {
        Some(name) => exists(dir, &name),
        None => Ok(false),
    }
}

/// Whether there is a file by which the directory hides everything below it. Errors: those of
/// statx(2).
pub(crate) fn has_opaque_file(dir: &Dir) -> Result<bool> {
    exists(dir, OPAQUE_FILE)
}

fn exists(dir: &Dir, name: &[u8]) -> Result<bool> {
    match dir.stat_on_disk(name) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a name is that of the xattr of a file of which the layer has the attributes only.
pub(crate) fn is_metacopy_xattr(name: &[u8]) -> bool {
    METACOPY_XATTRS.iter().any(|xattr| xattr.as_bytes() == name)
}

/// Whether the names of its xattrs say of a file that the layer has its attributes only.
pub(crate) fn is_metacopy(names: &[u8]) -> bool {
    lists_any(names, &METACOPY_XATTRS)
}

/// Whether the names of its xattrs say of a directory that it continues below under another name.
pub(crate) fn is_redirected(names: &[u8]) -> bool {
    lists_any(names, &REDIRECT_XATTRS)
}

fn lists_any(names: &[u8], wanted: &[&str]) -> bool {
    names
        .split(|byte| *byte == 0)
        .any(|name| wanted.iter().any(|wanted| wanted.as_bytes() == name))
}

/// Returns where a renamed directory of a layer continues in the layers below, if it says so.
pub(crate) fn redirect(xattrs: &XattrPath) -> Option<Vec<u8>> {
    REDIRECT_XATTRS
        .iter()
        .find_map(|xattr| xattrs.get_opt(xattr.as_bytes()).ok().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_marks_are_read_from_xattrs() {
        let list = b"user.a\0user.overlay.opaque\0trusted.overlay.impure\0";
        let marks = dir_marks(list, |_| b"y".to_vec());
        let want = DirMarks {
            opaque: true,
            impure: true,
            xattr_whiteouts: false,
            leaving: false,
        };
        assert_eq!(marks, want);
        let marks = dir_marks(b"trusted.overlay.opaque\0", |_| b"x".to_vec());
        assert!(!marks.opaque && marks.xattr_whiteouts);
        let marks = dir_marks(b"user.fuseoverlayfs.opaque\0", |_| b"n".to_vec());
        assert_eq!(marks, DirMarks::default());
    }

    #[test]
    fn only_some_types_may_be_whiteouts() {
        let plain = DirMarks::default();
        let announcing = DirMarks {
            xattr_whiteouts: true,
            ..plain
        };
        for (kind, in_plain, in_announcing) in [
            (None, true, true),
            (Some(Kind::Char), true, true),
            (Some(Kind::File), false, true),
            (Some(Kind::Dir), false, false),
            (Some(Kind::Symlink), false, false),
        ] {
            assert_eq!(plain.may_be_whiteout(kind), in_plain, "{kind:?}");
            assert_eq!(announcing.may_be_whiteout(kind), in_announcing, "{kind:?}");
        }
    }
}
