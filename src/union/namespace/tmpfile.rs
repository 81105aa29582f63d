//! Files without a name (`O_TMPFILE`, open(2)).
//!
//! # Crash
//! Such a file exists on the upper's disk as an open descriptor only, so nothing is left of it,
//! unless [`Union::link`] gave it a name before (see [`crate::union::namespace::link`]). The
//! directory that it was asked for in is copied up, which the merged view does not show.

use crate::union::node::inode::Inode;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::FdSlot;
use crate::layer::dir::Source;
use crate::layer::stat::Kind;
use crate::union::error::{Context, Result, fail};
use crate::union::file::acl::DEFAULT_ACL;
use crate::union::merge::lookup::Child;
use crate::union::namespace::new_object::NewMetadata;
use crate::union::node::inode::{Inheritance, Real};
use crate::union::work::writable::Writable;
use crate::union::{Caller, Entry, New, Union};

impl Union {
    /// [`Union::tmpfile`] in a directory of the merged tree.
    pub(in crate::union) fn tmpfile_in_layers(
        &self,
        parent: &Arc<Inode>,
        mode: u32,
        caller: &Caller<'_>,
    ) -> Result<Entry> {
        let writable = self.writable()?;
        let dir = self.copy_up_dir(parent)?;
        let (looks, inheritance) = {
            let Some(mut state) = parent.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            if state.removed.is_some() {
                return fail(Errno::NOENT);
            }
            Self::check_may_add(&mut state)?;
            let inheritance = self.inheritance(&dir, &mut state)?;
            let new = New::Node {
                kind: Kind::File,
                mode,
                rdev: 0,
            };
            (
                self.looks(&self.rules.ids, &new, caller, &inheritance),
                inheritance,
            )
        };
        let fd = self.create_unnamed(writable, &looks, &inheritance)?;
        let object = dir.wrap(Arc::clone(&fd));
        let keeping = Some(writable.keeping);
        self.apply_new_metadata(keeping, &object, Kind::File, &looks, &inheritance, caller)?;
        self.keep_atime(&fd);
        let stat = object.stat().context("fstat", b".")?;
        let node = self.new_file_node(Real::Orphan(object));
        let st_ino = self.nodes.numbers.of(Source::Upper, stat.dev, stat.ino);
        let inode = self.new_inode(None, st_ino, Kind::File, node);
        if let Some(file) = inode.file() {
            file.data.put(fd);
        }
        let stat = Some(stat);
        self.entry(&Child { inode, stat })
    }

    /// Makes the file in the work directory: below a directory with the default ACL where there is
    /// one, so that the disk's own file system works out what is inherited.
    fn create_unnamed(
        &self,
        writable: &Writable,
        looks: &NewMetadata,
        inheritance: &Inheritance,
    ) -> Result<Arc<OwnedFd>> {
        let stage = writable.stage.dir();
        // A slot makes room when too many descriptors are open.
        let open_in = |dir: &crate::layer::WritableDir| {
            let mode = dir.disk_mode(looks.mode);
            FdSlot::new(&self.layers.fds).get_or_open(|| dir.create_unnamed(mode))
        };
        let interpreted = inheritance
            .default_acl
            .as_ref()
            .filter(|_| stage.records().is_none());
        let Some(acl) = interpreted else {
            return open_in(stage).context("open O_TMPFILE", b".");
        };
        let nest = writable.stage.fresh_name();
        let made = (|| {
            stage.mkdir(&nest, 0o700)?;
            stage.set_xattr(&nest, DEFAULT_ACL, acl, XattrFlags::empty())?;
            open_in(&stage.child(&nest))
        })();
        writable.stage.discard(&nest);
        made.context("open O_TMPFILE", &nest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::union::NodeId;
    use crate::union::tests::testing::{Stack, content, errno, file, find, mkdir};
    use crate::union::{Config, SetAttr};

    const ROOT: NodeId = NodeId::ROOT;

    /// The node, or `None` on a disk without such files.
    fn unnamed(union: &Union, parent: NodeId, mode: u32) -> Option<Entry> {
        match union.tmpfile(parent, mode, &Caller::default()) {
            Err(error) if error.errno() == Errno::OPNOTSUPP => {
                eprintln!("skipped: no O_TMPFILE here");
                None
            }
            made => Some(made.unwrap()),
        }
    }

    fn attr(union: &Union, node: NodeId) -> (u64, u32, u64) {
        let attr = union.getattr(node).unwrap();
        (attr.ino, attr.nlink, attr.size)
    }

    #[test]
    fn it_is_a_file_without_a_name_until_it_gets_one() {
        let stack = Stack::new();
        stack.file("old/d/gone", "old");
        let union = stack.open();
        let d = find(&union, "d").node;
        union.unlink(d, b"gone").unwrap();
        let Some(made) = unnamed(&union, d, 0o640) else {
            return;
        };
        let (node, ino) = (made.node, made.attr.ino);
        assert_eq!((made.attr.nlink, made.attr.mode & 0o7777), (0, 0o640));
        assert_eq!(stack.staged(), 0);
        union.write(node, 0, b"hello").unwrap();
        let set = SetAttr {
            size: Some(4),
            mode: Some(0o600),
            ..SetAttr::default()
        };
        union.setattr(node, &set).unwrap();
        union
            .setxattr(node, b"trusted.a", b"x", XattrFlags::empty())
            .unwrap();
        assert_eq!(content(&union, node), "hell");
        assert_eq!(attr(&union, node), (ino, 0, 4));
        let mut listed = 0;
        let count = |_: &_| {
            listed += 1;
            true
        };
        union.readdir(d, 0, count).unwrap();
        // The two that every directory has.
        assert_eq!(listed, 2);
        // Over a whiteout, then in another directory.
        let named = union.link(node, d, b"gone").unwrap();
        assert_eq!((named.node, named.attr.nlink), (node, 1));
        union.link(node, ROOT, b"second").unwrap();
        assert_eq!(attr(&union, node), (ino, 2, 4));
        assert_eq!(errno(union.link(node, d, b"gone")), Errno::EXIST);
        assert!(!stack.at("upper/d/.wh.gone").exists());
        drop(union);
        let union = stack.open();
        for path in ["d/gone", "second"] {
            let found = find(&union, path);
            assert_eq!(attr(&union, found.node), (ino, 2, 4), "{path}");
            assert_eq!(content(&union, found.node), "hell");
            assert_eq!(union.getxattr(found.node, b"trusted.a").unwrap(), b"x");
        }
    }

    #[test]
    fn it_takes_owner_mode_and_acl_as_a_new_file_does() {
        let stack = Stack::new();
        let union = stack.open();
        let d = mkdir(&union, "d", 0o777);
        let e = mkdir(&union, "e", 0o777);
        let set = SetAttr {
            gid: Some(50),
            mode: Some(0o2777),
            ..SetAttr::default()
        };
        union.setattr(e, &set).unwrap();
        let acl: Vec<u8> = [
            &2u32.to_le_bytes()[..],
            &[1, 0, 7, 0, 255, 255, 255, 255],
            &[2, 0, 6, 0, 232, 3, 0, 0],
            &[4, 0, 5, 0, 255, 255, 255, 255],
            &[16, 0, 7, 0, 255, 255, 255, 255],
            &[32, 0, 1, 0, 255, 255, 255, 255],
        ]
        .concat();
        let inherits = union.setxattr(e, DEFAULT_ACL, &acl, XattrFlags::empty());
        inherits.unwrap();
        let caller = Caller {
            uid: 1000,
            gid: 1001,
            umask: 0o027,
            security: &[(b"trusted.label", b"x")],
        };
        for dir in [d, e] {
            for mode in [0o666, 0o4777, 0o6711, 0] {
                let Ok(unnamed) = union.tmpfile(dir, mode, &caller) else {
                    return;
                };
                let named = union.make(dir, b"f", &file(mode), &caller).unwrap();
                let seen = |entry: &Entry| {
                    let access = union.getxattr(entry.node, b"system.posix_acl_access");
                    let label = union.getxattr(entry.node, b"trusted.label").unwrap();
                    let attr = &entry.attr;
                    (attr.mode, attr.uid, attr.gid, access.ok(), label)
                };
                assert_eq!(seen(&unnamed), seen(&named), "{mode:o}");
                union.unlink(dir, b"f").unwrap();
            }
        }
        assert_eq!(stack.staged(), 0);
    }

    #[test]
    fn a_forgotten_one_is_gone_and_a_removed_file_gets_no_name() {
        let stack = Stack::new();
        stack.file("old/f", "old");
        let union = stack.open();
        let Some(made) = unnamed(&union, ROOT, 0o600) else {
            return;
        };
        union.forget(made.node, 1);
        assert_eq!(errno(union.link(made.node, ROOT, b"x")), Errno::STALE);
        let lower = find(&union, "f").node;
        let upper = union.make(ROOT, b"u", &file(0o600), &Caller::default());
        let upper = upper.unwrap().node;
        union.unlink(ROOT, b"f").unwrap();
        union.unlink(ROOT, b"u").unwrap();
        for removed in [lower, upper] {
            assert_eq!(errno(union.link(removed, ROOT, b"x")), Errno::NOENT);
        }
        // One that had a name and lost it is an ordinary removed file.
        let node = unnamed(&union, ROOT, 0o600).unwrap().node;
        union.link(node, ROOT, b"x").unwrap();
        union.unlink(ROOT, b"x").unwrap();
        assert_eq!(errno(union.link(node, ROOT, b"x")), Errno::NOENT);
        union.write(node, 0, b"still").unwrap();
        assert_eq!(content(&union, node), "still");
    }

    #[test]
    fn many_of_them_do_not_cost_many_descriptors_once_forgotten() {
        let stack = Stack::new();
        let union = stack.open();
        let before = union.descriptors().0;
        for _ in 0..100 {
            let Some(made) = unnamed(&union, ROOT, 0o600) else {
                return;
            };
            union.forget(made.node, 1);
        }
        assert_eq!(union.descriptors().0, before);
    }

    #[test]
    fn who_may_not_make_a_file_may_not_make_one_without_a_name() {
        let stack = Stack::new();
        stack.file("old/f", "old");
        let union = stack.open_read_only();
        let refused = union.tmpfile(ROOT, 0o600, &Caller::default());
        assert_eq!(errno(refused), Errno::ROFS);
        let union = stack.open();
        let of_file = union.tmpfile(find(&union, "f").node, 0o600, &Caller::default());
        assert_eq!(errno(of_file), Errno::NOTDIR);
        let gone = mkdir(&union, "gone", 0o755);
        union.rmdir(ROOT, b"gone").unwrap();
        let in_removed = union.tmpfile(gone, 0o600, &Caller::default());
        assert_eq!(errno(in_removed), Errno::NOENT);
        let caller = Caller {
            security: &[(b"nonsense.label", b"x")],
            ..Caller::default()
        };
        assert_eq!(errno(union.tmpfile(ROOT, 0o600, &caller)), Errno::OPNOTSUPP);
        assert_eq!(stack.staged(), 0);
    }

    #[test]
    fn its_number_is_the_disks_own_also_with_device_whiteouts() {
        let stack = Stack::new();
        stack.file("old/f", "old");
        let config = Config {
            whiteout: crate::union::config::WhiteoutForm::Char,
            ..stack.config()
        };
        let Ok(union) = Union::open(&config) else {
            return;
        };
        union.unlink(ROOT, b"f").unwrap();
        let Some(made) = unnamed(&union, ROOT, 0o600) else {
            return;
        };
        // The mark stands where the name is to be.
        union.link(made.node, ROOT, b"f").unwrap();
        let on_disk = std::fs::metadata(stack.at("upper/f")).unwrap();
        assert_eq!(union.nodes.numbers.of_upper(on_disk.ino()), made.attr.ino);
        assert_eq!(stack.staged(), 0);
        drop(union);
        assert_eq!(find(&stack.open(), "f").attr.ino, made.attr.ino);
    }
}
