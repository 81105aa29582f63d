//! OPEN and RELEASE, where the kernel is to ask at all, and passthrough.
//!
//! With passthrough the kernel reads and writes the real file by itself (`FUSE_PASSTHROUGH`; Linux
//! 6.9). It wants one backing per inode for as long as the inode is open, and all opens of it to
//! agree, else they fail with EIO. So the first open of an inode decides for those that come while
//! it is open: passthrough where the backing cannot change any more (an upper file, or any file of
//! a read-only union), else through the page cache.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use super::notifier;
use super::server::{Server, fail};
use crate::fuse::init::Negotiated;
use crate::fuse::proto::reply::Body;
use crate::fuse::proto::wire::{OpenOut, fopen};
use crate::sync::lock;
use crate::sys::device;
use crate::union::{Entry, NodeId, Result, Union, Validity};

/// An inode that is open.
#[derive(Debug)]
struct Open {
    count: u64,
    /// The kernel's number of its backing file; `None` when it goes through the page cache.
    backing: Option<i32>,
}

/// What is open, where the kernel says so.
#[derive(Debug)]
pub(super) struct Opens {
    /// The connection, when passthrough was agreed on.
    device: Option<Arc<OwnedFd>>,
    /// The kernel does not let us: in a user namespace, or below too many stacked file systems.
    refused: AtomicBool,
    /// What is passed through may change.
    writable: bool,
    /// Lock order: no other lock is taken while it is held.
    files: Mutex<HashMap<NodeId, Open>>,
}

impl Opens {
    pub(super) fn new(device: Option<Arc<OwnedFd>>, writable: bool) -> Self {
        Self {
            device,
            refused: AtomicBool::new(false),
            writable,
            files: Mutex::default(),
        }
    }

    /// Counts an open; returns the backing's number if the inode is passed through.
    fn opened(&self, server: &Server, node: NodeId) -> Option<i32> {
        let connection = self.device.as_ref()?;
        // Found out before the lock is taken: opening the real file asks its disk.
        let backing = if self.refused.load(Ordering::Relaxed) {
            None
        } else {
            server.union.backing(node).unwrap_or_else(|error| {
                log::debug!("passthrough: {error}");
                None
            })
        };
        let mut files = lock(&self.files);
        if let Some(open) = files.get_mut(&node) {
            open.count += 1;
            return open.backing;
        }
        let number = backing.and_then(|file| {
            device::open_backing(connection.as_fd(), file.as_fd())
                .inspect_err(|errno| self.passthrough_refused(*errno))
                .ok()
        });
        files.insert(
            node,
            Open {
                count: 1,
                backing: number,
            },
        );
        drop(files);
        if self.writable && number.is_some() {
            notifier::invalidate_content(connection, node);
        }
        number
    }

    /// Whether a node's attributes change without a request.
    pub(super) fn changes_unseen(&self, node: NodeId) -> bool {
        self.writable
            && self.device.is_some()
            && lock(&self.files)
                .get(&node)
                .is_some_and(|open| open.backing.is_some())
    }

    /// Says once why files are not passed through, and does not try again where that is for good.
    fn passthrough_refused(&self, errno: Errno) {
        let for_good = matches!(
            errno,
            Errno::PERM | Errno::LOOP | Errno::OPNOTSUPP | Errno::NOTTY
        );
        if for_good && !self.refused.swap(true, Ordering::Relaxed) {
            log::info!(
                "no passthrough: {errno}; files are read and written through the page cache"
            );
        }
    }

    /// One open of the inode is over; with the last, its backing is closed.
    pub(super) fn released(&self, node: NodeId) {
        let Some(connection) = &self.device else {
            return;
        };
        let backing = {
            let mut files = lock(&self.files);
            let Some(open) = files.get_mut(&node) else {
                return;
            };
            open.count -= 1;
            if open.count > 0 {
                return;
            }
            files.remove(&node).and_then(|open| open.backing)
        };
        if let Some(backing) = backing
            && let Err(errno) = device::close_backing(connection.as_fd(), backing)
        {
            log::warn!("close a passthrough file: {errno}");
        }
    }
}

/// Opens a file that is read and written through the page cache: returns the flags of the reply.
/// Errors: those of [`check_open`].
pub(in crate::fuse) fn open_file(union: &Union, agreed: &Negotiated, node: NodeId) -> Result<u32> {
    check_open(union, node)?;
    Ok(cached_open(union, agreed, node))
}

/// Errors: ESTALE for a file that was replaced in its layer: the kernel then looks its name up
/// again.
fn check_open(union: &Union, node: NodeId) -> Result<()> {
    if union.may_change_below() {
        union.getattr(node)?;
    }
    Ok(())
}

/// The flags of an open through the page cache, which stays true where no other mount changes the
/// file.
fn cached_open(union: &Union, agreed: &Negotiated, node: NodeId) -> u32 {
    if agreed.keeps_cache && !union.is_shared(node) {
        fopen::KEEP_CACHE | fopen::NOFLUSH
    } else {
        0
    }
}

impl Server {
    /// How long the kernel may cache a node's attributes.
    pub(super) fn attr_lifetime(&self, node: NodeId, validity: Validity) -> Duration {
        if self.opens.changes_unseen(node) {
            Duration::ZERO
        } else {
            self.agreed.attr_lifetime(validity)
        }
    }

    pub(super) fn open(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        if self.agreed.zero_message_open {
            return fail(Errno::NOSYS);
        }
        check_open(&self.union, node)?;
        Ok(body.put(&self.opened(node))?)
    }

    /// The reply to CREATE and TMPFILE: the entry and the open, which decides how long the
    /// attributes live.
    pub(super) fn put_created(&self, entry: &Entry, body: &mut Body<'_>) -> Result<()> {
        let open = self.opened(entry.node);
        self.put_entry(entry, body)?;
        Ok(body.put(&open)?)
    }

    /// Counts an open; returns its reply.
    fn opened(&self, node: NodeId) -> OpenOut {
        let cached = cached_open(&self.union, &self.agreed, node);
        match self.opens.opened(self, node) {
            Some(backing) => OpenOut {
                fh: 0,
                open_flags: fopen::PASSTHROUGH,
                backing_id: backing,
            },
            None => OpenOut {
                fh: 0,
                open_flags: cached,
                backing_id: 0,
            },
        }
    }

    pub(super) fn opendir(&self, body: &mut Body<'_>) -> Result<()> {
        if self.agreed.zero_message_opendir {
            return fail(Errno::NOSYS);
        }
        Ok(body.put(&OpenOut::default())?)
    }
}
