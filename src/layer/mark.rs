//! Every on-disk form of whiteout and opaque mark.
//!
//! | form | found in |
//! | --- | --- |
//! | `.wh.NAME` file, `.wh..wh..opq` in a directory | OCI image layers (image-spec `layer.md`), AUFS |
//! | character device 0/0 at the name itself | kernel overlayfs (`overlayfs.rst`, "whiteouts and opaque directories") |
//! | xattr `overlay.opaque` = `y` (`trusted.` or `user.`), `user.fuseoverlayfs.opaque` = `y` | kernel overlayfs, fuse-overlayfs |
//! | empty file with xattr `overlay.whiteout`, in a directory with `overlay.opaque` = `x` | composefs, kernel >= 6.8 |
//! | other `.wh..wh.*` names | AUFS leftovers: hidden, without meaning |

/// Prefix of a whiteout file.
pub const WH_PREFIX: &[u8] = b".wh.";
/// Prefix of AUFS's own files.
pub const WH_META_PREFIX: &[u8] = b".wh..wh.";
/// The file that makes its directory opaque.
pub const OPAQUE_FILE: &[u8] = b".wh..wh..opq";
/// Longest name a directory entry can have (NAME_MAX of Linux).
pub const NAME_MAX: usize = 255;

/// The xattrs that mark a directory opaque (`y`), or as one that holds whiteouts by xattr (`x`).
pub const OPAQUE_XATTRS: [&[u8]; 3] = [
    b"trusted.overlay.opaque",
    b"user.overlay.opaque",
    b"user.fuseoverlayfs.opaque",
];
/// The xattrs that make an empty file a whiteout, where the directory says that there are such files.
pub const WHITEOUT_XATTRS: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];
/// The xattrs by which a renamed directory names its lower one.
pub const REDIRECT_XATTRS: [&str; 2] = ["trusted.overlay.redirect", "user.overlay.redirect"];

/// The xattrs of a file of which the layer has the attributes only.
pub const METACOPY_XATTRS: [&str; 2] = ["trusted.overlay.metacopy", "user.overlay.metacopy"];

/// What a name in a layer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameMeaning<'a> {
    /// An entry.
    Plain,
    /// The layers below have no entry of this name.
    Whiteout(&'a [u8]),
    /// The directory hides everything below it.
    Opaque,
    /// A leftover that is never shown.
    Leftover,
}

/// Reads a name as it stands in a layer.
#[must_use]
pub fn meaning(name: &[u8]) -> NameMeaning<'_> {
    if name == OPAQUE_FILE {
        return NameMeaning::Opaque;
    }
    if name.starts_with(WH_META_PREFIX) {
        return NameMeaning::Leftover;
    }
    match name.strip_prefix(WH_PREFIX) {
        // `.wh.`, `.wh..` and `.wh...` would name nothing, the directory itself or its parent.
        Some(b"" | b"." | b"..") => NameMeaning::Leftover,
        Some(hidden) => NameMeaning::Whiteout(hidden),
        None => NameMeaning::Plain,
    }
}

/// How a whiteout that is on the disk hides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A `.wh.NAME` file beside the name.
    Beside,
    /// Something at the name itself: a 0/0 device, or an empty file with the whiteout xattr.
    InPlace,
}

/// The whiteout file of a name; `None` when that would be longer than a name may be.
#[must_use]
pub fn whiteout_name(name: &[u8]) -> Option<Vec<u8>> {
    if name.len() + WH_PREFIX.len() > NAME_MAX {
        return None;
    }
    let mut whiteout = Vec::with_capacity(WH_PREFIX.len() + name.len());
    whiteout.extend_from_slice(WH_PREFIX);
    whiteout.extend_from_slice(name);
    Some(whiteout)
}

/// The prefix of our own xattrs where `trusted.` ones are permitted; kernel overlayfs hides all `trusted.overlay.`.
pub const TRUSTED_PREFIX: &str = "trusted.overlay.unionmount.";
/// The prefix of our own xattrs elsewhere; fuse-overlayfs hides all `user.fuseoverlayfs.`, and podman takes it
/// for the sign of a store that was written through a mount program.
pub const USER_PREFIX: &str = "user.fuseoverlayfs.unionmount.";
/// Our xattr that names an entry of its directory which is a device of the merged view, although the disk has a whiteout
/// device there (`union/leaving.rs`).
pub const LEAVING: &str = "leaving";
/// Our xattr that makes an empty file of the upper a character device 0/0 of the merged view: as a device it would
/// hide what lies below. Another overlay that is stacked on this mount makes such devices for its own whiteouts.
pub const DEVICE_XATTR: &str = "device";
/// Our xattr of a directory of a layer that no entry of its archive describes: it was made since something is in it, and looks as
/// it does in the layers below. The value is what it looked like then ([`looks`]): one that was changed later looks as it does.
pub const IMPLIED: &str = "implied";
/// Our xattr of a layer's root: there are such directories in the layer.
pub const HAS_IMPLIED: &str = "has-implied";

/// The names of one of our xattrs, where `trusted.` ones are permitted and elsewhere.
#[must_use]
pub fn own_xattrs(name: &str) -> [String; 2] {
    [TRUSTED_PREFIX, USER_PREFIX].map(|prefix| format!("{prefix}{name}"))
}

/// Owner and mode in words, for [`IMPLIED`].
#[must_use]
pub fn looks(uid: u32, gid: u32, perm: u32) -> Vec<u8> {
    format!("{uid}:{gid}:{perm:o}").into_bytes()
}

/// The xattrs that say: a directory of an upper may hold entries with an origin or a redirect.
const IMPURE_XATTRS: [&[u8]; 4] = [
    b"trusted.overlay.unionmount.impure",
    b"user.fuseoverlayfs.unionmount.impure",
    b"trusted.overlay.impure",
    b"user.overlay.impure",
];

/// What the xattrs of a directory in a layer say about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirMarks {
    /// Hides everything in the layers below.
    pub opaque: bool,
    /// Empty files in it may be whiteouts by xattr.
    pub xattr_whiteouts: bool,
    /// Entries in it may carry the `st_ino` of what they were copied up from.
    pub impure: bool,
    /// It says so of an entry (see [`LEAVING`]).
    pub leaving: bool,
}

/// Reads the marks among a directory's xattrs: `names` is what listxattr(2) gave, `value` fetches one.
pub fn dir_marks(names: &[u8], mut value: impl FnMut(&[u8]) -> Vec<u8>) -> DirMarks {
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
        } else if [TRUSTED_PREFIX, USER_PREFIX]
            .iter()
            .any(|prefix| name.strip_prefix(prefix.as_bytes()) == Some(LEAVING.as_bytes()))
        {
            marks.leaving = true;
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_all_forms() {
        let table: [(&[u8], NameMeaning); 11] = [
            (b"a", NameMeaning::Plain),
            (b".wh", NameMeaning::Plain),
            (b".whx", NameMeaning::Plain),
            (b"x.wh.a", NameMeaning::Plain),
            (b".wh.a", NameMeaning::Whiteout(b"a")),
            (b".wh..a", NameMeaning::Whiteout(b".a")),
            (b".wh..wh..opq", NameMeaning::Opaque),
            (b".wh..wh.plnk", NameMeaning::Leftover),
            (b".wh.", NameMeaning::Leftover),
            (b".wh..", NameMeaning::Leftover),
            (b".wh...", NameMeaning::Leftover),
        ];
        for (name, want) in table {
            assert_eq!(meaning(name), want, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_whiteout_name_is_never_too_long() {
        assert_eq!(whiteout_name(b"a").as_deref(), Some(&b".wh.a"[..]));
        assert_eq!(whiteout_name(&[b'x'; 251]).map(|n| n.len()), Some(255));
        assert_eq!(whiteout_name(&[b'x'; 252]), None);
    }

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
}
