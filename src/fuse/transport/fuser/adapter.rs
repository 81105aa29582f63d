//! The file system that fuser serves, and its session's beginning and end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{INodeNo, KernelConfig};

use super::shared::Shared;
use super::workers::Workers;
use crate::fuse::init::{TransportKind, negotiate};
use crate::fuse::serve::{notifier, sync_at_end};
use crate::fuse::settings::Settings;
use crate::sys::daemon::exit_now;
use crate::union::Union;

/// A copy-up of more bytes than this is done by a thread of its own.
const QUICK_COPY: u64 = 256 * 1024;

/// The file system that fuser serves.
#[derive(Debug)]
pub(in crate::fuse) struct Adapter {
    pub(super) shared: Arc<Shared>,
    settings: Settings,
    pub(super) workers: Workers,
    /// The session has begun; before that, a failure to mount drops the adapter too.
    serving: Arc<AtomicBool>,
}

/// Begins to serve once the mount is made.
#[derive(Debug)]
pub(in crate::fuse) struct Begin {
    shared: Arc<Shared>,
    serving: Arc<AtomicBool>,
}

impl Adapter {
    pub(in crate::fuse) fn new(union: Arc<Union>, settings: Settings, threads: usize) -> Self {
        Self {
            shared: Arc::new(Shared::new(union)),
            settings,
            workers: Workers::new(threads),
            serving: Arc::default(),
        }
    }

    /// What begins to serve, when fuser has the adapter.
    pub(in crate::fuse) fn begin(&self) -> Begin {
        Begin {
            shared: Arc::clone(&self.shared),
            serving: Arc::clone(&self.serving),
        }
    }

    pub(super) fn union(&self) -> &Union {
        &self.shared.union
    }

    /// INIT: asks for what the union can use.
    pub(super) fn negotiate(&self, config: &mut KernelConfig) {
        let union = self.union();
        let agreed = negotiate(config, union, &self.settings, TransportKind::Fuser);
        log::debug!("agreed: {agreed:?}");
        if agreed.writeback {
            union.leave_mtime_to_kernel();
        }
        self.shared.set_agreed(agreed);
    }

    /// Ends the process when the session is over.
    ///
    /// fuser 0.18 unmounts whatever is at the mount point when its session is dropped, once the
    /// session is over: by then that may be another mount (its `is_mounted` reads POLLERR the wrong
    /// way round). The mount is gone and every request answered, so the process ends here.
    pub(super) fn end(&self) {
        let union = self.union();
        let (open, limit) = union.descriptors();
        log::debug!(
            "unmounted: {} inodes known, {open} of {limit} descriptors cached",
            union.inodes()
        );
        if self.serving.load(Ordering::Acquire) {
            union.release_lowers();
            union.release_work_dir();
            self.settings.held.release();
            sync_at_end(union);
            exit_now(0);
        }
    }

    /// Does what copies the node up: here, or in another thread when that takes long.
    pub(super) fn run_copying(&self, ino: INodeNo, work: impl FnOnce() + Send + 'static) {
        if self.takes_long(ino) {
            self.workers.run(work);
        } else {
            work();
        }
    }

    /// Whether a change of this node copies so much up that it must not keep this thread.
    pub(super) fn takes_long(&self, ino: INodeNo) -> bool {
        self.shared
            .node(ino)
            .is_ok_and(|node| self.union().copies_more_than(node, QUICK_COPY))
    }
}

impl Begin {
    /// Serves the mount behind `connection` from now on.
    ///
    /// # Errors
    /// Descriptors or threads cannot be made.
    pub(in crate::fuse) fn begin(&self, connection: OwnedFd) -> io::Result<()> {
        let for_changes = connection.try_clone()?;
        self.shared.connect(connection);
        let shared = Arc::clone(&self.shared);
        let wire = move |node| shared.wire(node);
        notifier::start(&self.shared.union, for_changes, false, wire)?;
        self.serving.store(true, Ordering::Release);
        Ok(())
    }
}
