//! Names of xattrs as a layer stores them, and as the merged view shows them. Pure.
//!
//! What carries an overlay's bookkeeping, ours or another's, is hidden. A name of that kind that is
//! set through the mount, another overlay that is stacked on it for instance, is stored under
//! another one, so that it says nothing about the layer itself, and is shown as it was set:
//!
//! | seen | stored |
//! | --- | --- |
//! | `trusted.overlay.X`, `user.overlay.X` | one more `overlay.`: `trusted.overlay.overlay.X` ("Nesting overlayfs mounts" in `overlayfs.rst`) |
//! | `user.fuseoverlayfs.X`, `user.containers.X` | behind `user.containers.override_` |
//! | `trusted.SGI_ACL_X`, which XFS makes of an ACL | behind `user.containers.override_` |
//! | `security.fuseoverlayfs.X` | behind `security.fuseoverlayfs.override_` |
//!
//! A layer that keeps records of owners and modes (`layer/stat_override.rs`) keeps more of what its
//! disk would interpret, or would not let an ordinary user set, in the same way: `security.*`,
//! `trusted.*` and POSIX ACLs.

use std::borrow::Cow;

use super::stat_override::StatOverrideForm;

/// Namespaces in which an overlay keeps its marks.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const ESCAPE: &[u8] = b"overlay.";
/// fuse-overlayfs's marks, and ours where `trusted.` is not permitted.
const FUSE_OVERLAYFS: &[u8] = b"user.fuseoverlayfs.";
/// containers/storage's.
const CONTAINERS: &[u8] = b"user.containers.";
/// fuse-overlayfs's, where it is privileged.
const PRIVILEGED: &[u8] = b"security.fuseoverlayfs.";
/// XFS shows ACLs once more in a form of its own, with the ids of the disk.
const XFS_ACL: &[u8] = b"trusted.SGI_ACL_";
/// In front of a name that is stored under another one.
const USER_OVERRIDE: &[u8] = b"user.containers.override_";
const PRIVILEGED_OVERRIDE: &[u8] = b"security.fuseoverlayfs.override_";
/// What may follow there; anything else is bookkeeping.
const NAMESPACES: [&[u8]; 4] = [b"security.", b"trusted.", b"user.", b"system."];

/// How a layer keeps what its disk would interpret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum XattrMapping {
    /// On the disk.
    #[default]
    Disk,
    /// ACLs by other names, in the privileged namespace.
    Privileged,
    /// ACLs and `security.*` by other names; `trusted.*` as well unless the daemon may set them.
    User {
        /// The daemon may set `trusted.*`.
        trusted: bool,
    },
}

impl XattrMapping {
    /// How a layer with records of a form keeps them; `trusted` says whether the daemon may set
    /// such xattrs.
    #[must_use]
    pub(crate) fn of(form: Option<StatOverrideForm>, trusted: bool) -> Self {
        match form {
            None => Self::Disk,
            Some(StatOverrideForm::Privileged) => Self::Privileged,
            Some(StatOverrideForm::User) => Self::User { trusted },
        }
    }

    /// How a name of the merged view is stored.
    #[must_use]
    pub(crate) fn stored(self, seen: &[u8]) -> Cow<'_, [u8]> {
        let is = |prefix: &[u8]| seen.starts_with(prefix);
        let behind = |prefix: &[u8]| Cow::Owned([prefix, seen].concat());
        let is_acl = is(b"system.posix_acl_");
        match self {
            _ if is(FUSE_OVERLAYFS) || is(CONTAINERS) || is(XFS_ACL) => {
                return behind(USER_OVERRIDE);
            }
            Self::User { trusted } => {
                if is(b"security.") || is_acl || (!trusted && is(b"trusted.")) {
                    return behind(USER_OVERRIDE);
                }
            }
            _ if is(PRIVILEGED) => return behind(PRIVILEGED_OVERRIDE),
            Self::Privileged if is_acl => return behind(PRIVILEGED_OVERRIDE),
            Self::Privileged | Self::Disk => {}
        }
        for prefix in OVERLAY_PREFIXES {
            if let Some(rest) = seen.strip_prefix(prefix) {
                return Cow::Owned([prefix, ESCAPE, rest].concat());
            }
        }
        Cow::Borrowed(seen)
    }
}

/// A stored name as the merged view shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    /// The name.
    pub name: Cow<'a, [u8]>,
    /// It stands for one that the disk may have as well: then this one counts.
    pub kept: bool,
}

/// How a stored name is seen; `None` for bookkeeping, which is hidden.
#[must_use]
pub(crate) fn seen(stored: &[u8]) -> Option<Seen<'_>> {
    for prefix in [USER_OVERRIDE, PRIVILEGED_OVERRIDE] {
        if let Some(rest) = stored.strip_prefix(prefix) {
            let shown = NAMESPACES.iter().any(|space| rest.starts_with(space));
            return shown.then_some(Seen {
                name: Cow::Borrowed(rest),
                kept: true,
            });
        }
    }
    if [FUSE_OVERLAYFS, CONTAINERS, PRIVILEGED, XFS_ACL]
        .iter()
        .any(|prefix| stored.starts_with(prefix))
    {
        return None;
    }
    let mut name = Cow::Borrowed(stored);
    for prefix in OVERLAY_PREFIXES {
        if let Some(rest) = stored.strip_prefix(prefix) {
            name = Cow::Owned([prefix, rest.strip_prefix(ESCAPE)?].concat());
        }
    }
    Some(Seen { name, kept: false })
}

/// Whether a name on disk is bookkeeping of an overlay, ours or another's.
#[must_use]
pub(crate) fn is_internal(stored: &[u8]) -> bool {
    seen(stored).is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(stored: &[u8]) -> Option<Vec<u8>> {
        seen(stored).map(|seen| seen.name.into_owned())
    }

    #[test]
    fn bookkeeping_is_hidden_and_other_overlays_are_escaped() {
        let table: [(&[u8], Option<&[u8]>); 13] = [
            (b"user.a", Some(b"user.a")),
            (b"trusted.overlay.opaque", None),
            (
                b"trusted.overlay.overlay.opaque",
                Some(b"trusted.overlay.opaque"),
            ),
            (
                b"user.overlay.overlay.overlay.opaque",
                Some(b"user.overlay.overlay.opaque"),
            ),
            (b"user.fuseoverlayfs.origin", None),
            (b"trusted.overlay.unionmount.origin", None),
            (b"user.containers.override_stat", None),
            (b"trusted.SGI_ACL_FILE", None),
            (b"user.fuseoverlayfs.override_stat", None),
            (b"security.fuseoverlayfs.override", None),
            (
                b"user.containers.override_user.fuseoverlayfs.opaque",
                Some(b"user.fuseoverlayfs.opaque"),
            ),
            (
                b"user.containers.override_user.containers.override_stat",
                Some(b"user.containers.override_stat"),
            ),
            (
                b"security.fuseoverlayfs.override_security.fuseoverlayfs.override",
                Some(b"security.fuseoverlayfs.override"),
            ),
        ];
        for (stored, expected) in table {
            assert_eq!(
                shown(stored).as_deref(),
                expected,
                "{}",
                stored.escape_ascii()
            );
            assert_eq!(is_internal(stored), expected.is_none());
            if let Some(seen) = expected {
                assert_eq!(XattrMapping::Disk.stored(seen), stored);
            }
        }
    }

    #[test]
    fn layers_with_records_keep_what_the_disk_would_interpret() {
        let user = XattrMapping::User { trusted: false };
        let root = XattrMapping::User { trusted: true };
        let table: [(XattrMapping, &[u8], &[u8]); 9] = [
            (
                user,
                b"security.capability",
                b"user.containers.override_security.capability",
            ),
            (
                user,
                b"system.posix_acl_access",
                b"user.containers.override_system.posix_acl_access",
            ),
            (
                user,
                b"trusted.overlay.opaque",
                b"user.containers.override_trusted.overlay.opaque",
            ),
            (user, b"user.overlay.opaque", b"user.overlay.overlay.opaque"),
            (user, b"user.a", b"user.a"),
            (
                root,
                b"trusted.overlay.opaque",
                b"trusted.overlay.overlay.opaque",
            ),
            (
                root,
                b"security.fuseoverlayfs.x",
                b"user.containers.override_security.fuseoverlayfs.x",
            ),
            (
                XattrMapping::Privileged,
                b"security.capability",
                b"security.capability",
            ),
            (
                XattrMapping::Privileged,
                b"system.posix_acl_default",
                b"security.fuseoverlayfs.override_system.posix_acl_default",
            ),
        ];
        for (keeping, seen, stored) in table {
            assert_eq!(keeping.stored(seen), stored);
            assert_eq!(shown(stored).as_deref(), Some(seen));
        }
    }

    proptest::proptest! {
        /// Everything that is set comes back, and is no bookkeeping of ours meanwhile.
        #[test]
        fn every_name_comes_back(
            prefix in 0..10usize,
            rest: Vec<u8>,
            which in 0..4usize,
        ) {
            let prefix: &[u8] = [
                &b"user."[..], b"trusted.", b"security.", b"system.posix_acl_", FUSE_OVERLAYFS, CONTAINERS,
                USER_OVERRIDE, PRIVILEGED_OVERRIDE, b"trusted.overlay.", b"user.overlay.overlay.",
            ][prefix];
            let name = [prefix, &rest].concat();
            let keeping = [
                XattrMapping::Disk,
                XattrMapping::Privileged,
                XattrMapping::User { trusted: true },
                XattrMapping::User { trusted: false },
            ][which];
            let stored = keeping.stored(&name);
            proptest::prop_assert_eq!(shown(&stored), Some(name));
        }
    }
}
