//! The union with its node ids on the wire: what a request needs that is worked on by another thread.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, OpenFlags, WriteFlags};

use super::node_ids::NodeIds;
use super::notifier;
use crate::union::{Error, NodeId, Result, Union};

/// What requests work on, wherever they are worked on.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) union: Arc<Union>,
    pub(super) ids: NodeIds,
    /// The kernel gathers writes and keeps the times of the files.
    pub(super) writeback: AtomicBool,
    /// Where the kernel is told what it should not believe any more; known once the mount is made.
    pub(super) connection: OnceLock<OwnedFd>,
}

impl Shared {
    /// The node that a number on the wire means; ESTALE for none.
    pub(super) fn node(&self, wire: INodeNo) -> Result<NodeId> {
        match self.ids.node(wire.0) {
            Some(node) => Ok(node),
            None => Err(Error::rule(rustix::io::Errno::STALE)),
        }
    }

    /// The number that the kernel knows a node by; `None` when it does not know it.
    pub(super) fn wire(&self, node: NodeId) -> Option<u64> {
        let st_ino = self.union.st_ino(node)?;
        self.ids.known(node, st_ino)
    }

    /// Takes setuid and setgid from a file; the kernel goes on believing the old mode until it is told.
    pub(super) fn clear_setid(&self, node: NodeId) -> Result<()> {
        let cleared = self.union.clear_setid(node, &|_| true)?;
        if let (true, Some(connection), Some(wire)) =
            (cleared, self.connection.get(), self.wire(node))
        {
            notifier::forget_attributes(connection, wire);
        }
        Ok(())
    }

    /// Writes, and clears setuid and setgid if the kernel says so. `open` are the flags of the program's own descriptor.
    pub(super) fn write(
        &self,
        ino: INodeNo,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        open: OpenFlags,
    ) -> Result<()> {
        let node = self.node(ino)?;
        if flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            self.clear_setid(node)?;
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
