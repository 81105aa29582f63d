//! The end of a mount: what was written is brought to the disks, and the layers are released.

use std::sync::atomic::{AtomicBool, Ordering};

use super::server::Server;

use super::failure_log::{FailureLog, Subject};
use crate::union::{NodeId, Result, Union};

/// What the end of a mount depends on.
#[derive(Debug, Default)]
pub(super) struct EndState {
    /// Something may have been changed since the last sync.
    changed: AtomicBool,
    /// The connection's end is the mount's: nothing else is made of the union.
    settled: AtomicBool,
}

impl EndState {
    pub(super) fn mark_changed(&self) {
        // Looked at first: processors that only read it share it.
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Release);
        }
    }
}

impl Server {
    /// Brings everything to the disks that was written before. What fails is logged by the caller.
    /// Errors: those of [`crate::union::Union::syncfs`].
    pub(super) fn sync(&self) -> Result<()> {
        self.end.changed.store(false, Ordering::Release);
        let synced = self.union.syncfs();
        if synced.is_err() {
            self.end.mark_changed();
        }
        synced
    }

    /// The mount is made and will be served by this server until it ends.
    pub fn settle(&self) {
        self.end.settled.store(true, Ordering::Release);
    }

    /// The connection has ended: nothing of the lower layers is needed any more, and their disks
    /// may be unmounted next. The first thread to notice does it, before anything else is taken
    /// down; what another thread still works at fails, and no process waits for it.
    pub fn ended(&self) {
        if self.end.settled.swap(false, Ordering::AcqRel) {
            self.union.release_lowers();
        }
    }

    /// The last request is done: another mount may have the work directory, and what was changed is
    /// brought to the disks, as kernel overlayfs does at umount(2). A failure is logged.
    pub fn finish(&self) {
        self.union.release_work_dir();
        if self.end.changed.load(Ordering::Acquire) {
            sync_at_end(&self.union);
        }
    }
}

/// Brings everything to the disks when no process is left that could be told what failed: it is
/// logged.
pub(in crate::fuse) fn sync_at_end(union: &Union) {
    if let Err(error) = union.syncfs() {
        let subject = Subject {
            call: "syncfs at the end of the mount",
            node: NodeId::ROOT,
            name: None,
        };
        FailureLog::default().report(union, subject, &error);
    }
}
