//! Every on-disk form of whiteout and opaque mark: the only place that reads and writes them.
//!
//! | form | found in |
//! | --- | --- |
//! | `.wh.NAME` file, `.wh..wh..opq` in a directory | OCI image layers (image-spec `layer.md`), AUFS |
//! | character device 0/0 at the name itself | kernel overlayfs (`overlayfs.rst`, "whiteouts and opaque directories") |
//! | xattr `overlay.opaque` = `y` (`trusted.` or `user.`), `user.fuseoverlayfs.opaque` = `y` | kernel overlayfs, fuse-overlayfs |
//! | empty file with xattr `overlay.whiteout`, in a directory with `overlay.opaque` = `x` | composefs, kernel >= 6.8 |
//! | other `.wh..wh.*` names | AUFS leftovers: hidden, without meaning |

pub(crate) mod inventory;
mod read;

pub use read::*;
