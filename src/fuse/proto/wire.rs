//! The structures as they lie in memory, and the bits in them. Field names are those of the
//! kernel's header.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the names are the field's own")]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(std::mem::size_of::<$name>() == $size);
    )* };
}

wire! {
    /// Begins every request. `len` is that of the whole request in bytes; `total_extlen` that of
    /// the extensions at its end, in units of 8 bytes. `uid` and `gid` are [`NO_ID`] where an
    /// idmapped mount leaves them out.
    InHeader, 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// Begins every reply. `error` is 0 or a negative errno.
    OutHeader, 16 { len: u32, error: i32, unique: u64 }

    ForgetIn, 8 { nlookup: u64 }
    ForgetOne, 16 { nodeid: u64, nlookup: u64 }
    BatchForgetIn, 8 { count: u32, dummy: u32 }
    GetattrIn, 16 { getattr_flags: u32, dummy: u32, fh: u64 }
    StatxIn, 24 { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    /// Times are seconds and nanoseconds; `valid` holds [`fattr`] bits.
    SetattrIn, 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: i64, mtime: i64, ctime: i64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    MknodIn, 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    MkdirIn, 8 { mode: u32, umask: u32 }
    RenameIn, 8 { newdir: u64 }
    Rename2In, 16 { newdir: u64, flags: u32, padding: u32 }
    LinkIn, 8 { oldnodeid: u64 }
    OpenIn, 8 { flags: u32, open_flags: u32 }
    CreateIn, 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    ReleaseIn, 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    FlushIn, 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// Also for READDIR and READDIRPLUS, where `offset` is a cookie.
    ReadIn, 40 { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteIn, 40 { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    FsyncIn, 16 { fh: u64, fsync_flags: u32, padding: u32 }
    /// The long form; the short one ends after `flags`.
    SetxattrIn, 16 { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    GetxattrIn, 8 { size: u32, padding: u32 }
    AccessIn, 8 { mask: u32, padding: u32 }
    InterruptIn, 8 { unique: u64 }
    IoctlIn, 32 { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    FallocateIn, 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekIn, 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    CopyFileRangeIn, 56 {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    SyncfsIn, 8 { padding: u64 }
    /// Begins each extension of a request: its size with this header, and its type, which up to
    /// [`MAX_NR_SECCTX`] is the number of security contexts in it.
    ExtHeader, 8 { size: u32, r#type: u32 }
    /// Begins a security context: the size of its value, which follows the name.
    Secctx, 8 { size: u32, padding: u32 }

    Attr, 88 {
        ino: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev: u32, blksize: u32, flags: u32,
    }
    /// `*_valid` are lifetimes in seconds, `*_valid_nsec` their fractions.
    EntryOut, 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    AttrOut, 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    SxTime, 16 { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    StatxOut, 288 {
        attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2],
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// `backing_id` counts with [`fopen::PASSTHROUGH`].
    OpenOut, 16 { fh: u64, open_flags: u32, backing_id: i32 }
    WriteOut, 8 { size: u32, padding: u32 }
    CopyFileRangeOut, 8 { bytes_copied: u64 }
    StatfsOut, 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    GetxattrOut, 8 { size: u32, padding: u32 }
    LseekOut, 8 { offset: u64 }
    IoctlOut, 16 { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// Followed by the name, padded to 8 bytes.
    Dirent, 24 { ino: u64, off: u64, namelen: u32, r#type: u32 }

    /// `off` < 0 means attributes only.
    NotifyInvalInodeOut, 24 { ino: u64, off: i64, len: i64 }
    NotifyInvalEntryOut, 16 { parent: u64, namelen: u32, flags: u32 }
    NotifyDeleteOut, 24 { parent: u64, child: u64, namelen: u32, padding: u32 }
    NotifyRetrieveOut, 32 { notify_unique: u64, nodeid: u64, offset: u64, size: u32, padding: u32 }
}

/// A user or group id that was left out (`FUSE_INVALID_UIDGID`).
pub const NO_ID: u32 = u32::MAX;
/// Types of extensions up to this are numbers of security contexts.
pub const MAX_NR_SECCTX: u32 = 31;
/// The extension that holds supplementary groups.
pub const EXT_GROUPS: u32 = 32;

/// Bits of [`SetattrIn::valid`].
pub mod fattr {
    #![allow(missing_docs, reason = "the names are the field's own")]
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// Bits of [`WriteIn::write_flags`].
pub mod write_flags {
    #![allow(missing_docs, reason = "the names are the field's own")]
    pub const CACHE: u32 = 1 << 0;
    pub const KILL_SUIDGID: u32 = 1 << 2;
}

/// Bits of [`OpenOut::open_flags`].
pub mod fopen {
    #![allow(missing_docs, reason = "the names are the field's own")]
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const NOFLUSH: u32 = 1 << 5;
    pub const PASSTHROUGH: u32 = 1 << 7;
}

/// Bit of [`FsyncIn::fsync_flags`]: the data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// Bit of [`SetxattrIn::setxattr_flags`]: setgid goes with this access ACL.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// Bit of [`NotifyInvalEntryOut::flags`]: the name is to be asked for again, but not thrown away.
pub const EXPIRE_ONLY: u32 = 1 << 0;
