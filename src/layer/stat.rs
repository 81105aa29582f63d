//! What a layer says about one object, as plain values.

use std::os::fd::AsFd;

use rustix::fs::{
    AtFlags, FileType, Stat as RawStat, Statx, StatxAttributes, StatxFlags, statat, statx,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// The type of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
    /// Character device.
    Char,
    /// Block device.
    Block,
}

impl Kind {
    /// From a directory entry or a mode; `None` when the file system does not say.
    #[must_use]
    pub fn from_file_type(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::Char,
            FileType::BlockDevice => Self::Block,
            FileType::Unknown => return None,
        })
    }

    /// From `st_mode`. A type that no stat(2) documents counts as a regular file.
    #[must_use]
    pub fn from_mode(mode: u32) -> Self {
        Self::from_file_type(FileType::from_raw_mode(mode)).unwrap_or(Self::File)
    }

    /// The type bits of `st_mode` (`S_IFMT`).
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        self.file_type().as_raw_mode()
    }

    /// The same as rustix names it.
    #[must_use]
    pub fn file_type(self) -> FileType {
        match self {
            Self::File => FileType::RegularFile,
            Self::Dir => FileType::Directory,
            Self::Symlink => FileType::Symlink,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
            Self::Char => FileType::CharacterDevice,
            Self::Block => FileType::BlockDevice,
        }
    }
}

/// A point in time: seconds since 1970 (negative before), and nanoseconds 0..1_000_000_000 after
/// that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds after them.
    pub nanos: u32,
}

/// When an object was made, if that is known. Inode numbers are given again once their object is
/// gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BirthTime(i64);

impl BirthTime {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);

    /// Whether two objects of one inode number may be one object.
    #[must_use]
    pub fn agrees(self, other: Self) -> bool {
        self == other || self == Self::UNKNOWN || other == Self::UNKNOWN
    }
}

/// What stat(2) says about an object in a layer. Owners are as stored on disk.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Device of the file system it is on.
    pub dev: u64,
    /// Inode number there.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Link count there.
    pub nlink: u64,
    /// Owner on disk.
    pub uid: u32,
    /// Group on disk.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// When it was made, where the disk knows that.
    pub btime: Option<Time>,
}

impl Stat {
    /// What the disk says about `name` in `dir`; a symlink is not followed. Errors: those of
    /// statx(2).
    pub fn of_entry(dir: impl AsFd, name: impl Arg + Copy) -> Result<Self> {
        ask(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What the disk says about the object behind a descriptor, which may be `O_PATH`. Errors:
    /// those of statx(2).
    pub fn of_fd(fd: impl AsFd) -> Result<Self> {
        ask(fd, "", AtFlags::EMPTY_PATH)
    }

    /// The type of the object.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }

    /// The twelve permission bits.
    #[must_use]
    pub fn perm(&self) -> u32 {
        self.mode & 0o7777
    }

    /// When it was made, to distinguish it from a later object with its inode number.
    #[must_use]
    pub fn birth(&self) -> BirthTime {
        BirthTime(self.btime.map_or(0, |time| {
            time.secs
                .wrapping_mul(1_000_000_000)
                .wrapping_add(time.nanos.into())
        }))
    }

    /// Whether this is kernel overlayfs's whiteout, a character device 0/0.
    #[must_use]
    pub fn is_whiteout_device(&self) -> bool {
        self.kind() == Kind::Char && self.rdev == 0
    }
}

/// Identifies an object of a disk: its inode number, and when it was made.
#[derive(Clone, Copy, Debug)]
pub struct ObjectId {
    /// The inode number.
    pub ino: u64,
    /// When it was made; unknown where what the disk says of that does not count.
    pub birth: BirthTime,
}

impl ObjectId {
    pub(super) fn is(self, stat: &Stat) -> bool {
        self.ino == stat.ino && self.birth.agrees(stat.birth())
    }
}

/// Flags of an object that forbid all changes until they are removed (ioctl_iflags(2), chattr(1)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Nothing of it changes; of a directory, no name in it.
    pub immutable: bool,
    /// It may grow only.
    pub append_only: bool,
}

impl Protection {
    /// What protects the object behind a descriptor, which may be `O_PATH`: as far as its disk says
    /// (statx(2), `stx_attributes`).
    #[must_use]
    pub fn of(fd: impl AsFd) -> Self {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        let Ok(found) = statx(fd, "", flags, StatxFlags::empty()) else {
            return Self::default();
        };
        let has = |attribute| found.stx_attributes.contains(attribute);
        Self {
            immutable: has(StatxAttributes::IMMUTABLE),
            append_only: has(StatxAttributes::APPEND),
        }
    }

    /// Whether names in a directory, and the name of the object itself, stay.
    #[must_use]
    pub fn binds(self) -> bool {
        self.immutable || self.append_only
    }
}

/// statx(2), which alone knows when an object was made. As stat(2) does, it leaves automounts
/// alone.
fn ask(dir: impl AsFd, name: impl Arg + Copy, flags: AtFlags) -> Result<Stat> {
    let flags = flags | AtFlags::NO_AUTOMOUNT;
    match statx(
        &dir,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    ) {
        // Kernels before 4.11, and containers that forbid it.
        Err(Errno::NOSYS) => Ok(statat(dir, name, flags)?.into()),
        other => other.map(Stat::from),
    }
}

fn nanos<T: TryInto<u32>>(value: T) -> u32 {
    value.try_into().unwrap_or(0).min(999_999_999)
}

impl From<RawStat> for Stat {
    fn from(raw: RawStat) -> Self {
        Self {
            dev: raw.st_dev,
            ino: raw.st_ino,
            mode: raw.st_mode,
            nlink: raw.st_nlink,
            uid: raw.st_uid,
            gid: raw.st_gid,
            rdev: raw.st_rdev,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            blksize: u32::try_from(raw.st_blksize).unwrap_or(4096),
            blocks: u64::try_from(raw.st_blocks).unwrap_or(0),
            atime: Time {
                secs: raw.st_atime,
                nanos: nanos(raw.st_atime_nsec),
            },
            mtime: Time {
                secs: raw.st_mtime,
                nanos: nanos(raw.st_mtime_nsec),
            },
            ctime: Time {
                secs: raw.st_ctime,
                nanos: nanos(raw.st_ctime_nsec),
            },
            btime: None,
        }
    }
}

impl From<Statx> for Stat {
    fn from(raw: Statx) -> Self {
        let time = |stamp: rustix::fs::StatxTimestamp| Time {
            secs: stamp.tv_sec,
            nanos: nanos(stamp.tv_nsec),
        };
        let knows_btime = raw.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self {
            dev: rustix::fs::makedev(raw.stx_dev_major, raw.stx_dev_minor),
            ino: raw.stx_ino,
            mode: raw.stx_mode.into(),
            nlink: raw.stx_nlink.into(),
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            rdev: rustix::fs::makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
            size: raw.stx_size,
            blksize: raw.stx_blksize,
            blocks: raw.stx_blocks,
            atime: time(raw.stx_atime),
            mtime: time(raw.stx_mtime),
            ctime: time(raw.stx_ctime),
            btime: knows_btime.then(|| time(raw.stx_btime)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_calls_say_the_same() {
        for path in ["/", "/dev/null", "/proc/self/exe", "/proc/self"] {
            let new = Stat::of_entry(rustix::fs::CWD, path).unwrap();
            let raw = statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            let old = Stat {
                // Reading a directory elsewhere may set it meanwhile.
                atime: new.atime,
                btime: new.btime,
                ..Stat::from(raw)
            };
            assert_eq!(format!("{new:?}"), format!("{old:?}"), "{path}");
        }
    }

    #[test]
    fn a_new_file_was_made_just_now() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let stat = Stat::of_fd(&file).unwrap();
        if let Some(btime) = stat.btime {
            assert_eq!(btime, stat.mtime);
        }
    }

    #[test]
    fn kinds_survive_the_way_through_a_mode() {
        for kind in [
            Kind::File,
            Kind::Dir,
            Kind::Symlink,
            Kind::Fifo,
            Kind::Socket,
            Kind::Char,
            Kind::Block,
        ] {
            assert_eq!(Kind::from_mode(kind.mode_bits() | 0o7777), kind);
        }
        assert_eq!(Kind::from_mode(0), Kind::File);
    }
}
