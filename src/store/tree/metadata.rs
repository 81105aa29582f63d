//! What two entries have to have in common to be the same, whatever tree they are in.

use crate::layer::stat::{Kind, Stat, Time};
use crate::union::Attr;

/// The metadata by which two entries are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    /// 0 for directories, whose size is the disk's.
    size: u64,
    mtime: Time,
}

impl From<&Stat> for Metadata {
    fn from(stat: &Stat) -> Self {
        Self {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            rdev: stat.rdev,
            size: size(stat.kind(), stat.size),
            mtime: stat.mtime,
        }
    }
}

impl From<&Attr> for Metadata {
    fn from(attr: &Attr) -> Self {
        Self {
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            size: size(attr.kind(), attr.size),
            mtime: attr.mtime,
        }
    }
}

fn size(kind: Kind, size: u64) -> u64 {
    if kind == Kind::Dir { 0 } else { size }
}

impl Metadata {
    /// The first thing in which another entry differs, in words.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let differs = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
            Some(format!("{what} {other:?}, not {one:?}"))
        };
        if self.mode != other.mode {
            return Some(format!("mode {:o}, not {:o}", other.mode, self.mode));
        }
        if (self.uid, self.gid) != (other.uid, other.gid) {
            return differs("owner", &(self.uid, self.gid), &(other.uid, other.gid));
        }
        if self.size != other.size {
            return differs("size", &self.size, &other.size);
        }
        if self.rdev != other.rdev {
            return differs("device", &self.rdev, &other.rdev);
        }
        if self.mtime != other.mtime {
            return Some("another modification time".to_owned());
        }
        None
    }
}
