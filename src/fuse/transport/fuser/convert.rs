//! Conversions between the union's values and fuser's. All are total: odd times, ids and errors are
//! data.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};

use crate::fuse::proto::reply::kernel_device;
use crate::layer::object::SetTime;
use crate::layer::stat::{Kind, Time};
use crate::union::{Attr, Error};

/// The errno of an error, for a reply.
pub(super) fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno().raw_os_error())
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
    }
}

/// Attributes for a reply. `ino` is what the kernel is to see as `st_ino`, and, in a reply that
/// names a node, as node id: fuser has one number for both.
pub(super) fn attr(attr: &Attr, ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind()),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: kernel_device(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::new(0, time.nanos.min(999_999_999));
    let whole = match u64::try_from(time.secs) {
        Ok(secs) => UNIX_EPOCH.checked_add(Duration::from_secs(secs)),
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(time.secs.unsigned_abs())),
    };
    whole
        .and_then(|whole| whole.checked_add(nanos))
        .unwrap_or(UNIX_EPOCH)
}

/// A time that the kernel asks to set, as fuser hands it over.
///
/// fuser 0.18 turns seconds `-s` and nanoseconds `n` into `EPOCH - (s + n)` instead of `EPOCH - s +
/// n`. What the kernel said can be told back exactly: whole seconds before the epoch, and the same
/// nanoseconds.
pub(super) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::At(from_fuser(time)),
    }
}

fn from_fuser(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                secs: i64::try_from(before.as_secs()).map_or(i64::MIN, |secs| -secs),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_reply() {
        for secs in [i64::MIN, -315_619_200, -1, 0, 1, 4_294_967_296, i64::MAX] {
            for nanos in [0, 1, 999_999_999, u32::MAX] {
                let shown = system_time(Time { secs, nanos });
                assert!(shown <= UNIX_EPOCH || secs >= 0);
            }
        }
        let half_before = system_time(Time {
            secs: -1,
            nanos: 500_000_000,
        });
        assert_eq!(half_before, UNIX_EPOCH - Duration::from_millis(500));
    }

    #[test]
    fn times_before_1970_survive_fuser() {
        let as_fuser_does = UNIX_EPOCH - Duration::new(2, 300);
        let want = Time {
            secs: -2,
            nanos: 300,
        };
        assert_eq!(from_fuser(as_fuser_does), want);
        let after = UNIX_EPOCH + Duration::new(2, 300);
        let want = Time {
            secs: 2,
            nanos: 300,
        };
        assert_eq!(from_fuser(after), want);
    }
}
