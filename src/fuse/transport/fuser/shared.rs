//! The union with its node ids on the wire: what a request needs that is worked on by another thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, OpenFlags, WriteFlags};
use rustix::fs::XattrFlags;

use super::node_ids::NodeIds;
use crate::fuse::serve::notifier;
use crate::fuse::serve::privilege::belongs;
use crate::layer::stat::Kind;
use crate::union::{Attr, Error, NodeId, Result, SetAttr, Union};

/// Mode bits (inode(7)).
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// What requests work on, wherever they are worked on.
#[derive(Debug)]
pub(in crate::fuse) struct Shared {
    pub(in crate::fuse) union: Arc<Union>,
    pub(in crate::fuse) ids: NodeIds,
    /// The kernel gathers writes and keeps the times of the files.
    pub(in crate::fuse) writeback: AtomicBool,
    /// Where the kernel is told what it should not believe any more; known once the mount is made.
    pub(in crate::fuse) connection: OnceLock<OwnedFd>,
}

impl Shared {
    /// The node that a number on the wire means; ESTALE for none.
    pub(in crate::fuse) fn node(&self, wire: INodeNo) -> Result<NodeId> {
        match self.ids.node(wire.0) {
            Some(node) => Ok(node),
            None => Err(Error::rule(rustix::io::Errno::STALE)),
        }
    }

    /// The number that the kernel knows a node by; `None` when it does not know it.
    pub(in crate::fuse) fn wire(&self, node: NodeId) -> Option<u64> {
        let st_ino = self.union.st_ino(node)?;
        self.ids.known(node, st_ino)
    }

    /// Has the kernel told of attributes that change beside a request, now that the connection is known.
    pub(in crate::fuse) fn tell_attributes(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        self.union.tell_attributes_to(move |node| {
            if let Some(shared) = shared.upgrade() {
                shared.forget_attributes(node);
            }
        });
    }

    fn forget_attributes(&self, node: NodeId) {
        if let (Some(connection), Some(wire)) = (self.connection.get(), self.wire(node)) {
            notifier::forget_attributes(connection, wire);
        }
    }

    /// Takes setuid and setgid from a file that `pid` changes; the kernel goes on believing the old mode until it is told.
    pub(in crate::fuse) fn clear_setid(&self, node: NodeId, pid: u32) -> Result<()> {
        if self.union.clear_setid(node, &|group| belongs(pid, group))? {
            self.forget_attributes(node);
        }
        Ok(())
    }

    /// Sets attributes. A truncation or a change of owner takes setgid from a file that is no program, when the process `pid`
    /// that asks for it is not in the file's group.
    pub(in crate::fuse) fn setattr(&self, node: NodeId, set: &SetAttr, pid: u32) -> Result<Attr> {
        let chown = set.uid.or(set.gid).is_some();
        let may_lose = set.mode.is_none() && (chown || (set.size.is_some() && set.drop_setid));
        let before = may_lose.then(|| self.union.getattr(node)).transpose()?;
        let attr = self.union.setattr(node, set)?;
        match before {
            Some(before)
                if before.kind() != Kind::Dir
                    && before.mode & (S_ISGID | S_IXGRP) == S_ISGID
                    && !belongs(pid, before.gid) =>
            {
                self.union.clear_setid(node, &|_| false)?;
                self.union.getattr(node)
            }
            _ => Ok(attr),
        }
    }

    /// Sets an xattr. An access ACL takes setgid from a file whose group `pid` is not in, as chmod(2) does; the short form of
    /// SETXATTR, which is fuser's, does not say so.
    pub(in crate::fuse) fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
        pid: u32,
    ) -> Result<()> {
        if name == b"system.posix_acl_access" {
            let attr = self.union.getattr(node)?;
            if attr.mode & S_ISGID != 0 && !belongs(pid, attr.gid) {
                return self.union.set_acl_of_outsider(node, name, value, flags);
            }
        }
        self.union.setxattr(node, name, value, flags)
    }

    /// Writes, and clears setuid and setgid if the kernel says so. `open` are the flags of the program's own descriptor,
    /// `pid` is its process.
    pub(in crate::fuse) fn write(
        &self,
        ino: INodeNo,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        open: OpenFlags,
        pid: u32,
    ) -> Result<()> {
        let node = self.node(ino)?;
        if flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            self.clear_setid(node, pid)?;
        }
        if self.writeback.load(Ordering::Relaxed) && flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.union.write_back(node, offset, data)
        } else if flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            self.union.write_mapped(node, offset, data)
        } else if open.0 & libc::O_APPEND != 0 {
            self.union.append(node, offset, data)
        } else {
            self.union.write(node, offset, data)
        }
    }
}
