//! What a copy has besides its data: owner, xattrs and ACLs, origin, mode, times.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::object::{SetTime, WritableObject};
use crate::layer::stat::{Kind, Stat};
use crate::layer::stat_override::StatOverride;
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::seen;
use crate::union::Union;
use crate::union::error::{Context, Result};
use crate::union::work::writable::Writable;

impl Union {
    /// Sets everything but the data of a copy: owner, xattrs and ACLs, origin, mode, times. Owner
    /// before mode, since chown(2) clears setuid; xattrs before mode, since ACLs change it, and
    /// since a daemon without root's rights needs its own write permission to set them. Returns the
    /// copy's inode number.
    pub(super) fn apply_metadata(
        &self,
        writable: &Writable,
        object: &WritableObject,
        stat: &Stat,
        xattrs: &XattrPath,
        origin: Option<u64>,
    ) -> Result<u64> {
        let kind = stat.kind();
        let made = Stat::of_fd(object.fd()).context("fstat", b".")?;
        let recorded = object
            .record(&StatOverride::of(stat))
            .context("setxattr", b".")?;
        if !recorded && (made.uid, made.gid) != (stat.uid, stat.gid) {
            self.tolerate_owner(object.chown(Some(stat.uid), Some(stat.gid)))
                .context("chown", b".")?;
        }
        if !self.rules.no_xattrs {
            copy_xattrs(writable, xattrs, object)?;
        }
        if let Some(origin) = origin {
            self.store_origin(writable, object, kind, (origin, made.ino))?;
        }
        if !recorded && kind != Kind::Symlink {
            object.chmod(stat.perm()).context("chmod", b".")?;
        }
        object
            .utimens(SetTime::At(stat.atime), SetTime::At(stat.mtime))
            .context("utimensat", b".")?;
        Ok(made.ino)
    }

    /// Without the right to give files away (a single user's mount) the owner stays the daemon's.
    pub(in crate::union) fn tolerate_owner(
        &self,
        result: rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        match result {
            Err(Errno::PERM | Errno::INVAL)
                if self.rules.daemon.0 != 0 || !crate::sys::may_chown() =>
            {
                log::debug!("owner not stored: no right to chown");
                Ok(())
            }
            other => other,
        }
    }
}

/// Copies every xattr that means something outside its layer. Where the upper cannot store one that
/// only concerns privileged programs, it is left out as cp(1) does.
fn copy_xattrs(writable: &Writable, from: &XattrPath, to: &WritableObject) -> Result<()> {
    let list = from.list().context("listxattr", b".")?;
    let mut shown: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| Some((name, seen(name)?)))
        .collect();
    // Of two that are seen by one name the kept one counts: it comes last.
    shown.sort_by_key(|(_, seen)| seen.kept);
    for (name, seen) in shown {
        let Some(value) = from.get_opt(name).context("getxattr", name)? else {
            continue;
        };
        let stored = writable.keeping.stored(&seen.name);
        match to.set_xattr(&stored, &value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) if !stored.starts_with(b"user.") => {
                log::debug!("xattr {} is not copied up", name.escape_ascii());
            }
            other => other.context("setxattr", name)?,
        }
    }
    Ok(())
}
