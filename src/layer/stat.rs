//! What a layer says about one object, as plain values.

use rustix::fs::{FileType, Stat as RawStat};

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

/// A point in time: seconds since 1970 (negative before), and nanoseconds 0..1_000_000_000 after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// Nanoseconds after them.
    pub nanos: u32,
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
}

impl Stat {
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

    /// Whether this is kernel overlayfs's whiteout, a character device 0/0.
    #[must_use]
    pub fn is_whiteout_device(&self) -> bool {
        self.kind() == Kind::Char && self.rdev == 0
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
