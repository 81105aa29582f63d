//! The metadata of a layer's entries on the disk: owners, modes and types, real or recorded, xattrs
//! and times.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::beneath::ImpliedDirs;
use crate::archive::error::{Context as _, Error, Result};
use crate::archive::marks::Marks;
use crate::archive::options::{Ownership, Whiteouts};
use crate::archive::tar::{EntryKind, TarEntry};
use crate::layer::object::{SetTime, WritableObject};
use crate::layer::stat::{Kind, Stat, Time};
use crate::layer::stat_override::{StatOverride, StatOverrideForm, StatOverrides};
use crate::layer::xattr::XattrPath;
use crate::layer::xattr_name::XattrMapping;

const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
/// So many different xattrs that cannot be set are logged.
const MOST_LOGGED: usize = 32;
/// The mode of directories without an entry of their own; they belong to root.
const IMPLIED_MODE: u32 = 0o755;
/// Directories without an entry of their own that are remembered.
const MOST_IMPLIED: usize = 65536;

/// How things are made.
pub(super) struct Policy {
    root: Arc<OwnedFd>,
    pub(super) ownership: Ownership,
    pub(super) marks: Marks,
    /// How owners and types are recorded, once something is.
    pub(super) records: Option<Arc<StatOverrides>>,
    keeping: XattrMapping,
    /// The owner of new entries, before they get their own.
    pub(super) own: (u32, u32),
    /// Directories that were made because something is in them.
    pub(super) implied: BTreeSet<Vec<u8>>,
    /// There are directories whose ACL is passed on to what is made in them.
    pub(super) passes_acls: bool,
    /// Xattrs that could not be set and were logged.
    left_out: BTreeSet<Vec<u8>>,
}

impl Policy {
    /// For what is made below a root. Errors: a disk that cannot record owners although it is to.
    pub(super) fn new(
        root: Arc<OwnedFd>,
        ownership: Ownership,
        whiteouts: Whiteouts,
    ) -> Result<Self> {
        let mut policy = Self::on_disk(root, ownership, whiteouts);
        policy.passes_acls = policy.root_passes_acls()?;
        if ownership == Ownership::Recorded {
            policy.begin_records()?;
            policy.keeping = XattrMapping::of(Some(StatOverrideForm::User), policy.own.0 == 0);
        }
        Ok(policy)
    }

    /// For a layer that was unpacked with the same ownership before: what its root is stays as it
    /// was said.
    pub(super) fn again(root: Arc<OwnedFd>, ownership: Ownership) -> Result<Self> {
        let mut policy = Self::on_disk(root, ownership, Whiteouts::default());
        if ownership == Ownership::Recorded {
            let perm = Stat::of_fd(&policy.root).context("stat", b".")?.perm();
            policy.records = Some(StatOverrides::new(StatOverrideForm::User, perm));
            policy.keeping = XattrMapping::of(Some(StatOverrideForm::User), policy.own.0 == 0);
        }
        Ok(policy)
    }

    fn on_disk(root: Arc<OwnedFd>, ownership: Ownership, whiteouts: Whiteouts) -> Self {
        Self {
            root,
            ownership,
            marks: Marks::new(whiteouts),
            records: None,
            keeping: XattrMapping::Disk,
            own: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
            implied: BTreeSet::new(),
            passes_acls: false,
            left_out: BTreeSet::new(),
        }
    }

    pub(super) fn disk_mode(&self) -> u32 {
        self.records
            .as_ref()
            .map_or(0o755, |records| records.disk_mode())
    }

    /// From here on owners and types may be kept in xattrs: the root says so.
    pub(super) fn begin_records(&mut self) -> Result<()> {
        if self.records.is_none() {
            let perm = Stat::of_fd(&self.root).context("stat", b".")?.perm();
            self.records = Some(StatOverrides::new(StatOverrideForm::User, perm));
            self.record_root()?;
        }
        Ok(())
    }

    pub(super) fn root_passes_acls(&self) -> Result<bool> {
        let xattrs = XattrPath::of_fd(Arc::clone(&self.root));
        let found = xattrs
            .get_opt(DEFAULT_ACL)
            .context("getxattr", DEFAULT_ACL)?;
        Ok(found.is_some())
    }

    pub(super) fn record_root(&self) -> Result<()> {
        let stat = Stat::of_fd(&self.root).context("stat", b".")?;
        let object = WritableObject::new(Arc::clone(&self.root), self.records.clone());
        let mut record = StatOverride::of(&stat);
        if self.ownership == Ownership::Recorded {
            // Of an archive that says nothing of its root, root would have unpacked it so.
            (record.uid, record.gid) = (0, 0);
        }
        match object.record(&record) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::io(
                "cannot record owners in xattrs (use a file system with user xattrs, or root): setxattr",
                errno,
            )),
        }
    }

    /// Applies its metadata to what was just made.
    pub(super) fn apply_metadata(
        &mut self,
        fd: Arc<OwnedFd>,
        entry: &TarEntry,
        kind: Kind,
        rdev: u64,
    ) -> Result<()> {
        let on_disk = Stat::of_fd(&fd).context("stat", b".")?;
        let recorded = self.ownership == Ownership::Recorded || on_disk.kind() != kind;
        let records = recorded.then(|| self.records.clone()).flatten();
        let object = WritableObject::new(fd, records);
        let record = StatOverride {
            uid: entry.uid,
            gid: entry.gid,
            perm: entry.mode,
            kind: Some(kind),
            rdev,
        };
        if !recorded && (on_disk.uid, on_disk.gid) != (entry.uid, entry.gid) {
            self.chown(&object, entry)?;
        }
        if recorded {
            object
                .record(&record)
                .context("setxattr", b"override_stat")?;
        }
        if self.passes_acls && kind != Kind::Symlink {
            disinherit(&object)?;
        }
        for (name, value) in &entry.xattrs {
            self.passes_acls |= name == DEFAULT_ACL;
            self.set_xattr(&object, name, value)?;
        }
        if kind != Kind::Symlink {
            let mode = if recorded {
                self.disk_mode()
            } else {
                entry.mode
            };
            object.chmod_on_disk(mode).context("chmod", b".")?;
        }
        if kind != Kind::Dir {
            object
                .utimens(SetTime::Keep, SetTime::At(entry.mtime))
                .context("utimensat", b".")?;
        }
        Ok(())
    }

    fn chown(&self, object: &WritableObject, entry: &TarEntry) -> Result<()> {
        object
            .chown(Some(entry.uid), Some(entry.gid))
            .map_err(|errno| match errno {
                Errno::INVAL => Error::refused(format!(
                    "owner {}:{} is not mapped in this user namespace",
                    entry.uid, entry.gid
                ))
                .with_hint("map more ids (/etc/subuid, /etc/subgid)"),
                errno => Error::io(format!("chown({}:{})", entry.uid, entry.gid), errno),
            })
    }

    /// Sets an xattr, under another name where the disk or our rights do not allow it as it is.
    fn set_xattr(&mut self, object: &WritableObject, name: &[u8], value: &[u8]) -> Result<()> {
        let stored = self.keeping.stored(name);
        let refusal = match object.set_xattr(&stored, value, XattrFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::ACCESS)) => errno,
            Err(errno) => return Err(errno).context("setxattr", name),
        };
        let kept = XattrMapping::User { trusted: false }.stored(name);
        let set = match kept == stored {
            true => Err(refusal),
            false => object.set_xattr(&kept, value, XattrFlags::empty()),
        };
        if set.is_err() && self.left_out.len() < MOST_LOGGED && self.left_out.insert(name.to_vec())
        {
            log::warn!(
                "xattr {} cannot be stored here, and is left out: {refusal}",
                name.escape_ascii()
            );
        }
        Ok(())
    }
}

/// Removes the ACLs that an object inherited from the directory it was made in.
fn disinherit(object: &WritableObject) -> Result<()> {
    for acl in [ACCESS_ACL, DEFAULT_ACL] {
        match object.remove_xattr(acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno).context("removexattr", acl),
        }
    }
    Ok(())
}

impl ImpliedDirs for Policy {
    fn made(&mut self, dir: &Arc<OwnedFd>, path: &[u8], hides: bool) -> Result<()> {
        if self.implied.len() >= MOST_IMPLIED {
            return Err(Error::refused(format!(
                "more than {MOST_IMPLIED} directories of the archive have no entry"
            )));
        }
        self.implied.insert(path.to_vec());
        let entry = TarEntry {
            path: Vec::new(),
            what: EntryKind::Dir,
            mode: IMPLIED_MODE,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        if hides {
            self.marks.opaque(dir)?;
        }
        self.apply_metadata(Arc::clone(dir), &entry, Kind::Dir, 0)
    }
}
