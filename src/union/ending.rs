//! Syncs everything to the disks, and releases them when the mount has ended.

use crate::union::Union;

impl Union {
    /// Nothing of the lower layers is asked for any more: what is open there is closed, so that
    /// their disks can be unmounted. A request that is under way ends with an error.
    pub fn release_lowers(&self) {
        for lower in self.layers.lowers.iter().chain(&self.layers.data_only) {
            lower.release();
        }
        self.layers.fds.close_all();
    }

    /// Nothing is changed any more: another union may have the work directory.
    pub fn release_work_dir(&self) {
        if let Some(writable) = &self.writable {
            writable.stage.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use rustix::io::Errno;

    use crate::union::error::fail;
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
        union.release_lowers();
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
        union.release_work_dir();
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
        union.remember_failed_sync(&fail(Errno::MFILE));
        union.syncfs().unwrap();
        union.remember_failed_sync(&fail(Errno::IO));
        for _ in 0..2 {
            assert_eq!(errno(union.syncfs()), Errno::IO);
        }
    }

    /// The user who mounts may use a volume that he cannot read: it can be synced all the same, and
    /// so can the upper.
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
