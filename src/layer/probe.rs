//! Finds out what the upper's file system can do, by doing it in the work directory and reading it back.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::mark::{TRUSTED_PREFIX, USER_PREFIX};
use super::record::Record;
use super::stat::Kind;
use super::upper::UpperDir;

/// What the upper can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperAbilities {
    /// The prefix under which our own xattrs can be stored; `None` where xattrs cannot be.
    pub own_xattrs: Option<&'static str>,
    /// The namespace (`trusted.` or `user.`) of kernel overlayfs's xattrs that can be stored.
    pub overlay_xattrs: Option<&'static str>,
    /// 0/0 character devices, kernel overlayfs's whiteouts, can be made.
    pub whiteout_devices: bool,
    /// Plain `.wh.` files can be made.
    pub whiteout_files: bool,
}

/// Tries it all out in `dir`, which must be empty and on the upper's file system. Leaves nothing behind.
pub fn probe(dir: &UpperDir) -> rustix::io::Result<UpperAbilities> {
    const FILE: &[u8] = b"file";
    const WHITEOUT: &[u8] = b".wh.probe";
    const DEVICE: &[u8] = b"device";
    dir.mknod(FILE, Kind::File, 0o600, 0)?;
    // Another union's mount, for one, refuses such names.
    let whiteout_files = dir.mknod(WHITEOUT, Kind::File, 0o600, 0).is_ok()
        && dir
            .stat_entry(WHITEOUT)
            .is_ok_and(|stat| stat.kind() == Kind::File);
    let own = |prefix: &'static str| keeps_xattr(dir, FILE, prefix).then_some(prefix);
    let namespace = |ns: &'static str, prefix| keeps_xattr(dir, FILE, prefix).then_some(ns);
    let abilities = UpperAbilities {
        own_xattrs: own(TRUSTED_PREFIX).or_else(|| own(USER_PREFIX)),
        overlay_xattrs: namespace("trusted.", "trusted.overlay.")
            .or_else(|| namespace("user.", "user.overlay.")),
        whiteout_devices: dir.mknod(DEVICE, Kind::Char, 0, 0).is_ok()
            && dir
                .stat_entry(DEVICE)
                .is_ok_and(|stat| stat.is_whiteout_device()),
        whiteout_files,
    };
    for name in [FILE, WHITEOUT, DEVICE] {
        match dir.unlink(name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(abilities)
}

/// Tries out, as [`probe`] does, whether records of owners and modes can be kept on everything that can be made.
/// Errors: what the disk answers.
pub fn keeps_records(dir: &UpperDir) -> rustix::io::Result<bool> {
    const FILE: &[u8] = b"file";
    const DIR: &[u8] = b"dir";
    const LINK: &[u8] = b"link";
    let Some(records) = dir.records() else {
        return Ok(false);
    };
    let mode = records.disk_mode();
    dir.mknod(FILE, Kind::File, mode, 0)?;
    dir.mkdir(DIR, mode)?;
    dir.symlink(b"target", LINK)?;
    let keeps = |name: &[u8], kind| -> rustix::io::Result<bool> {
        let record = Record {
            uid: 12,
            gid: 345,
            perm: 0o1751,
            kind: Some(kind),
            rdev: 0,
        };
        let object = dir.object(name)?;
        Ok(!object.record(&record)? || Record::of(&object.stat()?) == record)
    };
    let kept = keeps(FILE, Kind::Socket)
        .and_then(|file| Ok(file && keeps(DIR, Kind::Dir)? && keeps(LINK, Kind::Symlink)?));
    dir.unlink(FILE)?;
    dir.rmdir(DIR)?;
    dir.unlink(LINK)?;
    kept
}

fn keeps_xattr(dir: &UpperDir, file: &[u8], prefix: &str) -> bool {
    let name = format!("{prefix}probe").into_bytes();
    dir.set_xattr(file, &name, b"y", XattrFlags::empty())
        .is_ok()
        && dir
            .xattrs_of(file)
            .and_then(|xattrs| xattrs.get(&name))
            .is_ok_and(|value| value == b"y")
}
