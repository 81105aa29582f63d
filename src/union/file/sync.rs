//! Bringing everything to the disks.

use crate::layer::xattr::proc_path;
use crate::union::error::{Context, Result};
use crate::union::node::volume::Volume;
use crate::union::work::writable::Writable;
use crate::union::{Union, fail};
use rustix::fs::{Mode, OFlags, syncfs};
use rustix::io::Errno;
use std::sync::atomic::Ordering;

impl Union {
    /// Syncs everything on the upper's disk (syncfs(2)), regardless of its writer, and everything
    /// on the disks of volumes; nothing when the union is volatile. A read-only union has nothing
    /// to bring there. Errors: EIO, ENOSPC and EDQUOT, of earlier writes too; after the first one
    /// always, since what was lost is not found again.
    pub fn syncfs(&self) -> Result<()> {
        if self.rules.volatile {
            return Ok(());
        }
        let lost = self.lost.load(Ordering::Acquire);
        if lost != 0 {
            return fail(Errno::from_raw_os_error(lost));
        }
        let synced = self.sync_disks();
        self.remember_failed_sync(&synced);
        synced
    }

    /// Remembers that a sync found a write that had failed, which no other sync will report.
    pub(in crate::union) fn remember_failed_sync(&self, synced: &Result<()>) {
        if let Err(error) = synced
            && let errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT) = error.errno()
        {
            self.lost.store(errno.raw_os_error(), Ordering::Release);
        }
    }

    /// One that fails keeps none of the others from being synced. Errors: the first one's.
    fn sync_disks(&self) -> Result<()> {
        let volumes = self.volumes.list.iter().filter(|volume| !volume.read_only);
        let upper = self.writable.iter().map(Writable::sync_disk);
        let mut synced = Ok(());
        for this in volumes.map(sync_volume).chain(upper) {
            synced = synced.and(this);
        }
        synced
    }
}

/// syncfs(2) of a volume's disk; sync(2), which says nothing of what failed, where the daemon may
/// not read the volume.
fn sync_volume(volume: &Volume) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(proc_path(&volume.fd), flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::sync();
            Ok(())
        }
        opened => opened
            .and_then(syncfs)
            .context("syncfs of a volume's disk", b"."),
    }
}
