//! Stat overrides: owner, mode and type of an object, kept in an xattr instead of on the disk.
//!
//! For layers on disks where owners cannot be given away nor devices be made (an ordinary user's
//! home on NFS): every object is a plain file or directory of the daemon's there, and an xattr says
//! what it is. containers/storage and fuse-overlayfs write and read the same (`force_mask`,
//! `xattr_permissions`).
//!
//! | xattr | who can write it |
//! | --- | --- |
//! | `user.containers.override_stat` | all users, on files and directories |
//! | `security.fuseoverlayfs.override` | privileged programs, on everything |
//! | `user.fuseoverlayfs.override_stat` | older fuse-overlayfs; read only |
//!
//! The value is `uid:gid:mode:type`, the mode in octal, the type `file`, `dir`, `symlink`, `pipe`,
//! `socket`, `block-MAJOR-MINOR` or `char-MAJOR-MINOR`; a value without a type says nothing about
//! that. A layer is read so when its root carries one of them: an object without one is then what
//! its disk says, like a symlink, which cannot have `user.` xattrs, and keeps its owner on the
//! disk.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::io::{Errno, Result};

use super::stat::{Kind, Stat};
use super::xattr::XattrPath;
use crate::sync::lock;

const USER: &[u8] = b"user.containers.override_stat";
const PRIVILEGED: &[u8] = b"security.fuseoverlayfs.override";
const OLD_USER: &[u8] = b"user.fuseoverlayfs.override_stat";

/// All xattrs that may keep a record.
pub(crate) const STAT_OVERRIDE_XATTRS: [&[u8]; 3] = [USER, PRIVILEGED, OLD_USER];

/// About so many odd values of a layer are logged.
const MOST_COMPLAINTS: usize = 100;

/// Which xattr keeps the records that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatOverrideForm {
    /// `security.fuseoverlayfs.override`: only privileged programs can change it on the disk.
    Privileged,
    /// `user.containers.override_stat`: an ordinary user can write it.
    User,
}

/// What an xattr says about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatOverride {
    /// Owner, as an id of the layer.
    pub uid: u32,
    /// Group, as an id of the layer.
    pub gid: u32,
    /// The twelve permission bits.
    pub perm: u32,
    /// The type; `None` where the value does not say.
    pub kind: Option<Kind>,
    /// The device number of a device node.
    pub rdev: u64,
}

impl StatOverride {
    /// What an object is now.
    #[must_use]
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            uid: stat.uid,
            gid: stat.gid,
            perm: stat.perm(),
            kind: Some(stat.kind()),
            rdev: stat.rdev,
        }
    }

    /// Reads a value; `None` for one that no program writes. What follows a known type's fields is
    /// ignored.
    #[must_use]
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
        let mut fields = text.split(':');
        let uid = id(fields.next()?)?;
        let gid = id(fields.next()?)?;
        let perm = u32::from_str_radix(digits(fields.next()?)?, 8).ok()? & 0o7777;
        let (kind, rdev) = match fields.next() {
            None | Some("") => (None, 0),
            Some(text) => {
                let (kind, rdev) = parse_type(text)?;
                (Some(kind), rdev)
            }
        };
        Some(Self {
            uid,
            gid,
            perm,
            kind,
            rdev,
        })
    }

    /// The value that [`StatOverride::parse`] reads.
    #[must_use]
    pub(crate) fn value(&self) -> Vec<u8> {
        let Self {
            uid,
            gid,
            perm,
            kind,
            rdev,
        } = *self;
        let device = |name| {
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            format!("{name}-{major}-{minor}")
        };
        let kind = match kind {
            Some(Kind::File) => "file".to_owned(),
            Some(Kind::Dir) => "dir".to_owned(),
            Some(Kind::Symlink) => "symlink".to_owned(),
            Some(Kind::Fifo) => "pipe".to_owned(),
            Some(Kind::Socket) => "socket".to_owned(),
            Some(Kind::Block) => device("block"),
            Some(Kind::Char) => device("char"),
            None => return format!("{uid}:{gid}:{perm:04o}").into_bytes(),
        };
        format!("{uid}:{gid}:{perm:04o}:{kind}").into_bytes()
    }

    /// Whether an object that is `on_disk` can be what this says: directories and symlinks are
    /// themselves, all else is a regular file there.
    fn fits(&self, on_disk: Kind) -> bool {
        match self.kind {
            None => true,
            Some(Kind::Dir | Kind::Symlink) => self.kind == Some(on_disk),
            Some(kind) => on_disk == Kind::File || on_disk == kind,
        }
    }
}

/// Digits only: parsing alone would take a sign.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn id(text: &str) -> Option<u32> {
    digits(text)?.parse().ok().filter(|id| *id != u32::MAX)
}

fn parse_type(text: &str) -> Option<(Kind, u64)> {
    Some(match text {
        "file" => (Kind::File, 0),
        "dir" => (Kind::Dir, 0),
        "symlink" => (Kind::Symlink, 0),
        "pipe" => (Kind::Fifo, 0),
        "socket" => (Kind::Socket, 0),
        _ => {
            let (kind, numbers) = match text.split_once('-')? {
                ("block", numbers) => (Kind::Block, numbers),
                ("char", numbers) => (Kind::Char, numbers),
                _ => return None,
            };
            let (major, minor) = numbers.split_once('-')?;
            let number = |text| digits(text)?.parse::<u32>().ok();
            (kind, rustix::fs::makedev(number(major)?, number(minor)?))
        }
    })
}

/// That a layer keeps records, and how.
#[derive(Debug)]
pub(crate) struct StatOverrides {
    form: StatOverrideForm,
    /// Records of older programs may be there as well.
    reads_old: bool,
    /// The mode of everything on the disk.
    disk_mode: u32,
    /// Inodes whose odd value was logged. Lock order: locked for a statement; no other lock is
    /// taken under it.
    logged: Mutex<HashSet<u64>>,
}

impl StatOverrides {
    /// Records of a form, in a layer whose root has the mode `root_perm` on the disk: that is what
    /// everything gets there, so that a store that is shared stays shared, and a private one
    /// private.
    #[must_use]
    pub(crate) fn new(form: StatOverrideForm, root_perm: u32) -> Arc<Self> {
        Self::made(form, root_perm, false)
    }

    fn made(form: StatOverrideForm, root_perm: u32, reads_old: bool) -> Arc<Self> {
        Arc::new(Self {
            form,
            reads_old,
            disk_mode: root_perm & 0o777 | 0o700,
            logged: Mutex::new(HashSet::new()),
        })
    }

    /// What the root of a layer says; `None` for an ordinary layer.
    #[must_use]
    pub(crate) fn of_root(root: &Arc<OwnedFd>) -> Option<Arc<Self>> {
        let xattrs = XattrPath::of_fd(Arc::clone(root));
        // One call for a layer without records, as most are.
        let names = xattrs.list().unwrap_or_default();
        let has = |name: &[u8]| names.split(|byte| *byte == 0).any(|listed| listed == name);
        let (form, old) = if has(USER) {
            (StatOverrideForm::User, has(OLD_USER))
        } else if has(PRIVILEGED) {
            (StatOverrideForm::Privileged, false)
        } else if has(OLD_USER) {
            (StatOverrideForm::User, true)
        } else {
            return None;
        };
        let perm = Stat::of_fd(root).map_or(0o700, |stat| stat.perm());
        Some(Self::made(form, perm, old))
    }

    /// Which xattr they are kept in.
    #[must_use]
    pub(crate) fn form(&self) -> StatOverrideForm {
        self.form
    }

    /// The mode of every file and directory on the disk.
    #[must_use]
    pub(crate) fn disk_mode(&self) -> u32 {
        self.disk_mode
    }

    /// The name of the xattr.
    #[must_use]
    pub(crate) fn xattr(&self) -> &'static [u8] {
        match self.form {
            StatOverrideForm::Privileged => PRIVILEGED,
            StatOverrideForm::User => USER,
        }
    }

    /// Whether an object that is `on_disk` can carry a record (xattr(7): `user.` ones exist on
    /// files and directories).
    #[must_use]
    pub(crate) fn can_be_on(&self, on_disk: Kind) -> bool {
        self.form == StatOverrideForm::Privileged || matches!(on_disk, Kind::File | Kind::Dir)
    }

    /// The record of an object; `None` where there is none, or one that cannot be true (which is
    /// logged once). Errors: those of getxattr(2), but for a disk without xattrs.
    pub(super) fn read(&self, on_disk: &Stat, xattrs: &XattrPath) -> Result<Option<StatOverride>> {
        if !self.can_be_on(on_disk.kind()) || on_disk.is_whiteout_device() {
            return Ok(None);
        }
        let value = match xattrs.get_opt(self.xattr()) {
            Ok(None) if self.reads_old => xattrs.get_opt(OLD_USER)?,
            // It may not be read: then the metadata of the disk counts.
            Err(Errno::ACCESS | Errno::PERM) => None,
            other => other?,
        };
        let Some(value) = value else { return Ok(None) };
        let record = StatOverride::parse(&value).filter(|record| record.fits(on_disk.kind()));
        if record.is_none() {
            self.complain(on_disk, &value);
        }
        Ok(record)
    }

    /// What an object is, by its record where it has one.
    pub(super) fn apply(&self, mut stat: Stat, xattrs: &XattrPath) -> Result<Stat> {
        if let Some(record) = self.read(&stat, xattrs)? {
            let kind = record.kind.unwrap_or_else(|| stat.kind());
            stat.mode = kind.mode_bits() | record.perm;
            stat.uid = record.uid;
            stat.gid = record.gid;
            stat.rdev = record.rdev;
        }
        Ok(stat)
    }

    fn complain(&self, stat: &Stat, value: &[u8]) {
        let mut logged = lock(&self.logged);
        if logged.len() < MOST_COMPLAINTS && logged.insert(stat.ino) {
            log::warn!(
                "inode {} of a layer has an odd {} \"{}\": owner, mode and type are those of the disk",
                stat.ino,
                String::from_utf8_lossy(self.xattr()),
                value.escape_ascii()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        type Case = (&'static str, Option<Kind>, u32, (u32, u32));
        let table: [Case; 9] = [
            ("0:42:0640:file", Some(Kind::File), 0o640, (0, 0)),
            ("0:42:1777:dir", Some(Kind::Dir), 0o1777, (0, 0)),
            ("0:42:0777:symlink", Some(Kind::Symlink), 0o777, (0, 0)),
            ("0:42:0600:pipe", Some(Kind::Fifo), 0o600, (0, 0)),
            ("0:42:0755:socket", Some(Kind::Socket), 0o755, (0, 0)),
            (
                "0:42:0660:block-259-1048575",
                Some(Kind::Block),
                0o660,
                (259, 1_048_575),
            ),
            ("0:42:0666:char-1-3", Some(Kind::Char), 0o666, (1, 3)),
            ("0:42:0000:char-0-0", Some(Kind::Char), 0, (0, 0)),
            ("0:42:4755", None, 0o4755, (0, 0)),
        ];
        for (text, kind, perm, (major, minor)) in table {
            let record = StatOverride::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (record.uid, record.gid, record.perm),
                (0, 42, perm),
                "{text}"
            );
            assert_eq!(record.kind, kind, "{text}");
            assert_eq!(record.rdev, rustix::fs::makedev(major, minor), "{text}");
            assert_eq!(record.value(), text.as_bytes());
        }
        // Others write other digits, type bits, or a NUL behind.
        for text in [
            "0:42:755:dir",
            "0:42:00755:dir",
            "0:42:040755:dir",
            "0:42:0755:dir\0",
            "0:42:0755:dir:more",
        ] {
            let record = StatOverride::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (record.perm, record.kind),
                (0o755, Some(Kind::Dir)),
                "{text}"
            );
        }
    }

    #[test]
    fn odd_values_say_nothing() {
        for text in [
            &b""[..],
            b"0",
            b"0:0",
            b"0:0:",
            b"::",
            b"-1:0:0755",
            b"0:0:0799",
            b"0:0:0755:fil",
            b"0:0:0755:char",
            b"0:0:0755:char-1",
            b"0:0:0755:char-1-x",
            b"0:0:0755:char-+1-3",
            b"4294967295:0:0755",
            b"0:0:0755:block-1-4294967296",
            b"\xff:0:0755:file",
            b" 0:0:0755:file",
        ] {
            assert_eq!(StatOverride::parse(text), None, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_record_does_not_make_a_directory_of_a_file() {
        let says = |text: &[u8], on_disk| StatOverride::parse(text).unwrap().fits(on_disk);
        for (text, on_disk, fits) in [
            (&b"0:0:0755:file"[..], Kind::File, true),
            (b"0:0:0755:char-1-3", Kind::File, true),
            (b"0:0:0755:char-1-3", Kind::Char, true),
            (b"0:0:0755", Kind::Fifo, true),
            (b"0:0:0755:file", Kind::Dir, false),
            (b"0:0:0755:dir", Kind::File, false),
            (b"0:0:0755:symlink", Kind::File, false),
            (b"0:0:0755:pipe", Kind::Dir, false),
        ] {
            assert_eq!(
                says(text, on_disk),
                fits,
                "{} on {on_disk:?}",
                text.escape_ascii()
            );
        }
    }
}
