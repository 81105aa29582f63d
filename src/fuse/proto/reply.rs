//! From values to the bytes of a reply.

use std::time::Duration;

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::wire::{self, Attr, AttrOut, Dirent, EntryOut, StatxOut, SxTime};
use crate::layer::stat::{Kind, Time};
use crate::union::{self, DirEntry, Entry};

/// The place for a reply's body: behind the header, as long as the longest reply.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl<'a> Body<'a> {
    /// An empty body in `bytes`.
    #[must_use]
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was written.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Appends bytes. Errors: ERANGE when they do not fit.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let end = self.used.checked_add(bytes.len()).ok_or(Errno::RANGE)?;
        let place = self.bytes.get_mut(self.used..end).ok_or(Errno::RANGE)?;
        place.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }

    /// Appends a structure. Errors: ERANGE when it does not fit.
    pub(crate) fn put(&mut self, value: &(impl IntoBytes + Immutable)) -> Result<(), Errno> {
        self.bytes(value.as_bytes())
    }

    /// Lets `fill` write into the first `size` free bytes (or as many as there are), and keeps what
    /// it says it wrote.
    pub(crate) fn fill<E>(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let end = self.used.saturating_add(size).min(self.bytes.len());
        let written = fill(&mut self.bytes[self.used..end])?;
        self.used += written.min(end - self.used);
        Ok(())
    }

    /// Appends a directory entry, in front of it `entry` for READDIRPLUS, within `limit` bytes in
    /// all; `false` when there is no room for the whole of it.
    pub(crate) fn dirent(
        &mut self,
        limit: usize,
        plus: Option<&EntryOut>,
        entry: &DirEntry,
    ) -> bool {
        let name = &*entry.name;
        let padded = (size_of::<Dirent>() + name.len()).next_multiple_of(8);
        let size = padded + plus.map_or(0, |_| size_of::<EntryOut>());
        let end = self.used + size;
        if end > limit.min(self.bytes.len()) {
            return false;
        }
        let dirent = Dirent {
            ino: entry.ino,
            off: entry.cookie,
            namelen: u32::try_from(name.len()).unwrap_or(0),
            r#type: dirent_type(entry.kind),
        };
        let place = &mut self.bytes[self.used..end];
        let (before, place) = place.split_at_mut(size - padded);
        if let Some(plus) = plus {
            before.copy_from_slice(plus.as_bytes());
        }
        let (head, tail) = place.split_at_mut(size_of::<Dirent>());
        head.copy_from_slice(dirent.as_bytes());
        let (text, padding) = tail.split_at_mut(name.len());
        text.copy_from_slice(name);
        padding.fill(0);
        self.used = end;
        true
    }
}

/// The type of a directory entry: `DT_*` of readdir(3), which is the type in `st_mode` shifted.
#[must_use]
pub(crate) fn dirent_type(kind: Kind) -> u32 {
    kind.mode_bits() >> 12
}

/// Attributes of a node.
#[must_use]
pub(crate) fn attr(attr: &union::Attr) -> Attr {
    Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.secs,
        mtime: attr.mtime.secs,
        ctime: attr.ctime.secs,
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: kernel_device(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// The reply to GETATTR and SETATTR.
#[must_use]
pub(crate) fn attr_out(value: &union::Attr, lifetime: Duration) -> AttrOut {
    AttrOut {
        attr_valid: lifetime.as_secs(),
        attr_valid_nsec: lifetime.subsec_nanos(),
        dummy: 0,
        attr: attr(value),
    }
}

/// An entry that was found or made; the generation is the session's to say.
#[must_use]
pub(crate) fn entry_out(entry: &Entry, lifetime: Duration) -> EntryOut {
    EntryOut {
        nodeid: entry.node.0,
        generation: 0,
        entry_valid: lifetime.as_secs(),
        attr_valid: lifetime.as_secs(),
        entry_valid_nsec: lifetime.subsec_nanos(),
        attr_valid_nsec: lifetime.subsec_nanos(),
        attr: attr(&entry.attr),
    }
}

/// The kernel remembers for `lifetime` that there is nothing: node 0.
#[must_use]
pub(crate) fn no_entry(lifetime: Duration) -> EntryOut {
    EntryOut {
        entry_valid: lifetime.as_secs(),
        entry_valid_nsec: lifetime.subsec_nanos(),
        ..EntryOut::default()
    }
}

/// READDIRPLUS' words for `.`, `..` and what vanished meanwhile: number and type, no node.
#[must_use]
pub(crate) fn bare_entry(entry: &DirEntry) -> EntryOut {
    EntryOut {
        attr: Attr {
            ino: entry.ino,
            mode: entry.kind.mode_bits(),
            ..Attr::default()
        },
        ..EntryOut::default()
    }
}

const STATX_BASIC_STATS: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;

/// The reply to STATX: all that GETATTR says, and the birth time where it is known.
#[must_use]
pub(crate) fn statx_out(value: &union::Attr, lifetime: Duration) -> StatxOut {
    let time = |time: Time| SxTime {
        tv_sec: time.secs,
        tv_nsec: time.nanos,
        reserved: 0,
    };
    StatxOut {
        attr_valid: lifetime.as_secs(),
        attr_valid_nsec: lifetime.subsec_nanos(),
        mask: STATX_BASIC_STATS | value.btime.map_or(0, |_| STATX_BTIME),
        blksize: value.blksize,
        nlink: value.nlink,
        uid: value.uid,
        gid: value.gid,
        mode: u16::try_from(value.mode & 0xffff).unwrap_or(0),
        ino: value.ino,
        size: value.size,
        blocks: value.blocks,
        atime: time(value.atime),
        btime: time(value.btime.unwrap_or_default()),
        ctime: time(value.ctime),
        mtime: time(value.mtime),
        rdev_major: rustix::fs::major(value.rdev),
        rdev_minor: rustix::fs::minor(value.rdev),
        ..StatxOut::default()
    }
}

/// The header of a reply with a body of `len` bytes, or of an error (a positive errno) without one.
#[must_use]
pub(crate) fn out_header(unique: u64, outcome: Result<usize, i32>) -> wire::OutHeader {
    let (len, error) = match outcome {
        Ok(len) => (len, 0),
        Err(errno) => (0, errno.saturating_neg()),
    };
    wire::OutHeader {
        len: u32::try_from(size_of::<wire::OutHeader>() + len).unwrap_or(u32::MAX),
        error,
        unique,
    }
}

/// A device number in the kernel's 32-bit encoding (`new_encode_dev` in `kdev_t.h`), which FUSE
/// speaks.
#[must_use]
pub(crate) fn kernel_device(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The reverse of [`kernel_device`].
#[must_use]
pub(crate) fn device(encoded: u32) -> u64 {
    let major = (encoded & 0xfff00) >> 8;
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
    rustix::fs::makedev(major, minor)
}

#[cfg(test)]
mod tests;
