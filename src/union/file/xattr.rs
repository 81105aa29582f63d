//! Extended attributes and POSIX ACLs of the merged view.
//!
//! Names that carry the union's own bookkeeping are hidden, and stored under others when a process
//! sets them (`layer/xattr_name.rs`), so that another overlay can use a directory of this mount as
//! its upper.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::object::WritableObject;
use crate::layer::stat::Kind;
use crate::layer::xattr::{SIZE_MAX, XattrPath};
use crate::layer::xattr_name::{XattrMapping, seen};
use crate::sync::lock;
use crate::sys::without_group::outside_of_group;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::file::acl::{ACCESS_ACL, Acl};
use crate::union::file::privileges::{Asker, drop_setgid};
use crate::union::file::stored_xattr::{
    SetXattr, held, is_acl, remove_if_there, remove_kept, set_kept,
};
use crate::union::idmap::Side;
use crate::union::node::inode::{DirState, Inode, Node, Real};
use crate::union::node::removed_dir::RemovedDir;

/// The bit of [`Inode::xattrs`] that says there are none that are shown.
pub(super) const NONE: u64 = 1;
/// Namespaces in which names may be made up (xattr(7)); of `system.` there are only the ACLs.
const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// Longest name of an xattr (`XATTR_NAME_MAX`, xattr(7)).
const XATTR_NAME_MAX: usize = 255;

/// A list of names, each ended by a NUL, without those of ACLs.
fn without_acls(list: &[u8]) -> Vec<u8> {
    let names = list.split_inclusive(|byte| *byte == 0);
    let others = names.filter(|name| !is_acl(name.strip_suffix(b"\0").unwrap_or(name)));
    others.flatten().copied().collect()
}

/// Where the xattrs of a directory are that has a name.
fn xattr_path_of(state: &DirState) -> Result<Option<XattrPath>> {
    let path = match (&state.removed, &state.upper, state.looks_like()) {
        (Some(_), ..) | (None, None, None) => return Ok(None),
        (None, Some(dir), _) => dir.xattrs(),
        (None, None, Some(dir)) => dir.xattrs(),
    };
    path.map(Some).context("open directory", b".")
}

/// Runs a function on a removed directory; `None` when the directory is not removed.
fn on_remains<T>(
    inode: &Inode,
    work: impl FnOnce(&mut RemovedDir) -> Result<T>,
) -> Option<Result<T>> {
    let mut state = inode.lock_dir()?;
    state.removed.as_deref_mut().map(work)
}

impl Union {
    fn check_xattr_name(&self, name: &[u8]) -> Result<()> {
        let known = is_acl(name) || NAMESPACES.iter().any(|space| name.starts_with(space));
        if !known || self.rules.no_xattrs || (self.rules.no_acl && is_acl(name)) {
            return fail(Errno::OPNOTSUPP);
        }
        if name.len() > XATTR_NAME_MAX {
            return fail(Errno::RANGE);
        }
        Ok(())
    }

    pub(super) fn xattr_path(&self, inode: &Inode) -> Result<Option<XattrPath>> {
        let path = match &inode.node {
            Node::Dir(dir) => return xattr_path_of(&lock(&dir.state)),
            Node::File(file) if inode.is_shared() => {
                return Ok(Some(self.object_of(inode, &lock(&file.state))?.xattrs()));
            }
            Node::File(file) => match &lock(&file.state).real {
                Real::Lower { dir, name } => dir.xattrs_of(name),
                Real::Upper { dir, name } => dir.xattrs_of(name),
                Real::Orphan(object) => Ok(XattrPath::of_fd(Arc::clone(object.fd()))),
            },
        };
        path.map(Some).context("open directory", b".")
    }

    /// As [`Union::getxattr`].
    pub(in crate::union) fn inode_getxattr(
        &self,
        inode: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Vec<u8>> {
        self.check_xattr_name(name)?;
        let known = inode.xattrs.load(Ordering::Acquire);
        if known & NONE != 0 {
            return fail(Errno::NODATA);
        }
        if let Some(value) = on_remains(inode, |removed_dir| removed_dir.getxattr(name)) {
            return value;
        }
        let Some(path) = self.xattr_path(inode)? else {
            return fail(Errno::NODATA);
        };
        self.shown_xattr(inode, &path, name, known)
    }

    /// Of what is behind an inode, the value of an xattr; `known` is what was known before about
    /// there being any.
    fn shown_xattr(
        &self,
        inode: &Inode,
        path: &XattrPath,
        name: &[u8],
        known: u64,
    ) -> Result<Vec<u8>> {
        if self.has_plain_names(inode) {
            let value = path.get_opt(name).context("getxattr", name)?;
            return value.map_or_else(|| fail(Errno::NODATA), Ok);
        }
        // A copy carries its origin, and is asked for its capabilities as often as others.
        let held = held(path, name).context("listxattr", b".")?;
        if !held.any {
            self.note_no_xattrs(inode, known);
            return fail(Errno::NODATA);
        }
        let stored = held.stored(name);
        match path.get_opt(&stored).context("getxattr", name)? {
            Some(value) => {
                let ids = self.ids_of(inode);
                let seen = ids.translate_xattr(name, value, Side::Seen);
                seen.map_or_else(|| fail(Errno::NODATA), Ok)
            }
            None => fail(Errno::NODATA),
        }
    }

    /// The value of an xattr of a layer's object as the layer has it; `None` when there is none.
    pub(in crate::union) fn kept_xattr(
        &self,
        path: &XattrPath,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let held = held(path, name).context("listxattr", b".")?;
        if !held.any {
            return Ok(None);
        }
        path.get_opt(&held.stored(name)).context("getxattr", name)
    }

    /// As [`Union::listxattr`].
    pub(in crate::union) fn inode_listxattr(&self, inode: &Arc<Inode>) -> Result<Vec<u8>> {
        if self.rules.no_xattrs {
            return fail(Errno::OPNOTSUPP);
        }
        let known = inode.xattrs.load(Ordering::Acquire);
        if known & NONE != 0 {
            return Ok(Vec::new());
        }
        if let Some(names) = on_remains(inode, |removed_dir| Ok(removed_dir.listxattr())) {
            return names;
        }
        let Some(path) = self.xattr_path(inode)? else {
            return Ok(Vec::new());
        };
        self.shown_names(inode, &path, known)
    }

    /// Of what is behind an inode, the names of the xattrs that are shown.
    fn shown_names(&self, inode: &Inode, path: &XattrPath, known: u64) -> Result<Vec<u8>> {
        let list = path.list().context("listxattr", b".")?;
        if self.has_plain_names(inode) {
            return Ok(if self.rules.no_acl {
                without_acls(&list)
            } else {
                list
            });
        }
        let mut names: Vec<u8> = Vec::with_capacity(list.len());
        let mut stored: Vec<&[u8]> = list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .collect();
        // A kept one may stand for one that the disk has as well.
        stored.sort_by_key(|stored| seen(stored).is_some_and(|seen| seen.kept));
        for stored in stored {
            let Some(shown) = seen(stored) else { continue };
            if self.rules.no_acl && is_acl(&shown.name) {
                continue;
            }
            if !shown.kept
                || !names
                    .split(|byte| *byte == 0)
                    .any(|one| *one == *shown.name)
            {
                names.extend_from_slice(&shown.name);
                names.push(0);
            }
        }
        // Where ACLs are not offered, one that is there can be neither read nor set.
        if names.is_empty() {
            self.note_no_xattrs(inode, known);
        }
        Ok(names)
    }

    /// All xattrs of a directory whose state is locked, as they are shown.
    pub(in crate::union) fn xattrs_of_dir(
        &self,
        inode: &Inode,
        state: &DirState,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let known = inode.xattrs.load(Ordering::Acquire);
        if self.rules.no_xattrs || known & NONE != 0 {
            return Ok(Vec::new());
        }
        let Some(path) = xattr_path_of(state)? else {
            return Ok(Vec::new());
        };
        let names = self.shown_names(inode, &path, known)?;
        names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| Ok((name.to_vec(), self.shown_xattr(inode, &path, name, known)?)))
            .collect()
    }

    /// As [`Union::setxattr_by`].
    pub(in crate::union) fn inode_setxattr(
        &self,
        inode: &Arc<Inode>,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
        asker: &dyn Asker,
    ) -> Result<()> {
        self.check_xattr_name(name)?;
        if value.len() > SIZE_MAX {
            return fail(Errno::TOOBIG);
        }
        self.check_writable(inode)?;
        if let Some(set) = on_remains(inode, |removed_dir| {
            removed_dir.setxattr(name, value, flags)
        }) {
            inode.xattrs.fetch_and(!NONE, Ordering::AcqRel);
            return set;
        }
        let object = self.upper_object(inode)?;
        let ids = self.ids_of(inode);
        let Some(value) = ids.translate_xattr(name, value.to_vec(), Side::Disk) else {
            return fail(Errno::INVAL);
        };
        let set = SetXattr {
            keeping: self.keeping_of(inode)?,
            object: &object,
            name,
            value: &value,
            flags,
        };
        if name == ACCESS_ACL {
            self.set_access_acl(inode, &set, asker)?;
        } else {
            set.apply(inode)?;
        }
        // Behind the call, so that a thread that looked before it does not note that there is none.
        inode.xattrs.fetch_add(2, Ordering::AcqRel);
        inode.xattrs.fetch_and(!NONE, Ordering::AcqRel);
        self.forget_inheritance(inode);
        Ok(())
    }

    /// Sets an access ACL, and with it the mode, under the lock of the inode's state.
    fn set_access_acl(&self, inode: &Inode, set: &SetXattr<'_>, asker: &dyn Asker) -> Result<()> {
        let _dir = inode.lock_dir();
        let _file = inode.lock_file();
        if !self.acl_drops_setgid(inode, set.object, asker)? {
            return set.apply(inode);
        }
        if set.keeping.is_none() {
            let group = set.object.stat().context("stat", b".")?.gid;
            if let Some(done) = outside_of_group(group, || set.on_disk(set.name)) {
                return set.answer(done);
            }
        }
        set.apply(inode)?;
        drop_setgid(set.object)
    }

    /// After the mode of an object was set: its access ACL says the same, where no disk sees to
    /// that. Killed before, the ACL still grants what it granted before.
    pub(super) fn acl_follows_mode(
        &self,
        inode: &Inode,
        object: &WritableObject,
        perm: u32,
    ) -> Result<()> {
        let keeping = match self.keeping_of(inode)? {
            None | Some(XattrMapping::Disk) => return Ok(()),
            Some(keeping) => keeping,
        };
        if inode.xattrs.load(Ordering::Acquire) & NONE != 0 {
            return Ok(());
        }
        let acl = self.kept_xattr(&object.xattrs(), ACCESS_ACL)?;
        match acl.as_deref().and_then(Acl::parse) {
            Some(acl) => {
                let value = acl.with_perm(perm).value();
                set_kept(keeping, object, ACCESS_ACL, &value, XattrFlags::empty())
            }
            None => Ok(()),
        }
    }

    /// As [`Union::removexattr`].
    pub(in crate::union) fn inode_removexattr(
        &self,
        inode: &Arc<Inode>,
        name: &[u8],
    ) -> Result<()> {
        self.check_xattr_name(name)?;
        self.check_writable(inode)?;
        if let Some(removed) = on_remains(inode, |removed_dir| removed_dir.removexattr(name)) {
            return match removed {
                Err(error) if error.errno() == Errno::NODATA && is_acl(name) => Ok(()),
                removed => removed,
            };
        }
        // Nothing to remove is no reason to copy a file up.
        let has = match self.xattr_path(inode)? {
            Some(path) if self.has_plain_names(inode) => {
                path.get_opt(name).context("getxattr", name)?.is_some()
            }
            Some(path) => self.kept_xattr(&path, name)?.is_some(),
            None => false,
        };
        if !has {
            if self.is_protected(inode) {
                return fail(Errno::PERM);
            }
            return match (is_acl(name), inode.kind) {
                (true, Kind::Symlink) => fail(Errno::OPNOTSUPP),
                // Removing an ACL that is not there is no error (`vfs_remove_acl`).
                (true, _) => Ok(()),
                (false, _) => fail(Errno::NODATA),
            };
        }
        let object = self.upper_object(inode)?;
        if self.has_plain_names(inode) {
            remove_if_there(&object, name)?;
        } else {
            remove_kept(&object, name)?;
        }
        self.forget_inheritance(inode);
        Ok(())
    }

    /// Sets the xattrs of an object that is not visible yet. Errors: as [`Union::setxattr`].
    pub(in crate::union) fn label(
        &self,
        keeping: Option<XattrMapping>,
        object: &WritableObject,
        xattrs: &[(&[u8], &[u8])],
    ) -> Result<()> {
        for (name, value) in xattrs {
            self.check_xattr_name(name)?;
            let stored = keeping.map_or(Cow::Borrowed(*name), |keeping| keeping.stored(name));
            object
                .set_xattr(&stored, value, XattrFlags::empty())
                .context("setxattr", name)?;
        }
        Ok(())
    }

    /// Whether the names of an object's xattrs are what they are: in a volume.
    pub(super) fn has_plain_names(&self, inode: &Inode) -> bool {
        inode.is_shared()
    }

    /// The inode's object in the upper, copied up if need be.
    pub(super) fn upper_object(&self, inode: &Arc<Inode>) -> Result<WritableObject> {
        match &inode.node {
            Node::Dir(_) => self.copy_up_dir(inode)?.this(),
            Node::File(file) => {
                self.copy_up_file(inode, None)?;
                return self.object_of(inode, &lock(&file.state));
            }
        }
        .context("open", b".")
    }

    /// Remembers that an inode has no xattrs to be shown, unless one was set since `known` was
    /// read.
    fn note_no_xattrs(&self, inode: &Inode, known: u64) {
        if self.may_change_below() || inode.is_shared() {
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
