//! New entries: files, directories, symlinks, nodes.
//!
//! # Crash
//! An entry appears by one system call, complete with owner and mode: made in place when the
//! daemon's own identity gives it those, else built in the work directory and renamed. Killed
//! before, there is nothing; killed after, but before the whiteout of an earlier entry is removed,
//! the whiteout hides nothing (see [`crate::union::copyup::whiteout`]).

use crate::union::{Caller, New};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::{Name, Source};
use crate::layer::marks::Mark;
use crate::layer::stat::{Kind, Stat};
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::merge::lookup::Child;
use crate::union::node::inode::{DirState, Inode, Real};
use crate::union::node::listing::Listing;
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;

impl Union {
    /// As [`Union::make`] in a directory of the merged tree, without counting a lookup.
    pub(in crate::union) fn make_in_layers(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        new: &New<'_>,
        caller: &Caller<'_>,
    ) -> Result<Child> {
        let writable = self.writable()?;
        self.check_new_name(name)?;
        let dir = self.copy_up_dir(parent)?;
        let Some(mut state) = parent.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let making = Making {
            union: self,
            writable,
            parent,
            dir: &dir,
            name,
            new,
            caller,
        };
        making.make(&mut state)
    }

    /// The mark under a name that is to be made, and whether lower content hides there. EEXIST when
    /// the name is visible, ENOENT when the directory was removed.
    pub(super) fn free_name(
        &self,
        state: &mut DirState,
        name: &[u8],
    ) -> Result<(Option<Mark>, bool)> {
        if state.removed.is_some() {
            return fail(Errno::NOENT);
        }
        self.load_name(state, name)?;
        match state.listing.as_ref().and_then(|listing| listing.get(name)) {
            None => Ok((None, false)),
            Some(slot) if slot.is_visible() => fail(Errno::EXIST),
            Some(slot) => Ok((slot.merged.mark, slot.covers_lower())),
        }
    }

    fn new_upper_inode(
        &self,
        parent: &Arc<Inode>,
        dir: &WritableDir,
        name: &Name,
        stat: &Stat,
        kind: Kind,
    ) -> Arc<Inode> {
        let place = crate::union::node::inode::Place {
            parent: Arc::clone(parent),
            name: Arc::clone(name),
        };
        let node = if kind == Kind::Dir {
            self.new_dir_node(Some(place), Some(dir.child(name)), Vec::new())
        } else {
            self.new_file_node(Real::Upper {
                dir: dir.clone(),
                name: Arc::clone(name),
            })
        };
        let st_ino = self.nodes.numbers.of(Source::Upper, stat.dev, stat.ino);
        let inode = self.new_inode(None, st_ino, kind, node);
        if let Some(mut state) = inode.lock_dir() {
            // Known to be empty: it need not be read.
            state.listing = Some(Listing::default());
        }
        if let Some(mut state) = inode.lock_file() {
            state.add_link(parent, name, Some(dir.clone()));
        }
        inode
    }

    /// Whether an inode is known to the transport; only then can a process hold it open.
    pub(in crate::union) fn is_known(inode: &Inode) -> bool {
        inode.lookups.load(Ordering::Relaxed) > 0
    }
}

/// A new entry of a directory of the merged tree, which is copied up and locked.
struct Making<'a> {
    union: &'a Union,
    writable: &'a Writable,
    parent: &'a Arc<Inode>,
    dir: &'a WritableDir,
    name: &'a [u8],
    new: &'a New<'a>,
    caller: &'a Caller<'a>,
}

impl Making<'_> {
    fn make(&self, state: &mut DirState) -> Result<Child> {
        let (dir, name, new) = (self.dir, self.name, self.new);
        let (mark, covers) = self.union.free_name(state, name)?;
        let inheritance = self.union.inheritance(dir, state)?;
        let rules = &self.union.rules;
        let looks = self.union.looks(&rules.ids, new, self.caller, &inheritance);
        let recorded = dir.records().is_some();
        if new.is_whiteout_device() && !recorded {
            self.union.mark_impure(self.writable, dir, state)?;
        }
        let opaque = new.kind() == Kind::Dir && covers;
        let ours = looks.uid == rules.daemon.0
            && (inheritance.group.is_some() || looks.gid == rules.daemon.1)
            && self.caller.security.is_empty()
            && !recorded;
        if mark != Some(Mark::InPlace) && !opaque && ours && !new.is_whiteout_device() {
            new.make_in(dir, name, looks.mode).context("create", name)?;
        } else {
            let staged = self.union.build(
                self.writable,
                new,
                &looks,
                &inheritance,
                self.caller,
                opaque,
            )?;
            self.publish(&staged, mark)?;
        }
        if mark == Some(Mark::Beside) {
            self.writable.clear_beside(dir, name);
        }
        let stat = dir.stat_entry(name).context("stat", name)?;
        Ok(self.show(state, stat))
    }

    /// Moves what was built in the work directory to its name, in the place of a whiteout device
    /// that is there.
    fn publish(&self, staged: &Name, mark: Option<Mark>) -> Result<()> {
        let stage = self.writable.stage.dir();
        let (dir, name) = (self.dir, self.name);
        // A directory cannot replace the mark, which is a file: they change places.
        let swap = mark == Some(Mark::InPlace) && self.new.kind() == Kind::Dir;
        let moved = if swap {
            stage.rename(staged, dir, name, RenameFlags::EXCHANGE)
        } else if mark == Some(Mark::InPlace) {
            stage.rename(staged, dir, name, RenameFlags::empty())
        } else {
            stage.rename_to_free(staged, dir, name)
        };
        if moved.is_err() || swap {
            self.writable.stage.discard(staged);
        }
        moved.context("rename new entry to", name)
    }

    /// Puts the new entry into the listing.
    fn show(&self, state: &mut DirState, stat: Stat) -> Child {
        let (name, kind) = (Name::from(self.name), self.new.kind());
        let inode = self
            .union
            .new_upper_inode(self.parent, self.dir, &name, &stat, kind);
        if let Some(listing) = &mut state.listing {
            listing.update(&name, |slot| {
                slot.merged.upper = Some(Found {
                    kind,
                    ino: stat.ino,
                });
                slot.merged.mark = None;
                slot.merged.upper_redirect = None;
                slot.st_ino = inode.st_ino;
                slot.child = Arc::downgrade(&inode);
            });
        }
        let stat = Some(stat);
        Child { inode, stat }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::tests::testing::{Stack, errno, file};
    use crate::union::{Entry, NodeId};

    fn label(union: &Union, entry: &Entry) -> Vec<u8> {
        union.getxattr(entry.node, b"trusted.label").unwrap()
    }

    #[test]
    fn every_new_object_has_its_labels_when_it_appears() {
        let stack = Stack::new();
        stack.file("old/again", "old");
        let union = stack.open();
        union.unlink(NodeId::ROOT, b"again").unwrap();
        let caller = Caller {
            security: &[(b"trusted.label", b"first"), (b"trusted.other", b"second")],
            ..Caller::default()
        };
        let fifo = New::Node {
            kind: Kind::Fifo,
            mode: 0o600,
            rdev: 0,
        };
        let table: [(&[u8], New<'_>); 5] = [
            (b"file", file(0o4755)),
            (b"again", file(0o444)),
            (b"dir", New::Dir { mode: 0o755 }),
            (b"link", New::Symlink { target: b"x" }),
            (b"fifo", fifo),
        ];
        for (name, new) in table {
            let made = union.make(NodeId::ROOT, name, &new, &caller).unwrap();
            assert_eq!(label(&union, &made), b"first", "{}", name.escape_ascii());
        }
        let again = union.lookup(NodeId::ROOT, b"file").unwrap().unwrap();
        assert_eq!(again.attr.mode & 0o7777, 0o4755);
        assert_eq!(stack.staged(), 0);
    }

    #[test]
    fn an_object_that_cannot_be_labelled_does_not_appear() {
        let stack = Stack::new();
        let union = stack.open();
        // No disk has this namespace; no xattr may have such a long name.
        let too_long = [&b"trusted."[..], &[b'x'; 250]].concat();
        for (name, expected) in [
            (&b"nonsense.label"[..], Errno::OPNOTSUPP),
            (&too_long, Errno::RANGE),
        ] {
            let caller = Caller {
                security: &[(b"trusted.label", b"first"), (name, b"x")],
                ..Caller::default()
            };
            let made = union.make(NodeId::ROOT, b"f", &file(0o644), &caller);
            assert_eq!(errno(made), expected);
            assert!(union.lookup(NodeId::ROOT, b"f").unwrap().is_none());
            assert!(!stack.at("upper/f").exists());
            assert_eq!(stack.staged(), 0);
        }
    }
}
