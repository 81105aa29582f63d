//! Finds out what the upper's file system can do, by doing it in the work directory and reading it
//! back.

use std::path::Path;

use rustix::fs::{RenameFlags, XattrFlags, fstatfs};
use rustix::io::{Errno, Result};

use super::marks::{TRUSTED_PREFIX, USER_PREFIX};
use super::stat::Kind;
use super::stat_override::StatOverride;
use super::writable::WritableDir;

/// What the upper can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FsFeatures {
    /// The prefix under which our own xattrs can be stored; `None` where xattrs cannot be.
    pub own_xattrs: Option<&'static str>,
    /// The namespace (`trusted.` or `user.`) of kernel overlayfs's xattrs that can be stored.
    pub overlay_xattrs: Option<&'static str>,
    /// 0/0 character devices, kernel overlayfs's whiteouts, can be made.
    pub whiteout_devices: bool,
    /// Plain `.wh.` files can be made.
    pub whiteout_files: bool,
    /// Two entries can change places (`RENAME_EXCHANGE` of renameat2(2)).
    pub exchange: bool,
    /// A rename can leave a 0/0 device behind (`RENAME_WHITEOUT`).
    pub rename_whiteout: bool,
    /// A file can have several names.
    pub hard_links: bool,
    /// After a power cut of two changes the second one is never there without the first, also when
    /// nothing was synced.
    pub ordered: bool,
}

/// The file systems whose changes of directories reach the disk in the order in which they were
/// made, by `statfs(2)`: those whose journal holds whole transactions of all of them, and those in
/// memory, of which nothing is left. On btrfs, f2fs and others an fsync of one file takes some
/// changes along and leaves earlier ones.
const ORDERED: [i64; 4] = [
    libc::EXT4_SUPER_MAGIC,
    libc::XFS_SUPER_MAGIC,
    libc::TMPFS_MAGIC,
    RAMFS_MAGIC,
];
/// `linux/magic.h`; libc does not have it.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

const FILE: &[u8] = b"file";
const OTHER: &[u8] = b"other";
const WHITEOUT: &[u8] = b".wh.probe";
const DEVICE: &[u8] = b"device";
const LINK: &[u8] = b"link";

/// Tries it all out in `dir`, which must be empty and on the upper's file system. Leaves nothing
/// behind. On a disk without room for that, what cannot be tried is assumed to be possible: an
/// upper that is full was written to before.
///
/// # Errors
/// What the disk answers.
pub(crate) fn probe(dir: &WritableDir) -> Result<FsFeatures> {
    let abilities = match try_out(dir) {
        Err(Errno::NOSPC | Errno::DQUOT) => {
            log::warn!(
                "the upper's disk is full: what it can store is not tried out, and only deleting is sure to work"
            );
            believe(dir)
        }
        other => other,
    };
    for name in [FILE, OTHER, WHITEOUT, DEVICE, LINK] {
        match dir.unlink(name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    abilities
}

/// Errors: ENOSPC and EDQUOT, which say nothing of what the disk can do, and why not even a file
/// can be made.
fn try_out(dir: &WritableDir) -> Result<FsFeatures> {
    dir.mknod(FILE, Kind::File, 0o600, 0)?;
    // Another union's mount, for one, refuses such names.
    let whiteout_files = possible(dir.mknod(WHITEOUT, Kind::File, 0o600, 0))?
        && dir
            .stat_entry(WHITEOUT)
            .is_ok_and(|stat| stat.kind() == Kind::File);
    let whiteout_devices = possible(dir.mknod(DEVICE, Kind::Char, 0, 0))?
        && dir
            .stat_entry(DEVICE)
            .is_ok_and(|stat| stat.is_whiteout_device());
    dir.mknod(OTHER, Kind::File, 0o600, 0)?;
    let renamed = |flags, to| possible(dir.rename(OTHER, dir, to, flags));
    let exchange = renamed(RenameFlags::EXCHANGE, FILE)?;
    let rename_whiteout = renamed(RenameFlags::WHITEOUT, LINK)?
        && dir
            .stat_entry(OTHER)
            .is_ok_and(|stat| stat.is_whiteout_device());
    if rename_whiteout {
        dir.unlink(LINK)?;
    }
    let hard_links = possible(dir.link(FILE, dir, LINK))?;
    Ok(FsFeatures {
        own_xattrs: first([TRUSTED_PREFIX, USER_PREFIX], |prefix| {
            keeps_xattr(dir, prefix)
        })?,
        overlay_xattrs: namespace(first([TRUSTED_OVERLAY, USER_OVERLAY], |prefix| {
            keeps_xattr(dir, prefix)
        })?),
        whiteout_devices,
        whiteout_files,
        exchange,
        rename_whiteout,
        hard_links,
        ordered: is_ordered(dir)?,
    })
}

/// What can be found out without room.
fn believe(dir: &WritableDir) -> Result<FsFeatures> {
    Ok(FsFeatures {
        own_xattrs: first([TRUSTED_PREFIX, USER_PREFIX], |prefix| {
            takes_xattr(dir, prefix)
        })?,
        overlay_xattrs: namespace(first([TRUSTED_OVERLAY, USER_OVERLAY], |prefix| {
            takes_xattr(dir, prefix)
        })?),
        whiteout_devices: true,
        whiteout_files: true,
        exchange: true,
        rename_whiteout: true,
        hard_links: true,
        ordered: is_ordered(dir)?,
    })
}

fn is_ordered(dir: &WritableDir) -> Result<bool> {
    let magic = fstatfs(dir.fd()?)?.f_type;
    let has_journal = || dir.device().map(has_journal);
    Ok(ORDERED.contains(&magic) && (magic != libc::EXT4_SUPER_MAGIC || has_journal()?))
}

/// Whether a disk of the ext family has a journal, which a task of the kernel writes: ext2, and
/// ext4 made without one, have the same magic number (`fs/ext4/sysfs.c`, `journal_task`). Where
/// that cannot be seen it is assumed.
fn has_journal(device: u64) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let writer = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
        .ok()
        .and_then(|disk| {
            let disk = Path::new("/sys/fs/ext4").join(disk.file_name()?);
            std::fs::read_to_string(disk.join("journal_task")).ok()
        });
    writer.is_none_or(|task| task.trim() != "<none>")
}

/// Whether the disk did it. Errors: it had no room.
fn possible(tried: Result<()>) -> Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(errno),
        Err(_) => Ok(false),
    }
}

const TRUSTED_OVERLAY: &str = "trusted.overlay.";
const USER_OVERLAY: &str = "user.overlay.";

/// The namespace that a prefix begins with.
fn namespace(prefix: Option<&'static str>) -> Option<&'static str> {
    prefix.map(|prefix| match prefix {
        TRUSTED_OVERLAY => "trusted.",
        _ => "user.",
    })
}

fn first(
    prefixes: [&'static str; 2],
    test: impl Fn(&str) -> Result<bool>,
) -> Result<Option<&'static str>> {
    for prefix in prefixes {
        if test(prefix)? {
            return Ok(Some(prefix));
        }
    }
    Ok(None)
}

/// Tries out, as [`probe`] does, whether records of owners and modes can be kept on everything that
/// can be made. Errors: what the disk answers.
pub(crate) fn keeps_stat_overrides(dir: &WritableDir) -> Result<bool> {
    const DIR: &[u8] = b"dir";
    let Some(records) = dir.records() else {
        return Ok(false);
    };
    let mode = records.disk_mode();
    dir.mknod(FILE, Kind::File, mode, 0)?;
    dir.mkdir(DIR, mode)?;
    dir.symlink(b"target", LINK)?;
    let keeps = |name: &[u8], kind| -> Result<bool> {
        let record = StatOverride {
            uid: 12,
            gid: 345,
            perm: 0o1751,
            kind: Some(kind),
            rdev: 0,
        };
        let object = dir.object(name)?;
        Ok(!object.record(&record)? || StatOverride::of(&object.stat()?) == record)
    };
    let kept = keeps(FILE, Kind::Socket)
        .and_then(|file| Ok(file && keeps(DIR, Kind::Dir)? && keeps(LINK, Kind::Symlink)?));
    dir.unlink(FILE)?;
    dir.rmdir(DIR)?;
    dir.unlink(LINK)?;
    kept
}

fn keeps_xattr(dir: &WritableDir, prefix: &str) -> Result<bool> {
    let name = format!("{prefix}probe").into_bytes();
    Ok(
        possible(dir.set_xattr(FILE, &name, b"y", XattrFlags::empty()))?
            && dir
                .xattrs_of(FILE)
                .and_then(|xattrs| xattrs.get(&name))
                .is_ok_and(|value| value == b"y"),
    )
}

/// Whether an xattr could be set: one that is to be replaced, and is not there, needs no room to be
/// refused (setxattr(2): ENODATA, after EPERM and EOPNOTSUPP).
fn takes_xattr(dir: &WritableDir, prefix: &str) -> Result<bool> {
    let name = format!("{prefix}probe").into_bytes();
    match dir.this()?.set_xattr(&name, b"y", XattrFlags::REPLACE) {
        Ok(()) | Err(Errno::NODATA) => Ok(true),
        Err(_) => Ok(false),
    }
}
