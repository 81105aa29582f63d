//! Changes that others make to directories of layers, by inotify(7).
//!
//! A watch reports names that come and go in one directory, and changes of what is in it, by any
//! process of this machine. So it is relied on for file systems that only this machine changes; on
//! a network disk, on another FUSE mount and on kernel overlayfs (whose layers others may change) a
//! directory has to be looked at again from time to time.
//!
//! Writing through a shared mapping is the one change that inotify reports late: when the file is
//! closed and unmapped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::{Errno, Result};

use super::xattr::proc_path;

/// The number of a watch. Two watches of one directory are one.
pub(crate) type WatchNo = i32;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// An entry's bytes changed.
    Content,
    /// Attributes or xattrs of an entry changed, or of the directory itself.
    Attributes,
    /// A name came or went, or means something else.
    Name,
    /// The directory was removed or moved.
    Itself,
    /// The watch is over: the directory is gone, or its disk was unmounted.
    Over,
    /// More happened than could be remembered, in any directory.
    Overflow,
}

/// Something that happened in a watched directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// The watch; -1 for [`What::Overflow`].
    pub watch: WatchNo,
    /// What happened.
    pub what: What,
    /// The entry that it happened to, unless that is the directory itself.
    pub name: Option<&'a [u8]>,
}

/// Watches directories.
#[derive(Debug)]
pub(crate) struct Watcher {
    fd: OwnedFd,
    watches: AtomicUsize,
    most: usize,
}

/// Bytes of events that are read at a time.
const BUFFER: usize = 16 * 1024;

/// Where the kernel says how many watches a user may have; the second is the limit of a user
/// namespace.
const LIMITS: [&str; 2] = [
    "/proc/sys/fs/inotify/max_user_watches",
    "/proc/sys/user/max_inotify_watches",
];

impl Watcher {
    /// Errors: EMFILE when the user has too many (`fs.inotify.max_user_instances`), ENFILE, ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let limits = LIMITS.iter().filter_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse::<usize>().ok()
        });
        Ok(Self {
            fd,
            watches: AtomicUsize::new(0),
            // The other half is for the user's other programs.
            most: limits.min().map_or(usize::MAX, |limit| limit / 2),
        })
    }

    /// Watches a directory. One that is watched already costs nothing more. Errors: ENOSPC when the
    /// user has no watches left, EACCES for one that may not be read, ENOTSUP where a watch would
    /// not report everything.
    pub(crate) fn watch(&self, dir: &OwnedFd) -> Result<WatchNo> {
        if !tells_all(dir) {
            return Err(Errno::NOTSUP);
        }
        if self.watches.load(Ordering::Relaxed) >= self.most {
            return Err(Errno::NOSPC);
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.fd, proc_path(dir), flags)
    }

    /// Counts a watch that is a new one.
    pub(crate) fn count(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends a watch that was counted.
    pub(crate) fn end(&self, watch: WatchNo) {
        self.watches.fetch_sub(1, Ordering::Relaxed);
        // EINVAL: its directory is gone, and the watch with it.
        if let Err(errno) = inotify::remove_watch(&self.fd, watch) {
            log::trace!("inotify_rm_watch: {errno}");
        }
    }

    /// Calls `each` with what has happened since the last call, without waiting. Errors: those of
    /// read(2).
    pub(crate) fn read(&self, mut each: impl FnMut(Event<'_>)) -> Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut events = inotify::Reader::new(&self.fd, buffer.spare_capacity_mut());
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            if let Some(what) = what(event.events()) {
                let name = event.file_name().map(std::ffi::CStr::to_bytes);
                let watch = event.wd();
                each(Event { watch, what, name });
            }
        }
    }
}

impl AsFd for Watcher {
    /// Readable while there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn what(flags: ReadFlags) -> Option<What> {
    let any = |of: ReadFlags| flags.intersects(of);
    if any(ReadFlags::QUEUE_OVERFLOW) {
        Some(What::Overflow)
    } else if any(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
        Some(What::Over)
    } else if any(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
        Some(What::Itself)
    } else if any(ReadFlags::CREATE
        | ReadFlags::DELETE
        | ReadFlags::MOVED_FROM
        | ReadFlags::MOVED_TO)
    {
        Some(What::Name)
    } else if any(ReadFlags::ATTRIB) {
        Some(What::Attributes)
    } else if any(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE) {
        Some(What::Content)
    } else {
        None
    }
}

/// Magic numbers (statfs(2)) of file systems that change by this machine's doing alone, or not at
/// all.
const OWN: &[u64] = &[
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // zfs
    0x3434,      // nilfs
    0x3153_464A, // jfs
    0x5265_4973, // reiserfs
    0x2405_1905, // ubifs
    0x0102_1994, // tmpfs
    0x8584_58F6, // ramfs
    0x7371_7368, // squashfs
    0xE0F5_E1E2, // erofs
    0x9660,      // isofs
    0x1501_3346, // udf
    0x4D44,      // vfat
    0x2011_BAB0, // exfat
    0x7366_746E, // ntfs3
];

/// Whether a watch of a directory reports every change of it.
#[must_use]
pub(crate) fn tells_all(dir: &OwnedFd) -> bool {
    rustix::fs::fstatfs(dir).is_ok_and(|disk| {
        u64::try_from(disk.f_type).is_ok_and(|kind| OWN.contains(&(kind & 0xFFFF_FFFF)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::fs::{Mode, OFlags, open};

    fn dir(path: &std::path::Path) -> OwnedFd {
        open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn heard(watcher: &Watcher) -> Vec<(What, String)> {
        let mut heard = Vec::new();
        watcher
            .read(|event| {
                let name = String::from_utf8_lossy(event.name.unwrap_or_default()).into_owned();
                if heard.last() != Some(&(event.what, name.clone())) {
                    heard.push((event.what, name));
                }
            })
            .unwrap();
        heard
    }

    #[test]
    fn every_change_is_told() {
        let base = tempfile::tempdir().unwrap();
        let at = base.path().join("d");
        std::fs::create_dir(&at).unwrap();
        let watcher = Watcher::new().unwrap();
        let fd = dir(&at);
        let watch = watcher.watch(&fd).unwrap();
        assert_eq!(watcher.watch(&fd), Ok(watch), "one directory, one watch");
        watcher.count();
        std::fs::write(at.join("f"), "text").unwrap();
        let f = || "f".to_owned();
        assert_eq!(
            heard(&watcher),
            [(What::Name, f()), (What::Content, f())],
            "made and written"
        );
        rustix::fs::chmod(at.join("f"), Mode::from_raw_mode(0o600)).unwrap();
        std::fs::rename(at.join("f"), at.join("g")).unwrap();
        std::fs::remove_file(at.join("g")).unwrap();
        assert_eq!(
            heard(&watcher),
            [
                (What::Attributes, f()),
                (What::Name, f()),
                (What::Name, "g".to_owned())
            ]
        );
        drop(fd);
        std::fs::remove_dir(&at).unwrap();
        let told = heard(&watcher);
        assert!(told.contains(&(What::Over, String::new())), "{told:?}");
        watcher.end(watch);
        assert_eq!(watcher.watches.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_others_change_unseen_is_not_watched() {
        let watcher = Watcher::new().unwrap();
        assert_eq!(
            watcher.watch(&dir("/proc".as_ref())),
            Err(Errno::NOTSUP),
            "no watch tells of processes"
        );
        let base = tempfile::tempdir().unwrap();
        let none = Watcher { most: 0, ..watcher };
        assert_eq!(none.watch(&dir(base.path())), Err(Errno::NOSPC));
    }
}
