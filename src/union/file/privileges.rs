//! Setuid, setgid and who may keep them (chmod(2), chown(2), write(2); capabilities(7),
//! CAP_FSETID).
//!
//! The rules are those of `setattr_should_drop_suidgid` and `posix_acl_update_mode` in the kernel.
//! They are applied here alone, under the lock of the inode's state, which every change of a mode
//! holds: a chmod comes wholly before or wholly after them. Transports say who asks, by an
//! [`Asker`].

use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::object::WritableObject;
use crate::layer::stat::{Protection, Stat};
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{FileState, Inode};

/// The mode bit setgid (inode(7)).
pub(in crate::union) const S_ISGID: u32 = 0o2000;
const S_ISUID: u32 = 0o4000;
const S_IXGRP: u32 = 0o0010;
/// Both.
pub(in crate::union) const SETID: u32 = S_ISUID | S_ISGID;

/// The process that asks for a change. Questions are put under the lock of the inode, and only
/// where the answer matters, since each may cost a look into `/proc`: they must not use the union.
///
/// A closure is a process that is known to lack CAP_FSETID, and answers whether it belongs to a
/// group.
pub trait Asker {
    /// Whether setuid and setgid stay when it changes the content of a file.
    fn keeps_setid(&self) -> bool;

    /// Whether it is in a group (as seen through the mount) or has CAP_FSETID: then a file of that
    /// group which is no program keeps setgid.
    fn belongs(&self, group: u32) -> bool;
}

impl<F: Fn(u32) -> bool> Asker for F {
    fn keeps_setid(&self) -> bool {
        false
    }

    fn belongs(&self, group: u32) -> bool {
        self(group)
    }
}

/// A process with CAP_FSETID.
#[derive(Clone, Copy, Debug)]
pub struct Privileged;

impl Asker for Privileged {
    fn keeps_setid(&self) -> bool {
        true
    }

    fn belongs(&self, _group: u32) -> bool {
        true
    }
}

impl Union {
    /// As [`Union::clear_setid`].
    pub(in crate::union) fn inode_clear_setid(
        &self,
        inode: &Arc<Inode>,
        asker: &dyn Asker,
    ) -> Result<bool> {
        self.copy_up_file(inode, None)?;
        match inode.lock_file() {
            Some(state) => self.drop_setid(inode, &state, asker),
            None => Ok(false),
        }
    }

    /// Clears setuid, setgid of a program (a file that its group may execute), and setgid of other
    /// files whose group `asker` does not belong to. `state` is the inode's, locked. Returns
    /// whether there was anything to clear.
    pub(super) fn drop_setid(
        &self,
        inode: &Inode,
        state: &FileState,
        asker: &dyn Asker,
    ) -> Result<bool> {
        let stat = self.stat_of(inode, state)?;
        let perm = stat.perm();
        if perm & SETID == 0 {
            return Ok(false);
        }
        let mut kept = without_setid(perm);
        if kept & S_ISGID != 0 && !asker.belongs(self.ids_of(inode).seen_gid(stat.gid)) {
            kept &= !S_ISGID;
        }
        if kept == perm || asker.keeps_setid() {
            return Ok(false);
        }
        let object = self.object_of(inode, state)?;
        if !inode.is_shared() {
            // No other process changes modes in the upper, and this one holds the lock.
            object.chmod(kept).context("chmod", b".")?;
        } else {
            drop_shared_setid(&object, &stat, kept)?;
        }
        Ok(true)
    }

    /// Whether a change of owner by `asker` takes setgid from a file that is no program. `state` is
    /// the inode's, locked. (From programs the disk takes it, see [`drop_after_chown`].)
    pub(super) fn chown_drops_setgid(
        &self,
        inode: &Inode,
        state: &FileState,
        asker: &dyn Asker,
    ) -> Result<bool> {
        let stat = self.stat_of(inode, state)?;
        Ok(stat.mode & (S_ISGID | S_IXGRP) == S_ISGID
            && !asker.belongs(self.ids_of(inode).seen_gid(stat.gid)))
    }

    /// Whether an access ACL that `asker` sets on an object takes setgid from it, as chmod(2) does.
    /// In a volume the bit may be set by others at any time, so its disk decides.
    pub(super) fn acl_drops_setgid(
        &self,
        inode: &Inode,
        object: &WritableObject,
        asker: &dyn Asker,
    ) -> Result<bool> {
        let stat = object.stat().context("stat", b".")?;
        Ok((stat.mode & S_ISGID != 0 || inode.is_shared())
            && !asker.belongs(self.ids_of(inode).seen_gid(stat.gid)))
    }
}

/// Clears setgid of an object of any type. The state of its inode is locked.
pub(super) fn drop_setgid(object: &WritableObject) -> Result<()> {
    let perm = object.stat().context("stat", b".")?.perm();
    if perm & S_ISGID == 0 {
        return Ok(());
    }
    object.chmod(perm & !S_ISGID).context("chmod", b".")
}

/// After the owner of a file was set that is kept in an xattr: clears what the disk, which does not
/// see such a change, would have cleared. The state of its inode is locked.
pub(super) fn drop_after_chown(object: &WritableObject) -> Result<()> {
    let perm = object.stat().context("stat", b".")?.perm();
    if without_setid(perm) == perm {
        return Ok(());
    }
    object.chmod(without_setid(perm)).context("chmod", b".")
}

/// A mode without setuid, and without the setgid of a program.
fn without_setid(perm: u32) -> u32 {
    let kept = perm & !S_ISUID;
    if perm & S_IXGRP != 0 {
        kept & !S_ISGID
    } else {
        kept
    }
}

/// Clears setuid, and setgid unless it is among the bits that are `kept`, of a file whose mode
/// other processes change as well: its disk does it. An ordinary user's daemon that belongs to the
/// group cannot have that done, and writes the mode.
fn drop_shared_setid(object: &WritableObject, stat: &Stat, kept: u32) -> Result<()> {
    if Protection::of(object.fd()).immutable {
        return fail(Errno::PERM);
    }
    let loses_group = stat.mode & !kept & S_ISGID != 0;
    let dropped = if loses_group {
        object.drop_privileges_outside(stat.gid)
    } else {
        object.drop_privileges().map(|()| true)
    };
    if dropped.context("chown", b".")? {
        return Ok(());
    }
    let now = object.stat().context("stat", b".")?.perm();
    object.chmod(now & !(SETID & !kept)).context("chmod", b".")
}
