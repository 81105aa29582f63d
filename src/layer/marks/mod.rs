//! Every on-disk form of whiteout and opaque mark, and the xattrs that we put beside them: the only
//! place that reads and writes them on a disk.
//!
//! | form | found in |
//! | --- | --- |
//! | `.wh.NAME` file, `.wh..wh..opq` in a directory | OCI image layers (image-spec `layer.md`), AUFS |
//! | character device 0/0 at the name itself | kernel overlayfs (`overlayfs.rst`, "whiteouts and opaque directories") |
//! | xattr `overlay.opaque` = `y` (`trusted.` or `user.`), `user.fuseoverlayfs.opaque` = `y` | kernel overlayfs, fuse-overlayfs |
//! | empty file with xattr `overlay.whiteout`, in a directory with `overlay.opaque` = `x` | composefs, kernel >= 6.8 |
//! | other `.wh..wh.*` names | AUFS leftovers: hidden, without meaning |
//!
//! * `names`: what a name in a layer means;
//! * `own`: our own xattrs, under either prefix;
//! * `read`: what the xattrs of a directory and of an entry say;
//! * `root`: what the root of an upper says about the form of the marks in it;
//! * `inventory`: all marks of one directory, each with its form, for those who rewrite them;
//! * `write`: the one writer.

pub(crate) mod inventory;
pub(crate) mod names;
pub(crate) mod own;
pub(crate) mod read;
pub(crate) mod root;
pub(crate) mod write;

pub(crate) use names::{
    NAME_MAX, NameMeaning, OPAQUE_FILE, WH_META_PREFIX, WH_PREFIX, meaning, whiteout_name,
};
pub(crate) use own::{
    DEVICE_XATTR, HAS_IMPLIED, IMPLIED, TRUSTED_PREFIX, USER_PREFIX, WHITEOUT_RENAME, looks,
};
pub(crate) use own::{own_xattr, own_xattrs};
pub(crate) use read::{DirMarks, OPAQUE_XATTRS, REDIRECT_XATTRS, dir_marks};

/// How a whiteout that is on the disk hides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A `.wh.NAME` file beside the name.
    Beside,
    /// Something at the name itself: a 0/0 device, or an empty file with the whiteout xattr.
    InPlace,
}
