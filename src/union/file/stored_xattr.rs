//! Xattrs of the merged view as a layer stores them: under the name that the disk interprets, or
//! under one that stands for it (`layer/xattr_name.rs`).

use std::borrow::Cow;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::object::WritableObject;
use crate::layer::stat::{Kind, Protection};
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::{XattrMapping, seen};
use crate::union::error::{Context, Result, fail};
use crate::union::file::acl::Acl;
use crate::union::file::acl::{ACCESS_ACL, DEFAULT_ACL};
use crate::union::node::inode::Inode;

pub(super) const CAPABILITY: &[u8] = b"security.capability";

pub(super) fn is_acl(name: &[u8]) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

/// An xattr that is set on an object.
pub(super) struct SetXattr<'a> {
    /// How its layer keeps xattrs that have a meaning; `None` in a volume, where names are what
    /// they are.
    pub(super) keeping: Option<XattrMapping>,
    pub(super) object: &'a WritableObject,
    pub(super) name: &'a [u8],
    /// As it is on disk.
    pub(super) value: &'a [u8],
    pub(super) flags: XattrFlags,
}

impl SetXattr<'_> {
    pub(super) fn apply(&self, inode: &Inode) -> Result<()> {
        match self.keeping {
            None => self.answer(self.on_disk(self.name)),
            Some(keeping @ XattrMapping::Disk) => {
                self.answer(self.on_disk(&keeping.stored(self.name)))
            }
            Some(keeping) if is_acl(self.name) => {
                set_kept_acl(keeping, inode, self.object, self.name, self.value)
            }
            Some(keeping) => set_kept(keeping, self.object, self.name, self.value, self.flags),
        }
    }

    pub(super) fn on_disk(&self, stored: &[u8]) -> rustix::io::Result<()> {
        self.object.set_xattr(stored, self.value, self.flags)
    }

    pub(super) fn answer(&self, set: rustix::io::Result<()>) -> Result<()> {
        match set {
            // ext4 says so of an inode that has no room for more xattrs.
            Err(Errno::NOSPC) => fail(Errno::NOSPC),
            other => other.context("setxattr", self.name),
        }
    }
}

/// How an object has an xattr of the merged view.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// It has some xattr that is shown.
    pub(super) any: bool,
    /// The name that the disk interprets.
    pub(super) plain: bool,
    /// The name that stands for it.
    pub(super) kept: Option<Vec<u8>>,
}

impl Held {
    /// The stored name that counts. One that is not listed may be there all the same.
    pub(super) fn stored<'a>(&self, name: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.kept {
            Some(kept) => Cow::Owned(kept.clone()),
            None => XattrMapping::Disk.stored(name),
        }
    }
}

pub(super) fn held(path: &XattrPath, name: &[u8]) -> rustix::io::Result<Held> {
    let mut held = Held::default();
    path.any(|stored| {
        if let Some(seen) = seen(stored) {
            held.any = true;
            match (*seen.name == *name, seen.kept) {
                (true, true) => held.kept = Some(stored.to_vec()),
                (true, false) => held.plain = true,
                (false, _) => {}
            }
        }
        false
    })?;
    Ok(held)
}

/// Sets an ACL that no disk interprets (`posix_acl_update_mode` in the kernel's `posix_acl.c`).
fn set_kept_acl(
    keeping: XattrMapping,
    inode: &Inode,
    object: &WritableObject,
    name: &[u8],
    value: &[u8],
) -> Result<()> {
    match (name == DEFAULT_ACL, inode.kind) {
        (_, Kind::Symlink) => return fail(Errno::OPNOTSUPP),
        (true, kind) if kind != Kind::Dir => return fail(Errno::ACCESS),
        _ => {}
    }
    let Some(acl) = Acl::parse(value) else {
        return fail(Errno::INVAL);
    };
    if name == DEFAULT_ACL {
        return set_kept(keeping, object, name, value, XattrFlags::empty());
    }
    if acl.is_mode() {
        remove_kept(object, name)?;
    } else {
        set_kept(keeping, object, name, value, XattrFlags::empty())?;
    }
    let perm = object.stat().context("stat", b".")?.perm();
    object
        .chmod(perm & !0o777 | acl.perm())
        .context("chmod", b".")
}

/// Sets an xattr that may be there under a name that the disk interprets and under one that stands
/// for it.
pub(super) fn set_kept(
    keeping: XattrMapping,
    object: &WritableObject,
    name: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    let held = held(&object.xattrs(), name).context("listxattr", b".")?;
    let is_there = held.plain || held.kept.is_some();
    if is_there && flags.contains(XattrFlags::CREATE) {
        return fail(Errno::EXIST);
    }
    if !is_there && flags.contains(XattrFlags::REPLACE) {
        return fail(Errno::NODATA);
    }
    let stored = keeping.stored(name);
    object
        .set_xattr(&stored, value, XattrFlags::empty())
        .context("setxattr", name)?;
    match held.kept {
        Some(other) if *other != *stored => remove_if_there(object, &other),
        _ => Ok(()),
    }
}

/// Removes an xattr under every name by which it may be there.
pub(super) fn remove_kept(object: &WritableObject, name: &[u8]) -> Result<()> {
    let held = held(&object.xattrs(), name).context("listxattr", b".")?;
    if held.plain {
        remove_if_there(object, &XattrMapping::Disk.stored(name))?;
    }
    held.kept
        .map_or(Ok(()), |kept| remove_if_there(object, &kept))
}

pub(super) fn remove_if_there(object: &WritableObject, stored: &[u8]) -> Result<()> {
    match object.remove_xattr(stored) {
        Err(Errno::NODATA) => Ok(()),
        // The kernel has seen to the caller's rights, or does it itself at the next write; an
        // ordinary user's daemon may not do by name what any write of its user does. What is
        // immutable stays as it is.
        Err(Errno::PERM) if stored == CAPABILITY && !Protection::of(object.fd()).binds() => {
            object.drop_privileges().context("chown", b".")?;
            match object.xattrs().get_opt(stored) {
                Ok(None) => Ok(()),
                _ => fail(Errno::PERM),
            }
        }
        other => other.context("removexattr", stored),
    }
}
