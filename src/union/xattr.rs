//! Extended attributes and POSIX ACLs of the merged view.
//!
//! Names that carry the union's own bookkeeping are hidden and cannot be set. The `overlay.` names of kernel
//! overlayfs are escaped by one more `overlay.`, as kernel overlayfs itself does ("Nesting overlayfs mounts" in
//! `overlayfs.rst`), so that another overlay can use a directory of this mount as its upper.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Union;
use super::error::{During, Result, refuse};
use super::idmap::AclSide;
use super::inode::{Inode, Node, NodeId, Real};
use crate::layer::stat::Kind;
use crate::layer::upper::UpperObject;
use crate::layer::xattr::{SIZE_MAX, XattrPath};
use crate::sync::lock;

/// The bit of [`Inode::xattrs`] that says there are none that are shown.
const NONE: u64 = 1;
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
/// Namespaces in which anybody may make up names (xattr(7)); of `system.` there are only the ACLs.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// Namespaces in which an overlay keeps its marks.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const ESCAPE: &[u8] = b"overlay.";
/// fuse-overlayfs's marks, and ours where `trusted.` is not permitted.
const FUSE_OVERLAYFS_PREFIX: &[u8] = b"user.fuseoverlayfs.";
/// XFS shows ACLs once more in a form of its own, with the ids of the disk.
const XFS_ACL_PREFIX: &[u8] = b"trusted.SGI_ACL_";
/// Longest name of an xattr (`XATTR_NAME_MAX`, xattr(7)).
const XATTR_NAME_MAX: usize = 255;

/// Whether a name on disk is bookkeeping of an overlay, ours or another's, or of its file system.
#[must_use]
pub(super) fn is_internal(stored: &[u8]) -> bool {
    stored.starts_with(FUSE_OVERLAYFS_PREFIX)
        || stored.starts_with(XFS_ACL_PREFIX)
        || OVERLAY_PREFIXES.iter().any(|prefix| {
            stored
                .strip_prefix(*prefix)
                .is_some_and(|rest| !rest.starts_with(ESCAPE))
        })
}

/// How a name of the merged view is stored; `None` for names that cannot be.
fn stored_name(seen: &[u8]) -> Option<Cow<'_, [u8]>> {
    if seen.starts_with(FUSE_OVERLAYFS_PREFIX) || seen.starts_with(XFS_ACL_PREFIX) {
        return None;
    }
    for prefix in OVERLAY_PREFIXES {
        if let Some(rest) = seen.strip_prefix(prefix) {
            return Some([prefix, ESCAPE, rest].concat().into());
        }
    }
    Some(seen.into())
}

/// How a stored name is seen; `None` for hidden ones.
fn seen_name(stored: &[u8]) -> Option<Vec<u8>> {
    if is_internal(stored) {
        return None;
    }
    for prefix in OVERLAY_PREFIXES {
        if let Some(rest) = stored
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix(ESCAPE))
        {
            return Some([prefix, rest].concat());
        }
    }
    Some(stored.to_vec())
}

fn is_acl(name: &[u8]) -> bool {
    name == ACL_ACCESS || name == ACL_DEFAULT
}

impl Union {
    fn check_xattr_name(&self, name: &[u8]) -> Result<()> {
        let known = is_acl(name) || NAMESPACES.iter().any(|space| name.starts_with(space));
        if !known || self.no_xattrs || (self.no_acl && is_acl(name)) {
            return refuse(Errno::OPNOTSUPP);
        }
        if name.len() > XATTR_NAME_MAX {
            return refuse(Errno::RANGE);
        }
        Ok(())
    }

    fn xattr_path(&self, inode: &Inode) -> Result<Option<XattrPath>> {
        let path = match &inode.node {
            Node::Dir(dir) => {
                let state = lock(&dir.state);
                if state.removed.is_some() {
                    return Ok(None);
                }
                match (&state.upper, state.lowers.first()) {
                    (Some(dir), _) => dir.xattrs(),
                    (None, Some(dir)) => dir.xattrs(),
                    (None, None) => return Ok(None),
                }
            }
            Node::File(file) => match &lock(&file.state).real {
                Real::Lower { dir, name } => dir.xattrs_of(name),
                Real::Upper { dir, name } => dir.xattrs_of(name),
                Real::Orphan(object) => Ok(XattrPath::of_fd(Arc::clone(object.fd()))),
            },
        };
        path.map(Some).during("open directory", b".")
    }

    /// The value of an xattr. Errors: ENODATA when there is none (also where a layer's disk has none at all),
    /// EOPNOTSUPP when the mount has no xattrs or ACLs, and for namespaces that Linux does not have.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.check_xattr_name(name)?;
        let inode = self.table.get(node)?;
        let known = inode.xattrs.load(Ordering::Acquire);
        if known & NONE != 0 {
            return refuse(Errno::NODATA);
        }
        let (Some(stored), Some(path)) = (stored_name(name), self.xattr_path(&inode)?) else {
            return refuse(Errno::NODATA);
        };
        // A copy carries its origin, and is asked for its capabilities as often as others.
        let shows = |stored: &[u8]| !is_internal(stored);
        if !path.any(shows).during("listxattr", b".")? {
            self.note_no_xattrs(&inode, known);
            return refuse(Errno::NODATA);
        }
        match path.get_opt(&stored).during("getxattr", name)? {
            Some(value) if is_acl(name) => Ok(self.ids.translate_acl(&value, AclSide::Seen)),
            Some(value) => Ok(value),
            None => refuse(Errno::NODATA),
        }
    }

    /// The capabilities of a program, if it has some.
    pub(super) fn capability(&self, inode: &Inode) -> Option<Vec<u8>> {
        if self.no_xattrs || inode.xattrs.load(Ordering::Acquire) & NONE != 0 {
            return None;
        }
        self.xattr_path(inode).ok()??.get_opt(CAPABILITY).ok()?
    }

    /// Gives a program its capabilities back, after a write took them; a daemon that may not is on its own.
    pub(super) fn restore_capability(&self, inode: &Arc<Inode>, value: &[u8]) -> Result<()> {
        let object = self.upper_object(inode)?;
        match object.set_xattr(CAPABILITY, value, XattrFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                log::debug!("a changed program lost its capabilities: no right to set them");
                Ok(())
            }
            other => other.during("setxattr", CAPABILITY),
        }
    }

    /// The names of all xattrs, each ended by a NUL.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<u8>> {
        if self.no_xattrs {
            return refuse(Errno::OPNOTSUPP);
        }
        let inode = self.table.get(node)?;
        let known = inode.xattrs.load(Ordering::Acquire);
        if known & NONE != 0 {
            return Ok(Vec::new());
        }
        let Some(path) = self.xattr_path(&inode)? else {
            return Ok(Vec::new());
        };
        let list = path.list().during("listxattr", b".")?;
        let mut seen = Vec::with_capacity(list.len());
        for stored in list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            if self.no_acl && is_acl(stored) {
                continue;
            }
            if let Some(name) = seen_name(stored) {
                seen.extend_from_slice(&name);
                seen.push(0);
            }
        }
        // Where ACLs are not offered, one that is there can be neither read nor set.
        if seen.is_empty() {
            self.note_no_xattrs(&inode, known);
        }
        Ok(seen)
    }

    /// Sets an xattr. Errors: EPERM for names of the union's own, EEXIST and ENODATA by `flags`, E2BIG,
    /// EOPNOTSUPP where the upper cannot store it.
    pub fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.check_xattr_name(name)?;
        let Some(stored) = stored_name(name) else {
            return refuse(Errno::PERM);
        };
        if value.len() > SIZE_MAX {
            return refuse(Errno::TOOBIG);
        }
        let inode = self.table.get(node)?;
        let object = self.upper_object(&inode)?;
        let value = if is_acl(name) {
            self.ids.translate_acl(value, AclSide::Disk)
        } else {
            value.to_vec()
        };
        match object.set_xattr(&stored, &value, flags) {
            // So ext4 says that an inode has no room for more xattrs.
            Err(Errno::NOSPC) => return refuse(Errno::NOSPC),
            other => other.during("setxattr", name)?,
        }
        // Behind the call, so that whoever looked before it does not note that there is none.
        inode.xattrs.fetch_add(2, Ordering::AcqRel);
        inode.xattrs.fetch_and(!NONE, Ordering::AcqRel);
        self.forget_inheritance(&inode);
        Ok(())
    }

    /// Removes an xattr. Errors: ENODATA when there is none, EPERM for names of the union's own.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        self.check_xattr_name(name)?;
        let Some(stored) = stored_name(name) else {
            return refuse(Errno::PERM);
        };
        let inode = self.table.get(node)?;
        self.writable()?;
        // Nothing to remove is no reason to copy a file up.
        let has = match self.xattr_path(&inode)? {
            Some(path) => path.get_opt(&stored).during("getxattr", name)?.is_some(),
            None => false,
        };
        if !has {
            return match (is_acl(name), inode.kind) {
                (true, Kind::Symlink) => refuse(Errno::OPNOTSUPP),
                // Removing an ACL that is not there is no error (`vfs_remove_acl`).
                (true, _) => Ok(()),
                (false, _) => refuse(Errno::NODATA),
            };
        }
        let object = self.upper_object(&inode)?;
        object.remove_xattr(&stored).during("removexattr", name)?;
        self.forget_inheritance(&inode);
        Ok(())
    }

    /// Sets the xattrs of an object that nobody sees yet. Errors: as [`Union::setxattr`].
    pub(super) fn label(&self, object: &UpperObject, xattrs: &[(&[u8], &[u8])]) -> Result<()> {
        for (name, value) in xattrs {
            self.check_xattr_name(name)?;
            let Some(stored) = stored_name(name) else {
                return refuse(Errno::PERM);
            };
            object
                .set_xattr(&stored, value, XattrFlags::empty())
                .during("setxattr", name)?;
        }
        Ok(())
    }

    /// The inode's object in the upper, copied up if need be.
    fn upper_object(&self, inode: &Arc<Inode>) -> Result<UpperObject> {
        match &inode.node {
            Node::Dir(_) => self.copy_up_dir(inode)?.this(),
            Node::File(file) => {
                self.copy_up_file(inode, None)?;
                match &lock(&file.state).real {
                    Real::Upper { dir, name } => dir.object(name),
                    Real::Orphan(object) => Ok(object.clone()),
                    Real::Lower { .. } => Err(Errno::STALE),
                }
            }
        }
        .during("open", b".")
    }

    /// Remembers that an inode has no xattrs to be shown, unless one was set since `known` was read.
    fn note_no_xattrs(&self, inode: &Inode, known: u64) {
        if self.may_change_below() {
            return;
        }
        let noted =
            inode
                .xattrs
                .compare_exchange(known, known | NONE, Ordering::AcqRel, Ordering::Relaxed);
        if noted.is_err() {
            log::trace!("an xattr was set meanwhile");
        }
    }

    fn forget_inheritance(&self, inode: &Inode) {
        if let Some(mut state) = inode.lock_dir() {
            state.inheritance = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookkeeping_is_hidden_and_other_overlays_are_escaped() {
        let table: [(&[u8], Option<&[u8]>); 7] = [
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
            (b"trusted.SGI_ACL_FILE", None),
            (b"trusted.overlay.unionmount.origin", None),
        ];
        for (stored, seen) in table {
            assert_eq!(seen_name(stored).as_deref(), seen);
            if let Some(seen) = seen {
                assert_eq!(stored_name(seen).as_deref(), Some(stored));
            }
        }
        assert_eq!(stored_name(b"user.fuseoverlayfs.x"), None);
    }
}
