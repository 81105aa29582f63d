//! Who asks for a change that may clear setuid and setgid (capabilities(7), CAP_FSETID).
//!
//! The rules are the union's (`union/file/privileges.rs`), which applies them under the lock of the
//! inode. What is known here alone is the process that asks, and what the kernel has decided
//! already.

use rustix::fs::XattrFlags;

use super::privilege::{belongs, may_keep_setid};
use crate::layer::object::SetTime;
use crate::union::{Asker, Attr, NodeId, Result, SetAttr, Union};

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

impl Asker for Requester {
    fn keeps_setid(&self) -> bool {
        self.may_keep_setid()
    }

    fn belongs(&self, group: u32) -> bool {
        belongs(self.pid, group)
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
    /// `from_cache`: the kernel sends pages of its cache; `writeback`: it gathers writes there;
    /// `append`: the program's descriptor has `O_APPEND`.
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
    /// Has the kernel ask again for the attributes of a node, of which it goes on believing the old
    /// mode: with that the program that was just written could be executed.
    pub(in crate::fuse) invalidate: F,
}

impl<F: Fn(NodeId)> SetidRules<'_, F> {
    /// Writes, and clears setuid and setgid when the kernel says so.
    pub(in crate::fuse) fn write(&self, node: NodeId, write: &Write<'_>) -> Result<()> {
        if write.kill_setid {
            // The kernel has found that CAP_FSETID is missing.
            self.clear(node, &|group| belongs(self.requester.pid, group))?;
        }
        let Write { offset, data, .. } = *write;
        match write.kind {
            WriteKind::Direct => self.union.write(node, offset, data),
            WriteKind::Append => self.union.append(node, offset, data),
            WriteKind::Mapped => self.union.write_mapped(node, offset, data),
            WriteKind::Cached => self.union.write_back(node, offset, data),
        }
    }

    /// Sets attributes for the process.
    pub(in crate::fuse) fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr> {
        let owners = set.mode.or(set.uid).or(set.gid);
        let times = (set.atime, set.mtime);
        if owners.is_none() && set.size.is_none() && times == (SetTime::Keep, SetTime::Keep) {
            // Only a time that the kernel keeps by itself (ctime with the writeback cache).
            return self.union.getattr(node);
        }
        self.union.setattr_by(node, set, &self.requester)
    }

    /// Sets an xattr. An access ACL takes setgid from a file whose group the process is not in, as
    /// chmod(2) does.
    pub(in crate::fuse) fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
        acl: AclChange,
    ) -> Result<()> {
        match acl {
            AclChange::Decided { kill_setgid: true } => {
                self.union.set_acl_outside_group(node, name, value, flags)
            }
            AclChange::Decided { kill_setgid: false } => {
                self.union.setxattr(node, name, value, flags)
            }
            AclChange::Undecided => {
                self.union
                    .setxattr_by(node, name, value, flags, &self.requester)
            }
        }
    }

    /// Before fallocate(2) and copy_file_range(2), with which the kernel does not say whether the
    /// bits go.
    pub(in crate::fuse) fn before_content_changes(&self, node: NodeId) -> Result<()> {
        // The file's `security.capability` goes with every write; the upper's disk sees to that.
        self.clear(node, &self.requester)
    }

    fn clear(&self, node: NodeId, asker: &dyn Asker) -> Result<()> {
        if self.union.clear_setid(node, asker)? {
            (self.invalidate)(node);
        }
        Ok(())
    }
}
