//! A rename that leaves a device 0/0 under the old name, at once (`RENAME_WHITEOUT` of
//! renameat2(2)).
//!
//! To the upper's disk such a device is a whiteout of ours, and a device of the merged view is a
//! file with an xattr (`create.rs`). So the directory is marked first, by an xattr of its own, to
//! say that a whiteout device under that name is one of the merged view; then the disk moves the
//! entry and leaves its device by one system call; then the file takes the device's place, and the
//! xattr goes.
//!
//! # Crash
//! Killed before the rename, the xattr names an entry that is none of these devices, and says
//! nothing. Killed after it, the device is seen for what it is. The next writable mount finishes
//! either when it reads the directory.

use crate::union::merge::origin::announced;
use std::sync::Weak;

use rustix::fs::{RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::{Name, Source};
use crate::layer::marks::{USER_PREFIX, WHITEOUT_RENAME, own_xattrs};
use crate::layer::stat::Kind;
use crate::union::error::{Context, Result};
use crate::union::namespace::rename::steps::End;
use crate::union::node::inode::DirState;
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;
use crate::union::{Caller, New, Union};

const DEVICE: New<'static> = New::Node {
    kind: Kind::Char,
    mode: 0,
    rdev: 0,
};

impl Union {
    /// Whether the upper can do this in one step.
    pub(super) fn supports_device_whiteout(&self, writable: &Writable) -> bool {
        writable.abilities.whiteout_devices
            && writable.abilities.rename_whiteout
            && writable.abilities.own_xattrs.is_some()
            && !self.rules.no_xattrs
    }

    /// Builds the device, and announces it. Returns its name in the stage.
    pub(super) fn prepare_device_whiteout(
        &self,
        writable: &Writable,
        from: &End<'_>,
        state: &mut DirState,
        caller: &Caller<'_>,
    ) -> Result<Name> {
        self.mark_impure(writable, &from.dir, state)?;
        let device = self.build_device(writable, &from.dir, state, caller)?;
        let announced = self.announce(writable, &from.dir, &from.name);
        if announced.is_err() {
            writable.stage.discard(&device);
        }
        announced.map(|()| device)
    }

    fn build_device(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        state: &mut DirState,
        caller: &Caller<'_>,
    ) -> Result<Name> {
        let inheritance = self.inheritance(dir, state)?;
        let looks = self.looks(&self.rules.ids, &DEVICE, caller, &inheritance);
        self.build(writable, &DEVICE, &looks, &inheritance, caller, false)
    }

    fn announce(&self, writable: &Writable, dir: &WritableDir, name: &[u8]) -> Result<()> {
        let prefix = writable.abilities.own_xattrs.unwrap_or(USER_PREFIX);
        let xattr = format!("{prefix}{WHITEOUT_RENAME}");
        let this = dir.this().context("open directory", b".")?;
        dir.despite_mode(|| this.set_xattr(xattr.as_bytes(), name, XattrFlags::empty()))
            .context("setxattr", xattr.as_bytes())
    }

    /// Puts the file that is the device in the place of the one that the rename left. When that
    /// fails, the next mount does it.
    pub(super) fn finish_device_whiteout(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        name: &Name,
        device: &Name,
    ) {
        let stage = writable.stage.dir();
        match stage.rename(device, dir, name, RenameFlags::empty()) {
            Ok(()) => self.end_device_whiteout(dir),
            Err(errno) => {
                log::error!("rename device to {}: {errno}", name.escape_ascii());
                writable.stage.discard(device);
            }
        }
    }

    /// Takes the announcement back.
    pub(super) fn end_device_whiteout(&self, dir: &WritableDir) {
        for xattr in own_xattrs(WHITEOUT_RENAME) {
            let this = dir.this();
            let removed =
                this.and_then(|this| dir.despite_mode(|| this.remove_xattr(xattr.as_bytes())));
            match removed {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => log::warn!("removexattr {xattr}: {errno}"),
            }
        }
    }

    /// Finishes what a killed mount left of this in a directory that is being read.
    pub(in crate::union) fn settle_device_whiteout(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        state: &mut DirState,
    ) -> Result<()> {
        if let Some(name) = announced(dir)? {
            let there = dir.stat_on_disk(&name);
            if there.is_ok_and(|stat| stat.is_whiteout_device()) {
                let caller = Caller {
                    uid: self.rules.ids.seen_uid(self.rules.daemon.0),
                    gid: self.rules.ids.seen_gid(self.rules.daemon.1),
                    ..Caller::default()
                };
                let device = self.build_device(writable, dir, state, &caller)?;
                self.finish_device_whiteout(writable, dir, &name, &device);
                return Ok(());
            }
        }
        self.end_device_whiteout(dir);
        Ok(())
    }

    /// Notes in a listing that a device was left under a name.
    pub(super) fn show_device(
        &self,
        state: &mut DirState,
        dir: &WritableDir,
        name: &Name,
    ) -> Result<()> {
        let stat = dir.stat_on_disk(name).context("stat", name)?;
        let st_ino = self.nodes.numbers.of(Source::Upper, stat.dev, stat.ino);
        if let Some(listing) = &mut state.listing {
            listing.update(name, |slot| {
                slot.merged.upper = Some(Found {
                    kind: Kind::Char,
                    ino: stat.ino,
                });
                slot.st_ino = st_ino;
                slot.child = Weak::new();
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::tests::testing::{Stack, content, file, find, mkdir};
    use crate::union::{NodeId, RenameMode, config};

    const ROOT: NodeId = NodeId::ROOT;

    fn is_device(union: &Union, path: &str) -> bool {
        let attr = find(union, path).attr;
        let mut listed = None;
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if above.is_empty() {
            ROOT
        } else {
            find(union, above).node
        };
        union
            .readdir(dir, 0, |entry| {
                if &*entry.name == name.as_bytes() {
                    listed = Some((entry.kind, entry.ino));
                }
                true
            })
            .unwrap();
        assert_eq!(listed, Some((attr.kind(), attr.ino)));
        (attr.kind(), attr.rdev) == (Kind::Char, 0)
    }

    #[test]
    fn the_old_name_is_a_device_live_and_after_a_remount() {
        for whiteout in [config::WhiteoutForm::Wh, config::WhiteoutForm::Char] {
            let stack = Stack::new();
            for path in ["old/f", "old/d/x", "old/over", "old/dir/y"] {
                stack.file(path, path);
            }
            let config = crate::union::Config {
                whiteout,
                ..stack.config()
            };
            let union = Union::open(&config).unwrap();
            let leave = |from: &str, to: &str| {
                let caller = Caller {
                    uid: 5,
                    gid: 6,
                    ..Caller::default()
                };
                let (from, to) = ((ROOT, from.as_bytes()), (ROOT, to.as_bytes()));
                union
                    .rename_with_whiteout_device(
                        from.0,
                        from.1,
                        to.0,
                        to.1,
                        RenameMode::Replace,
                        &caller,
                    )
                    .unwrap();
            };
            union
                .make(ROOT, b"new", &file(0o600), &Caller::default())
                .unwrap();
            mkdir(&union, "pure", 0o700);
            leave("f", "f2");
            leave("new", "over");
            leave("d", "d2");
            union.unlink(ROOT, b"f").unwrap();
            leave("pure", "f");
            let check = |union: &Union| {
                for path in ["new", "d", "pure"] {
                    assert!(is_device(union, path), "{path}");
                }
                assert_eq!(content(union, find(union, "f2").node), "old/f");
                assert_eq!(content(union, find(union, "d2/x").node), "old/d/x");
                assert_eq!(find(union, "f").attr.kind(), Kind::Dir);
            };
            check(&union);
            assert_eq!(find(&union, "new").attr.uid, 5);
            assert_eq!(
                announced(union.layers.upper.as_ref().unwrap()).unwrap(),
                None
            );
            assert_eq!(stack.staged(), 0);
            drop(union);
            let union = Union::open(&config).unwrap();
            check(&union);
            // It goes, and nothing comes back, like anything else.
            for path in ["new", "d", "pure"] {
                union.unlink(ROOT, path.as_bytes()).unwrap();
                assert!(union.lookup(ROOT, path.as_bytes()).unwrap().is_none());
            }
        }
    }

    #[test]
    fn what_a_killed_mount_left_is_finished() {
        let stack = Stack::new();
        stack.file("old/done", "x");
        stack.file("old/not", "x");
        stack.file("upper/not", "still");
        let union = stack.open();
        let dir = union.layers.upper.clone().unwrap();
        let writable = union.writable().unwrap();
        if !union.supports_device_whiteout(writable) {
            return;
        }
        let root = std::sync::Arc::clone(&union.nodes.root);
        union
            .mark_impure(writable, &dir, &mut root.lock_dir().unwrap())
            .unwrap();
        // Killed behind the rename: the disk's device stands there.
        dir.mknod(b"done", Kind::Char, 0, 0).unwrap();
        union.announce(writable, &dir, b"done").unwrap();
        drop(union);
        let seen = crate::union::Config {
            read_only: true,
            ..stack.config()
        };
        assert!(is_device(&Union::open(&seen).unwrap(), "done"));
        let union = stack.open();
        assert!(is_device(&union, "done"));
        assert!(stack.at("upper/done").metadata().unwrap().is_file());
        assert_eq!(announced(&dir).unwrap(), None);
        // Killed before it: the announcement goes, so that a whiteout of that name can be one.
        union
            .announce(union.writable().unwrap(), &dir, b"not")
            .unwrap();
        drop(union);
        let union = stack.open();
        assert_eq!(content(&union, find(&union, "not").node), "still");
        assert_eq!(announced(&dir).unwrap(), None);
        assert_eq!(stack.staged(), 0);
    }
}
