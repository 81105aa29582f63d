//! Our own xattrs: each exists under a prefix for privileged daemons and under one for the others.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use crate::layer::object::WritableObject;
use crate::layer::xattr::XattrPath;

/// The prefix of our own xattrs where `trusted.` ones are permitted; kernel overlayfs hides all
/// `trusted.overlay.`.
pub(crate) const TRUSTED_PREFIX: &str = "trusted.overlay.unionmount.";
/// The prefix of our own xattrs elsewhere; fuse-overlayfs hides all `user.fuseoverlayfs.`, and
/// podman takes it for the sign of a store that was written through a mount program.
pub(crate) const USER_PREFIX: &str = "user.fuseoverlayfs.unionmount.";
/// Both prefixes, in the order in which they are tried.
pub(super) const PREFIXES: [&str; 2] = [TRUSTED_PREFIX, USER_PREFIX];

/// Our xattr of a directory that names an entry of it which is a device of the merged view,
/// although the disk has a whiteout device there (a rename with `RENAME_WHITEOUT`).
pub(crate) const WHITEOUT_RENAME: &str = "leaving";
/// Our xattr that makes an empty file of the upper a character device 0/0 of the merged view: as a
/// device it would hide what lies below. Another overlay that is stacked on this mount makes such
/// devices for its own whiteouts.
pub(crate) const DEVICE_XATTR: &str = "device";
/// Our xattr of a directory of a layer that no entry of its archive describes: it was made since
/// something is in it, and has the metadata that it has in the layers below. The value is the
/// metadata that it was made with ([`looks`]): a directory that was changed later has its own.
pub(crate) const IMPLIED: &str = "implied";
/// Our xattr of a layer's root: there are such directories in the layer.
pub(crate) const HAS_IMPLIED: &str = "has-implied";
/// Our xattr of a directory whose entries may have an origin or a redirect.
pub(crate) const IMPURE: &str = "impure";

/// Returns the names of one of our xattrs, where `trusted.` ones are permitted and elsewhere.
#[must_use]
pub(crate) fn own_xattrs(name: &str) -> [String; 2] {
    PREFIXES.map(|prefix| format!("{prefix}{name}"))
}

/// Whether a stored name is that of one of our xattrs.
#[must_use]
pub(crate) fn is_own_xattr(stored: &[u8], name: &str) -> bool {
    PREFIXES
        .iter()
        .any(|prefix| stored.strip_prefix(prefix.as_bytes()) == Some(name.as_bytes()))
}

/// Returns the value of one of our xattrs, under either prefix; `None` also where it cannot be
/// read.
pub(crate) fn own_xattr(xattrs: &XattrPath, name: &str) -> Option<Vec<u8>> {
    PREFIXES.iter().find_map(|prefix| {
        let name = format!("{prefix}{name}");
        xattrs.get_opt(name.as_bytes()).ok().flatten()
    })
}

/// Sets one of our xattrs under the first prefix that the disk and the daemon's rights permit.
/// Returns false, and sets nothing, where they permit neither.
pub(crate) fn set_own_xattr(fd: &Arc<OwnedFd>, name: &str, value: &[u8]) -> Result<bool> {
    let object = WritableObject::new(Arc::clone(fd), None);
    for name in own_xattrs(name) {
        match object.set_xattr(name.as_bytes(), value, XattrFlags::empty()) {
            Ok(()) => return Ok(true),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// Returns owner and mode as the value of [`IMPLIED`] has them.
#[must_use]
pub(crate) fn looks(uid: u32, gid: u32, perm: u32) -> Vec<u8> {
    format!("{uid}:{gid}:{perm:o}").into_bytes()
}
