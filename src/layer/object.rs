//! An object that may be changed: metadata and xattrs, behind a descriptor.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod,
    fsetxattr, utimensat,
};
use rustix::io::{Errno, Result};

use super::dir::os;
use super::stat::{Stat, Time};
use super::stat_override::{StatOverride, StatOverrides};
use super::xattr::{XattrPath, proc_path};
use crate::sys::without_group::outside_of_group;

/// A time to set: leave it, now, or a given one (utimensat(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// As it is.
    Keep,
    /// The present.
    Now,
    /// This.
    At(Time),
}

impl SetTime {
    fn timespec(self) -> Timespec {
        let (tv_sec, tv_nsec) = match self {
            Self::Keep => (0, rustix::fs::UTIME_OMIT),
            Self::Now => (0, rustix::fs::UTIME_NOW),
            Self::At(time) => (time.secs, time.nanos.into()),
        };
        Timespec { tv_sec, tv_nsec }
    }
}

/// Both times in the form of utimensat(2).
pub(crate) fn timestamps(atime: SetTime, mtime: SetTime) -> Timestamps {
    Timestamps {
        last_access: atime.timespec(),
        last_modification: mtime.timespec(),
    }
}

/// Sets the permission bits behind a descriptor that may be `O_PATH`.
pub(super) fn chmod_fd(fd: &OwnedFd, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match fchmod(fd, mode) {
        Err(Errno::BADF) => chmod(os(&proc_path(fd)), mode),
        other => other,
    }
}

/// An object that may be changed, behind a descriptor: of any type, with or without a name.
#[derive(Clone, Debug)]
pub(crate) struct WritableObject {
    fd: Arc<OwnedFd>,
    records: Option<Arc<StatOverrides>>,
}

impl WritableObject {
    /// The object behind `fd`, with the stat overrides of its layer, `records`.
    #[must_use]
    pub(crate) fn new(fd: Arc<OwnedFd>, records: Option<Arc<StatOverrides>>) -> Self {
        Self { fd, records }
    }

    /// The descriptor.
    #[must_use]
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Its metadata, by its stat override where the layer has those.
    pub(crate) fn stat(&self) -> Result<Stat> {
        let stat = Stat::of_fd(&self.fd)?;
        match &self.records {
            Some(records) => records.apply(stat, &self.xattrs()),
            None => Ok(stat),
        }
    }

    /// Whether its layer has stat overrides.
    #[must_use]
    pub(crate) fn is_recorded(&self) -> bool {
        self.records.is_some()
    }

    /// The way to its xattrs.
    #[must_use]
    pub(crate) fn xattrs(&self) -> XattrPath {
        XattrPath::of_fd(Arc::clone(&self.fd))
    }

    /// Opens a regular file with `flags`.
    pub(crate) fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        let path = proc_path(&self.fd);
        rustix::fs::open(
            os(&path),
            flags | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        )
    }

    /// Writes the stat override of the object. Returns false where the layer has none, or none for
    /// such an object.
    pub(crate) fn record(&self, record: &StatOverride) -> Result<bool> {
        match &self.records {
            Some(records) if records.can_be_on(Stat::of_fd(&self.fd)?.kind()) => {
                self.set_xattr(records.xattr(), &record.value(), XattrFlags::empty())?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Changes the stat override of the object. Returns false as [`WritableObject::record`].
    fn change_record(&self, change: impl FnOnce(&mut StatOverride)) -> Result<bool> {
        if self.records.is_none() {
            return Ok(false);
        }
        let before = StatOverride::of(&self.stat()?);
        let mut record = before;
        change(&mut record);
        let recorded = self.record(&record)?;
        if recorded && record == before {
            // An xattr that is set to the value it has changes no ctime, chmod(2) and chown(2) do.
            // So does chown(2) of nothing, which every type and every owner allows.
            self.chown_on_disk(None, None)?;
        }
        Ok(recorded)
    }

    /// Sets owner and group, by its stat override where the layer has those; `None` leaves one as
    /// it is. Of a symlink, which may have no stat override, the disk's owner is set; where that is
    /// not permitted it stays, which is no error then.
    pub(crate) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let recorded = self.change_record(|record| {
            record.uid = uid.unwrap_or(record.uid);
            record.gid = gid.unwrap_or(record.gid);
        })?;
        if recorded {
            return Ok(());
        }
        match self.chown_on_disk(uid, gid) {
            Err(Errno::PERM | Errno::INVAL) if self.records.is_some() => Ok(()),
            other => other,
        }
    }

    /// Has the disk take `security.capability` away as it does when the owner is changed
    /// (`ATTR_KILL_PRIV` in the kernel's `chown_common`), and setuid with it: by chown(2) of
    /// nothing, for which no right is needed.
    pub(crate) fn drop_privileges(&self) -> Result<()> {
        self.chown_on_disk(None, None)
    }

    /// Has the disk take setuid and setgid away as it does when a process changes the content that
    /// is not in `group`, that of the object: under the lock of its inode, regardless of what
    /// others set meanwhile. Returns false, and did nothing, where this process cannot act as such
    /// a one.
    pub(crate) fn drop_privileges_outside(&self, group: u32) -> Result<bool> {
        let dropped = outside_of_group(group, || self.drop_privileges());
        dropped.map_or(Ok(false), |dropped| dropped.map(|()| true))
    }

    fn chown_on_disk(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        chownat(&self.fd, "", uid, gid, AtFlags::EMPTY_PATH)
    }

    /// Sets the permission bits, by its stat override where the layer has those; EOPNOTSUPP for a
    /// symlink.
    pub(crate) fn chmod(&self, mode: u32) -> Result<()> {
        if self.change_record(|record| record.perm = mode & 0o7777)? {
            return Ok(());
        }
        self.chmod_on_disk(mode)
    }

    /// Sets the permission bits on the disk, regardless of the stat override; EOPNOTSUPP for a
    /// symlink.
    pub(crate) fn chmod_on_disk(&self, mode: u32) -> Result<()> {
        chmod_fd(&self.fd, mode)
    }

    /// Sets the times.
    pub(crate) fn utimens(&self, atime: SetTime, mtime: SetTime) -> Result<()> {
        let times = timestamps(atime, mtime);
        match utimensat(&self.fd, "", &times, AtFlags::EMPTY_PATH) {
            // Kernels before 5.8 do not take AT_EMPTY_PATH here.
            Err(Errno::INVAL | Errno::NOENT) => {
                utimensat(CWD, os(&proc_path(&self.fd)), &times, AtFlags::empty())
            }
            other => other,
        }
    }

    /// Sets an xattr.
    pub(crate) fn set_xattr(&self, xattr: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        match fsetxattr(&self.fd, xattr, value, flags) {
            Err(Errno::BADF) => self.xattrs().set(xattr, value, flags),
            other => other,
        }
    }

    /// Removes an xattr. ENODATA when there is none.
    pub(crate) fn remove_xattr(&self, xattr: &[u8]) -> Result<()> {
        self.xattrs().remove(xattr)
    }
}
