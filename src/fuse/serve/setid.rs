//! Which changes clear setuid and setgid, and for whom (capabilities(7), CAP_FSETID; chmod(2), write(2), chown(2)).
//!
//! Every change whose answer depends on who asks goes through [`SetidRules`], whichever transport it came by. The union
//! clears the bits; what is known here alone is the process that asks.

use rustix::fs::XattrFlags;

use super::privilege::{belongs, may_keep_setid};
use crate::layer::stat::Kind;
use crate::layer::object::SetTime;
use crate::union::{Attr, NodeId, Result, SetAttr, Union};

/// Mode bits (inode(7)).
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;
/// The xattr that is the access ACL.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The process that a request comes from.
#[derive(Clone, Copy, Debug)]
pub(in crate::fuse) struct Requester {
    /// Its user; all bits set on an idmapped mount.
    pub(in crate::fuse) uid: u32,
    /// Its number; 0 when it is in another PID namespace.
    pub(in crate::fuse) pid: u32,
}

impl Requester {
    /// Whether it may change the content of a file and leave setuid and setgid.
    pub(in crate::fuse) fn may_keep_setid(self) -> bool {
        may_keep_setid(self.uid, self.pid)
    }
}

/// How bytes come to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuse) enum WriteKind {
    /// By write(2).
    Direct,
    /// By write(2), to a descriptor with `O_APPEND`.
    Append,
    /// From the page cache, which holds what a program wrote to a mapping.
    Mapped,
    /// From the page cache, where the kernel gathers writes and keeps the file's times.
    Cached,
}

impl WriteKind {
    /// `from_cache`: the kernel sends pages of its cache; `writeback`: it gathers writes there; `append`: the program's
    /// descriptor has `O_APPEND`.
    pub(in crate::fuse) fn of(from_cache: bool, writeback: bool, append: bool) -> Self {
        match (from_cache, writeback, append) {
            (true, true, _) => Self::Cached,
            (true, false, _) => Self::Mapped,
            (false, _, true) => Self::Append,
            (false, _, false) => Self::Direct,
        }
    }
}

/// A write.
#[derive(Clone, Copy, Debug)]
pub(in crate::fuse) struct Write<'a> {
    pub(in crate::fuse) offset: u64,
    pub(in crate::fuse) data: &'a [u8],
    pub(in crate::fuse) kind: WriteKind,
    /// The kernel says that setuid and setgid are to be cleared (`FUSE_WRITE_KILL_SUIDGID`).
    pub(in crate::fuse) kill_setid: bool,
}

/// Who decides whether an access ACL that is set clears setgid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuse) enum AclChange {
    /// The kernel has decided (`FUSE_SETXATTR_ACL_KILL_SGID`, the long form of SETXATTR).
    Decided { kill_setgid: bool },
    /// The short form does not say so: the process is asked.
    Undecided,
}

/// The rules for one request.
pub(in crate::fuse) struct SetidRules<'a, F> {
    pub(in crate::fuse) union: &'a Union,
    pub(in crate::fuse) requester: Requester,
    /// Has the kernel ask again for the attributes of a node, of which it goes on believing the old mode: with that the
    /// program that was just written could be executed.
    pub(in crate::fuse) invalidate: F,
}

impl<F: Fn(NodeId)> SetidRules<'_, F> {
    /// Writes, and clears setuid and setgid when the kernel says so.
    pub(in crate::fuse) fn write(&self, node: NodeId, write: &Write<'_>) -> Result<()> {
        if write.kill_setid {
            self.clear(node)?;
        }
        let Write { offset, data, .. } = *write;
        match write.kind {
            WriteKind::Direct => self.union.write(node, offset, data),
            WriteKind::Append => self.union.append(node, offset, data),
            WriteKind::Mapped => self.union.write_mapped(node, offset, data),
            WriteKind::Cached => self.union.write_back(node, offset, data),
        }
    }

    /// Sets attributes. A truncation or a change of owner takes setgid from a file that is no program, when the process
    /// that asks for it is not in the file's group. (From programs it is taken by the union and by the upper's disk.)
    pub(in crate::fuse) fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr> {
        let owners = set.mode.or(set.uid).or(set.gid);
        let times = (set.atime, set.mtime);
        if owners.is_none() && set.size.is_none() && times == (SetTime::Keep, SetTime::Keep) {
            // Only a time that the kernel keeps by itself (ctime with the writeback cache).
            return self.union.getattr(node);
        }
        let loses = self.loses_setgid(node, set)?;
        let attr = self.union.setattr(node, set)?;
        if loses && self.union.clear_setid(node, &|_| false)? {
            return self.union.getattr(node);
        }
        Ok(attr)
    }

    fn loses_setgid(&self, node: NodeId, set: &SetAttr) -> Result<bool> {
        let chown = set.uid.or(set.gid).is_some();
        if set.mode.is_some() || !(chown || (set.size.is_some() && set.drop_setid)) {
            return Ok(false);
        }
        let attr = self.union.getattr(node)?;
        Ok(attr.kind() != Kind::Dir
            && attr.mode & (S_ISGID | S_IXGRP) == S_ISGID
            && !belongs(self.requester.pid, attr.gid))
    }

    /// Sets an xattr. An access ACL takes setgid from a file whose group the process is not in, as chmod(2) does.
    pub(in crate::fuse) fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
        acl: AclChange,
    ) -> Result<()> {
        let kill_setgid = match acl {
            AclChange::Decided { kill_setgid } => kill_setgid,
            AclChange::Undecided if name == ACCESS_ACL => {
                let attr = self.union.getattr(node)?;
                attr.mode & S_ISGID != 0 && !belongs(self.requester.pid, attr.gid)
            }
            AclChange::Undecided => false,
        };
        if kill_setgid {
            return self.union.set_acl_of_outsider(node, name, value, flags);
        }
        self.union.setxattr(node, name, value, flags)
    }

    /// Before fallocate(2) and copy_file_range(2), with which the kernel does not say whether the bits go.
    pub(in crate::fuse) fn before_content_changes(&self, node: NodeId) -> Result<()> {
        // The file's `security.capability` goes with every write; the upper's disk sees to that.
        let has_bits = self.union.getattr(node)?.mode & (S_ISUID | S_ISGID) != 0;
        if has_bits && !self.requester.may_keep_setid() {
            self.clear(node)?;
        }
        Ok(())
    }

    fn clear(&self, node: NodeId) -> Result<()> {
        let is_member = |group| belongs(self.requester.pid, group);
        if self.union.clear_setid(node, &is_member)? {
            (self.invalidate)(node);
        }
        Ok(())
    }
}
