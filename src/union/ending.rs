//! Bringing everything to the disks, and letting go of them when the mount has ended.

use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags, syncfs};
use rustix::io::Errno;

use crate::layer::xattr::proc_path;
use crate::union::Union;
use crate::union::copyup::writable::Writable;
use crate::union::error::{During, Result, refuse};
use crate::union::volume::mounted::Volume;

impl Writable {
    /// syncfs(2) of the upper's disk. It tells of each failure to write that there was since the union was opened, once:
    /// the work directory has been open for that long, and it can always be read.
    pub(in crate::union) fn sync_disk(&self) -> Result<()> {
        let fd = self.stage.dir().fd().during("open", b".")?;
        syncfs(&*fd).during("syncfs of the upper's disk", b"/")
    }
}

impl Union {
    /// Brings everything on the upper's disk to that disk (syncfs(2)), whoever wrote it, and everything on the disks of
    /// volumes; nothing when the union is volatile. A read-only union has nothing to bring there. Errors: EIO, ENOSPC and
    /// EDQUOT, of earlier writes too; after the first one always, since what was lost is not found again.
    pub fn syncfs(&self) -> Result<()> {
        if self.rules.volatile {
            return Ok(());
        }
        let lost = self.lost.load(Ordering::Acquire);
        if lost != 0 {
            return refuse(Errno::from_raw_os_error(lost));
        }
        let synced = self.sync_disks();
        self.note_loss(&synced);
        synced
    }

    /// Remembers that a sync found a write that had failed, of which no other one will be told.
    pub(in crate::union) fn note_loss(&self, synced: &Result<()>) {
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

    /// Nothing of the lower layers is asked for any more: what is open there is closed, so that their disks can be
    /// unmounted. Whoever is just at it ends with an error.
    pub fn let_go_of_lowers(&self) {
        for lower in self.layers.lowers.iter().chain(&self.layers.data_only) {
            lower.let_go();
        }
        self.layers.fds.close_all();
    }

    /// Nothing is changed any more: another union may have the work directory.
    pub fn let_go_of_work(&self) {
        if let Some(writable) = &self.writable {
            writable.stage.unlock();
        }
    }
}

/// syncfs(2) of a volume's disk; sync(2), which says nothing of what failed, where the daemon may not read the volume.
fn sync_volume(volume: &Volume) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(proc_path(&volume.fd), flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::sync();
            Ok(())
        }
        opened => opened
            .and_then(syncfs)
            .during("syncfs of a volume's disk", b"."),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::union::tests::testing::{Stack, errno, find, mkdir};
    use crate::union::tests::volume::{open, stack, volume};
    use crate::union::{Caller, New, NodeId};

    fn open_below(path: &std::path::Path) -> usize {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| target.starts_with(path))
            .count()
    }

    #[test]
    fn what_is_let_go_is_closed() {
        let stack = Stack::new();
        stack.file("old/d/f", "old");
        stack.file("new/e/g", "new");
        let union = stack.open();
        let held = find(&union, "d/f").node;
        let mut byte = [0];
        union.read(held, 0, &mut byte).unwrap();
        find(&union, "e/g");
        for lower in ["old", "new"] {
            assert!(open_below(&stack.at(lower)) > 0);
        }
        union.let_go_of_lowers();
        for lower in ["old", "new"] {
            assert_eq!(open_below(&stack.at(lower)), 0, "{lower}");
        }
        assert!(union.read(held, 0, &mut byte).is_err());
        // The upper is still there to be synced.
        union.syncfs().unwrap();
    }

    #[test]
    fn the_work_directory_is_anothers_when_nothing_changes_any_more() {
        let stack = Stack::new();
        let union = stack.open();
        mkdir(&union, "d", 0o755);
        union.let_go_of_work();
        let next = stack.open();
        let made = next.make(
            NodeId::ROOT,
            b"e",
            &New::Dir { mode: 0o755 },
            &Caller::default(),
        );
        made.unwrap();
        union.syncfs().unwrap();
    }

    #[test]
    fn what_was_lost_is_not_forgotten() {
        let stack = Stack::new();
        let union = stack.open();
        union.syncfs().unwrap();
        // One that could not be tried says nothing.
        union.note_loss(&refuse(Errno::MFILE));
        union.syncfs().unwrap();
        union.note_loss(&refuse(Errno::IO));
        for _ in 0..2 {
            assert_eq!(errno(union.syncfs()), Errno::IO);
        }
    }

    /// Whoever mounts may use a volume that he cannot read: it can be synced all the same, and so can the upper.
    #[test]
    fn a_volume_that_cannot_be_read_is_synced() {
        let stack = stack();
        std::fs::set_permissions(stack.at("vol"), std::fs::Permissions::from_mode(0o300)).unwrap();
        let union = open(&stack, &[volume(&stack, "vol", "/data")]);
        let union = &union;
        std::thread::scope(|threads| {
            let sync = || {
                let nobody = Some(rustix::thread::Uid::from_raw(65534));
                // An ordinary user finds it closed anyway; of root the capabilities go.
                if rustix::process::geteuid().is_root() {
                    rustix::thread::set_thread_res_uid(None, nobody, None).unwrap();
                }
                union.syncfs().unwrap();
            };
            threads.spawn(sync).join().unwrap();
        });
    }
}
