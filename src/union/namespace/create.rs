//! New entries: files, directories, symlinks, nodes.
//!
//! # Crash
//! An entry appears by one system call, complete with owner and mode: made in place when the
//! daemon's own identity gives it those, else built in the work directory and renamed. Killed
//! before, there is nothing; killed after, but before the whiteout of an earlier entry is removed,
//! the whiteout hides nothing (see [`crate::union::copyup::whiteout`]).

use crate::union::file::acl::{ACCESS_ACL, DEFAULT_ACL};
use crate::union::{Caller, New};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::{Name, Source};
use crate::layer::marks::Mark;
use crate::layer::object::WritableObject;
use crate::layer::stat::{Kind, Stat};
use crate::layer::stat_override::StatOverride;
use crate::layer::xattr_name::XattrMapping;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::file::acl::Acl;
use crate::union::file::privileges::{S_ISGID, SETID};
use crate::union::idmap::IdMaps;
use crate::union::merge::lookup::Child;
use crate::union::node::inode::{DirState, Inheritance, Inode, Real};
use crate::union::node::listing::Listing;
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;

/// Owner and mode that a new entry gets on disk.
pub(in crate::union) struct NewMetadata {
    pub(in crate::union) uid: u32,
    pub(in crate::union) gid: u32,
    pub(in crate::union) mode: u32,
    pub(super) rdev: u64,
}

impl New<'_> {
    pub(in crate::union) fn make_in(
        &self,
        dir: &WritableDir,
        name: &[u8],
        mode: u32,
    ) -> rustix::io::Result<()> {
        let recorded = dir.records().is_some();
        let mode = dir.disk_mode(mode);
        match self {
            // In a volume nothing is a whiteout.
            Self::Node { .. }
                if recorded || (self.is_whiteout_device() && dir.source() == Source::Upper) =>
            {
                dir.mknod(name, Kind::File, mode, 0)
            }
            Self::Node { kind, rdev, .. } => dir.mknod(name, *kind, mode, *rdev),
            Self::Dir { .. } => dir.mkdir(name, mode),
            Self::Symlink { target } => dir.symlink(target, name),
        }
    }
}

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
        self.make_locked(writable, parent, &mut state, &dir, name, new, caller)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the locked half of `make`, with all that it worked out"
    )]
    fn make_locked(
        &self,
        writable: &Writable,
        parent: &Arc<Inode>,
        state: &mut DirState,
        dir: &WritableDir,
        name: &[u8],
        new: &New<'_>,
        caller: &Caller<'_>,
    ) -> Result<Child> {
        let (mark, covers) = self.free_name(state, name)?;
        let inheritance = self.inheritance(dir, state)?;
        let looks = self.looks(&self.rules.ids, new, caller, &inheritance);
        let recorded = dir.records().is_some();
        if new.is_whiteout_device() && !recorded {
            self.mark_impure(writable, dir, state)?;
        }
        let opaque = new.kind() == Kind::Dir && covers;
        let ours = looks.uid == self.rules.daemon.0
            && (inheritance.group.is_some() || looks.gid == self.rules.daemon.1)
            && caller.security.is_empty()
            && !recorded;
        if mark != Some(Mark::InPlace) && !opaque && ours && !new.is_whiteout_device() {
            new.make_in(dir, name, looks.mode).context("create", name)?;
        } else {
            let staged = self.build(writable, new, &looks, &inheritance, caller, opaque)?;
            let stage = writable.stage.dir();
            // A directory cannot replace the mark, which is a file: they change places.
            let swap = mark == Some(Mark::InPlace) && new.kind() == Kind::Dir;
            let moved = if swap {
                stage.rename(&staged, dir, name, RenameFlags::EXCHANGE)
            } else if mark == Some(Mark::InPlace) {
                stage.rename(&staged, dir, name, RenameFlags::empty())
            } else {
                stage.rename_to_free(&staged, dir, name)
            };
            if moved.is_err() || swap {
                writable.stage.discard(&staged);
            }
            moved.context("rename new entry to", name)?;
        }
        if mark == Some(Mark::Beside) {
            writable.clear_beside(dir, name);
        }
        let stat = dir.stat_entry(name).context("stat", name)?;
        let name = Name::from(name);
        let inode = self.new_upper_inode(parent, dir, &name, &stat, new.kind());
        if let Some(listing) = &mut state.listing {
            listing.update(&name, |slot| {
                slot.merged.upper = Some(Found {
                    kind: new.kind(),
                    ino: stat.ino,
                });
                slot.merged.mark = None;
                slot.merged.upper_redirect = None;
                slot.st_ino = inode.st_ino;
                slot.child = Arc::downgrade(&inode);
            });
        }
        let stat = Some(stat);
        Ok(Child { inode, stat })
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

    pub(in crate::union) fn looks(
        &self,
        ids: &IdMaps,
        new: &New<'_>,
        caller: &Caller<'_>,
        inheritance: &Inheritance,
    ) -> NewMetadata {
        let umask = if inheritance.default_acl.is_some() {
            0
        } else {
            caller.umask
        };
        let mode = match new {
            New::Node { mode, .. } => mode & 0o7777 & !umask,
            New::Dir { mode } if inheritance.group.is_some() => (mode & 0o7777 & !umask) | S_ISGID,
            New::Dir { mode } => mode & 0o7777 & !umask,
            New::Symlink { .. } => 0o777,
        };
        NewMetadata {
            uid: ids.disk_uid(caller.uid),
            gid: inheritance
                .group
                .unwrap_or_else(|| ids.disk_gid(caller.gid)),
            mode,
            rdev: new.rdev(),
        }
    }

    /// What entries of a directory inherit (mkdir(2) on setgid directories, acl(5) on default
    /// ACLs).
    pub(in crate::union) fn inheritance(
        &self,
        dir: &WritableDir,
        state: &mut DirState,
    ) -> Result<Inheritance> {
        if let Some(known) = &state.inheritance {
            return Ok(known.clone());
        }
        let stat = dir.stat().context("stat", b".")?;
        let default_acl = if self.offers_acls() {
            let path = dir.xattrs().context("open directory", b".")?;
            if dir.source() != Source::Upper {
                // In a volume no other name stands for it.
                path.get_opt(DEFAULT_ACL).context("getxattr", DEFAULT_ACL)?
            } else {
                self.kept_xattr(&path, DEFAULT_ACL)?
            }
        } else {
            None
        };
        let known = Inheritance {
            group: (stat.mode & S_ISGID != 0).then_some(stat.gid),
            default_acl,
        };
        state.inheritance = Some(known.clone());
        Ok(known)
    }

    /// Builds a new entry in the stage and returns its name there.
    pub(super) fn build(
        &self,
        writable: &Writable,
        new: &New<'_>,
        looks: &NewMetadata,
        inheritance: &Inheritance,
        caller: &Caller<'_>,
        opaque: bool,
    ) -> Result<Name> {
        let stage = writable.stage.dir();
        let staged = writable.stage.fresh_name();
        let finish = || -> Result<()> {
            match &inheritance.default_acl {
                Some(acl) if stage.records().is_none() => {
                    self.build_with_acl(writable, new, &staged, looks.mode, acl)?
                }
                _ => new
                    .make_in(stage, &staged, looks.mode)
                    .context("create", &staged)?,
            }
            let object = stage.object(&staged).context("open", &staged)?;
            let keeping = Some(writable.keeping);
            self.apply_new_metadata(keeping, &object, new.kind(), looks, inheritance, caller)?;
            if opaque {
                writable.make_opaque(&stage.child(&staged))?;
            }
            if new.is_whiteout_device() && stage.records().is_none() {
                self.make_device(writable, &object)?;
            }
            Ok(())
        };
        match finish() {
            Ok(()) => Ok(staged),
            Err(error) => {
                writable.stage.discard(&staged);
                Err(error)
            }
        }
    }

    /// Sets on an object that was just made its owner, its labels, and the mode bits that its
    /// creation did not set.
    pub(in crate::union) fn apply_new_metadata(
        &self,
        keeping: Option<XattrMapping>,
        object: &WritableObject,
        kind: Kind,
        looks: &NewMetadata,
        inheritance: &Inheritance,
        caller: &Caller<'_>,
    ) -> Result<()> {
        if object.is_recorded() {
            let perm = match (&inheritance.default_acl, keeping) {
                (Some(acl), Some(keeping)) if kind != Kind::Symlink => {
                    inherit(keeping, object, kind, looks.mode, acl)?
                }
                _ => looks.mode,
            };
            let record = StatOverride {
                uid: looks.uid,
                gid: looks.gid,
                perm,
                kind: Some(kind),
                rdev: looks.rdev,
            };
            if object.record(&record).context("setxattr", b".")? {
                return self.label(keeping, object, caller.security);
            }
        }
        self.tolerate_owner(object.chown(Some(looks.uid), Some(looks.gid)))
            .context("chown", b".")?;
        // Behind chown(2), which takes security.capability away.
        self.label(keeping, object, caller.security)?;
        // chown(2) clears setuid and setgid, mkdir(2) does not take them.
        if looks.mode & SETID != 0 && kind != Kind::Symlink {
            let perm = object.stat().context("stat", b".")?.perm();
            let wanted = perm | (looks.mode & SETID);
            // A directory has the bit from its parent; in a volume others may set the mode of what
            // has a name.
            if wanted != perm {
                object.chmod(wanted).context("chmod", b".")?;
            }
        }
        Ok(())
    }

    /// Makes the entry in a directory with the default ACL, so that the disk's own file system
    /// works out what is inherited, and takes it out again.
    fn build_with_acl(
        &self,
        writable: &Writable,
        new: &New<'_>,
        staged: &Name,
        mode: u32,
        acl: &[u8],
    ) -> Result<()> {
        let stage = writable.stage.dir();
        let nest = writable.stage.fresh_name();
        let made = (|| {
            stage.mkdir(&nest, 0o700)?;
            stage.set_xattr(&nest, DEFAULT_ACL, acl, XattrFlags::empty())?;
            let inner = stage.child(&nest);
            new.make_in(&inner, staged, mode)?;
            inner.rename_to_free(staged, stage, staged)
        })();
        writable.stage.discard(&nest);
        made.context("create", staged)
    }

    /// Whether an inode is known to the transport; only then can a process hold it open.
    pub(in crate::union) fn is_known(inode: &Inode) -> bool {
        inode.lookups.load(Ordering::Relaxed) > 0
    }
}

/// Sets on a new object what it inherits from its directory's default ACL, where no disk does;
/// returns its mode.
fn inherit(
    keeping: XattrMapping,
    object: &WritableObject,
    kind: Kind,
    mode: u32,
    default_acl: &[u8],
) -> Result<u32> {
    let Some(acl) = Acl::parse(default_acl) else {
        return Ok(mode);
    };
    let set = |name, value: &[u8]| {
        object
            .set_xattr(&keeping.stored(name), value, XattrFlags::empty())
            .context("setxattr", name)
    };
    if kind == Kind::Dir {
        set(DEFAULT_ACL, default_acl)?;
    }
    let (access, mode) = acl.inherited(mode);
    if !access.is_mode() {
        set(ACCESS_ACL, &access.value())?;
    }
    Ok(mode)
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
