//! Attributes: what stat(2) on the mount shows, and setting them.

use crate::union::SetAttr;
use crate::union::node::real::real_stat;
use crate::union::types::Attr;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::layer::stat::{Kind, Protection, Stat};
use crate::layer::upper::{SetTime, UpperObject};
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{During, Result, refuse};
use crate::union::node::inode::{Inode, Node, NodeId};

impl Default for SetAttr {
    fn default() -> Self {
        Self {
            mode: None,
            uid: None,
            gid: None,
            size: None,
            atime: SetTime::Keep,
            mtime: SetTime::Keep,
            drop_setid: false,
        }
    }
}

impl Union {
    /// Changes attributes, copying the object up first if it is in a lower layer (a truncated file with only
    /// the bytes that remain). Gives the attributes after it.
    /// Errors: EROFS, ENOSPC and whatever the disk answers.
    pub fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr> {
        let inode = self.nodes.table.get(node)?;
        self.check_writable(&inode)?;
        let ids = self.ids_of(inode.volume);
        let uid = set.uid.map(|id| ids.disk_uid(id));
        let gid = set.gid.map(|id| ids.disk_gid(id));
        match &inode.node {
            Node::Dir(dir) => {
                if set.size.is_some() {
                    return refuse(Errno::ISDIR);
                }
                if let Some(remains) = &mut lock(&dir.state).removed {
                    return Ok(remains.setattr(&SetAttr {
                        uid: uid.map(|id| ids.seen_uid(id)),
                        gid: gid.map(|id| ids.seen_gid(id)),
                        ..*set
                    }));
                }
                self.copy_up_dir(&inode)?;
                let mut state = lock(&dir.state);
                // Setgid and group decide what new entries inherit.
                state.inheritance = None;
                let Some(upper) = &state.upper else {
                    return refuse(Errno::STALE);
                };
                let object = upper.this().during("open directory", b".")?;
                self.apply(&inode, &object, set, uid, gid)?;
                self.dir_attr(&inode, &mut state)
            }
            Node::File(file) => {
                if let Some(size) = set.size {
                    if inode.kind != Kind::File {
                        return refuse(Errno::INVAL);
                    }
                    self.truncate(&inode, size)?;
                    if set.drop_setid {
                        self.drop_setid(&inode, &|_| true)?;
                    }
                } else if self.changes_nothing(&inode, set)? {
                    return self.attr_with(&inode, None);
                } else {
                    self.copy_up_file(&inode, None)?;
                }
                let _times = lock(&file.copy_up);
                let state = lock(&file.state);
                if set.mode.is_some()
                    || uid.is_some()
                    || gid.is_some()
                    || set.atime != SetTime::Keep
                    || set.mtime != SetTime::Keep
                {
                    let object = self.object_of(&inode, &state)?;
                    self.apply(&inode, &object, set, uid, gid)?;
                }
                self.file_attr(&inode, &state, None)
            }
        }
    }

    /// Whether only times are set, to what they are. The kernel says so of a file whose times it keeps itself,
    /// when it was unlinked for instance: no reason to copy it up.
    fn changes_nothing(&self, inode: &Inode, set: &SetAttr) -> Result<bool> {
        if set.mode.or(set.uid).or(set.gid).is_some() {
            return Ok(false);
        }
        let Some(state) = inode.lock_file() else {
            return Ok(false);
        };
        if state.is_upper() {
            return Ok(false);
        }
        let stat = real_stat(&state.real)?;
        let same = |set: SetTime, is| set == SetTime::Keep || set == SetTime::At(is);
        Ok(same(set.atime, stat.atime) && same(set.mtime, stat.mtime))
    }

    /// Clears setuid, setgid of a program (a file that its group may execute), and setgid of other files whose group
    /// (as seen) whoever changes them does not belong to, as the kernel does when somebody without CAP_FSETID changes
    /// the content (`setattr_should_drop_suidgid`).
    pub(super) fn drop_setid(&self, inode: &Inode, belongs: &dyn Fn(u32) -> bool) -> Result<bool> {
        let Some(state) = inode.lock_file() else {
            return Ok(false);
        };
        let stat = self.stat_of(inode, &state)?;
        let perm = stat.perm();
        let mut kept = without_setid(perm);
        if kept & S_ISGID != 0 && !belongs(self.ids_of(inode.volume).seen_gid(stat.gid)) {
            kept &= !S_ISGID;
        }
        if kept == perm {
            return Ok(false);
        }
        let object = self.object_of(inode, &state)?;
        if inode.volume.is_none() {
            // Nobody else changes modes in the upper, and here that takes the lock that is held.
            object.chmod(kept).during("chmod", b".")?;
        } else {
            drop_shared_setid(&object, &stat, kept)?;
        }
        Ok(true)
    }

    /// Clears setgid of an object, whatever it is.
    pub(super) fn drop_setgid(&self, inode: &Inode) -> Result<()> {
        let clear = |object: &UpperObject| {
            let perm = object.stat().during("stat", b".")?.perm();
            if perm & S_ISGID == 0 {
                return Ok(());
            }
            object.chmod(perm & !S_ISGID).during("chmod", b".")
        };
        match &inode.node {
            Node::Dir(dir) => {
                let state = lock(&dir.state);
                match &state.upper {
                    Some(upper) => clear(&upper.this().during("open directory", b".")?),
                    None => Ok(()),
                }
            }
            Node::File(file) => {
                let state = lock(&file.state);
                clear(&self.object_of(inode, &state)?)
            }
        }
    }

    /// Owner before mode, since changing the owner clears setuid and setgid; times last, since all else changes them.
    fn apply(
        &self,
        inode: &Inode,
        object: &UpperObject,
        set: &SetAttr,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        if uid.is_some() || gid.is_some() {
            object.chown(uid, gid).during("chown", b".")?;
            if object.is_recorded() && inode.kind != Kind::Dir {
                // The disk, which would clear them, knows nothing of an owner that is kept in an xattr.
                let perm = object.stat().during("stat", b".")?.perm();
                if without_setid(perm) != perm {
                    object.chmod(without_setid(perm)).during("chmod", b".")?;
                }
                self.drop_capability_of(inode, object)?;
            }
        }
        if let Some(mode) = set.mode {
            object.chmod(mode & 0o7777).during("chmod", b".")?;
            self.acl_follows_mode(inode, object, mode)?;
        }
        if set.atime != SetTime::Keep || set.mtime != SetTime::Keep {
            object
                .utimens(set.atime, set.mtime)
                .during("utimensat", b".")?;
        }
        Ok(())
    }

    fn truncate(&self, inode: &Arc<Inode>, size: u64) -> Result<()> {
        self.copy_up_file(inode, Some(size))?;
        self.drop_capability(inode)?;
        let fd = self.data_fd(inode, true)?;
        match rustix::fs::ftruncate(&fd, size) {
            // A descriptor opened before the file became read-only for us cannot be told apart here.
            Err(Errno::INVAL | Errno::BADF) => {
                let fd = self.open_upper_data(inode, OFlags::WRONLY)?;
                rustix::fs::ftruncate(&fd, size)
            }
            other => other,
        }
        .during("ftruncate", b".")
    }
}

const S_ISGID: u32 = 0o2000;

/// A mode without setuid, and without the setgid of a program.
fn without_setid(perm: u32) -> u32 {
    const S_ISUID: u32 = 0o4000;
    const S_IXGRP: u32 = 0o0010;
    let kept = perm & !S_ISUID;
    if perm & S_IXGRP != 0 {
        kept & !S_ISGID
    } else {
        kept
    }
}

/// Clears setuid, and setgid unless it is among the bits that are `kept`, of a file whose mode others change as well: its
/// disk does it, as for anybody. An ordinary user's daemon that belongs to the group cannot have that done.
fn drop_shared_setid(object: &UpperObject, stat: &Stat, kept: u32) -> Result<()> {
    if Protection::of(object.fd()).immutable {
        return refuse(Errno::PERM);
    }
    let loses_group = stat.mode & !kept & S_ISGID != 0;
    let dropped = if loses_group {
        object.drop_privileges_outside(stat.gid)
    } else {
        object.drop_privileges().map(|()| true)
    };
    if dropped.during("chown", b".")? {
        return Ok(());
    }
    let now = object.stat().during("stat", b".")?.perm();
    object.chmod(now & !(0o6000 & !kept)).during("chmod", b".")
}
