//! What the root of an upper says about the form of the marks in it.

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::own::{IMPURE, TRUSTED_PREFIX, USER_PREFIX, own_xattrs};
use crate::layer::WritableDir;
use crate::layer::dir::Dir;

/// Our xattr of an upper's root that says in which form its marks are, if that is not `.wh.` files.
const FORM_XATTR: &str = "form";
/// Its value where whiteouts are devices and opaque marks are xattrs.
const DEVICES: &[u8] = b"char";
/// The xattrs, behind `trusted.overlay.` or `user.overlay.`, that kernel overlayfs leaves on the
/// root of an upper.
const KERNEL_ROOT_XATTRS: [&str; 3] = ["origin", "impure", "uuid"];

/// The namespaces in which kernel overlayfs has left xattrs on a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelNamespaces {
    /// It wrote `trusted.overlay.` xattrs.
    pub(crate) trusted: bool,
    /// It was mounted with `userxattr`, and wrote `user.overlay.` xattrs.
    pub(crate) user: bool,
}

impl KernelNamespaces {
    /// Reads the xattrs of a root. One whose xattrs cannot be read counts as one without.
    pub(crate) fn of(root: &Dir) -> Self {
        let list = root.xattrs().and_then(|xattrs| xattrs.list());
        let list = list.unwrap_or_default();
        let has = |prefix: &[u8]| {
            list.split(|byte| *byte == 0)
                .filter_map(|name| name.strip_prefix(prefix))
                .any(|rest| {
                    KERNEL_ROOT_XATTRS
                        .iter()
                        .any(|name| name.as_bytes() == rest)
                })
        };
        Self {
            trusted: has(b"trusted.overlay."),
            user: has(b"user.overlay."),
        }
    }

    /// Whether kernel overlayfs wrote there at all.
    pub(crate) fn any(self) -> bool {
        self.trusted || self.user
    }

    /// Whether all that it wrote is in the `user.` namespace: it reads marks there alone.
    pub(crate) fn only_user(self) -> bool {
        self.user && !self.trusted
    }
}

/// Whether the root of an upper says that `.wh.` names in it are ordinary ones.
pub(crate) fn reads_plain_names(root: &Dir) -> bool {
    let Ok(xattrs) = root.xattrs() else {
        return false;
    };
    let names = own_xattrs(FORM_XATTR);
    let mut values = names.iter().map(|name| xattrs.get_opt(name.as_bytes()));
    values.any(|value| matches!(value, Ok(Some(value)) if value == DEVICES))
}

/// As [`reads_plain_names`]. Errors: those of getxattr(2).
pub(crate) fn says_devices(root: &Dir) -> Result<bool> {
    let xattrs = root.xattrs()?;
    for name in own_xattrs(FORM_XATTR) {
        if xattrs.get_opt(name.as_bytes())?.as_deref() == Some(DEVICES) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether kernel overlayfs wrote to this upper.
pub(crate) fn has_kernel_xattr(root: &Dir) -> bool {
    KernelNamespaces::of(root).any()
}

/// Whether an upper says that its whiteouts are devices, so that `.wh.` names in it are ordinary
/// ones.
pub(crate) fn has_device_marks(root: &Dir) -> bool {
    reads_plain_names(root) || has_kernel_xattr(root)
}

/// Has the root say that whiteouts are devices, by our xattr with `prefix`. One setxattr(2): a
/// crash leaves the root with or without it.
pub(crate) fn set_devices(root: &WritableDir, prefix: &str) -> Result<()> {
    let xattr = format!("{prefix}{FORM_XATTR}");
    root.this()?
        .set_xattr(xattr.as_bytes(), DEVICES, XattrFlags::empty())
}

/// Takes that back, and removes what kernel overlayfs left there that says the same. That entries
/// may have redirects and origins, which one of those says as well, is said by an xattr of our own
/// before.
///
/// A crash leaves some of these xattrs: the root says then that whiteouts are devices, or nothing,
/// and a directory that was impure is so still.
pub(crate) fn unset_devices(root: &WritableDir) -> Result<()> {
    let this = root.this()?;
    let xattrs = root.xattrs()?;
    for namespace in ["trusted.", "user."] {
        for name in KERNEL_ROOT_XATTRS {
            let xattr = format!("{namespace}overlay.{name}");
            if xattrs.get_opt(xattr.as_bytes())?.is_none() {
                continue;
            }
            if name == IMPURE {
                let own = format!("{}{IMPURE}", storable_prefix(root)?);
                this.set_xattr(own.as_bytes(), b"y", XattrFlags::empty())?;
            }
            this.remove_xattr(xattr.as_bytes())?;
        }
    }
    for xattr in own_xattrs(FORM_XATTR) {
        // An ordinary user may not remove `trusted.` ones, and sees none.
        if xattrs.get_opt(xattr.as_bytes())?.is_some() {
            this.remove_xattr(xattr.as_bytes())?;
        }
    }
    Ok(())
}

/// Returns the prefix under which our xattrs are stored in a layer: the `trusted.` one where it is
/// permitted and what the layer has; not where kernel overlayfs wrote it with `userxattr`. Sets an
/// xattr to find out, and removes it; a crash between leaves it, without meaning.
pub(crate) fn storable_prefix(root: &WritableDir) -> Result<&'static str> {
    if KernelNamespaces::of(root).only_user() {
        return Ok(USER_PREFIX);
    }
    let probe = format!("{TRUSTED_PREFIX}probe");
    let this = root.this()?;
    match this.set_xattr(probe.as_bytes(), b"y", XattrFlags::empty()) {
        Ok(()) => this.remove_xattr(probe.as_bytes()).map(|()| TRUSTED_PREFIX),
        Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(USER_PREFIX),
        Err(errno) => Err(errno),
    }
}
