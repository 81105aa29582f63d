//! New objects: what owner, mode, labels and ACLs they get, and building them in the work
//! directory.

use rustix::fs::XattrFlags;

use crate::layer::WritableDir;
use crate::layer::dir::{Name, Source};
use crate::layer::object::WritableObject;
use crate::layer::stat::Kind;
use crate::layer::stat_override::StatOverride;
use crate::layer::xattr_name::XattrMapping;
use crate::union::error::{Context, Result};
use crate::union::file::acl::{ACCESS_ACL, Acl, DEFAULT_ACL};
use crate::union::file::privileges::{S_ISGID, SETID};
use crate::union::idmap::IdMaps;
use crate::union::node::inode::{DirState, Inheritance};
use crate::union::work::writable::Writable;
use crate::union::{Caller, New, Union};

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
