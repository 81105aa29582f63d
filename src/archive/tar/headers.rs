//! The headers of an entry that is written: one of ustar, and before it one with the pax records
//! for what does not fit.

use std::collections::BTreeMap;
use std::io::Write;

use tar::{EntryType, Header};

use super::entry::{EntryKind, TarEntry};
use super::fields::{BLOCK, padding};
use super::pax::{FILETYPE, XATTR_PREFIX};
use crate::archive::error::{Error, Result};
use crate::layer::stat::Time;

/// What a numeric field of a header holds: owner, and size or time.
const MOST_ID: u32 = 0o7_777_777;
const MOST_NUMBER: u64 = 0o77_777_777_777;
/// Bytes of a name in a header.
const NAME: usize = 100;

/// Pax records by key, which are written in this order.
pub(super) type NewRecords = BTreeMap<Vec<u8>, Vec<u8>>;

/// The headers of an entry.
pub(super) struct Headers<'a> {
    /// What the header says; the entry's path may be another one.
    name: &'a [u8],
    header: Header,
    records: NewRecords,
}

impl<'a> Headers<'a> {
    /// Those of an entry with `stored` bytes of data. `records` are those that it needs in any
    /// case. Errors: a device number that no header holds.
    pub(super) fn new(
        entry: &TarEntry,
        name: &'a [u8],
        stored: u64,
        records: NewRecords,
    ) -> Result<Self> {
        let mut headers = Self {
            name,
            header: Header::new_ustar(),
            records,
        };
        headers.set_names(&entry.what);
        headers.header.set_mode(entry.mode & 0o7777);
        headers.set_owner(entry.uid, entry.gid);
        headers.set_size(stored);
        headers.set_mtime(entry.mtime);
        for (name, value) in &entry.xattrs {
            let key = [XATTR_PREFIX, &encoded(name)].concat();
            headers.records.insert(key, value.clone());
        }
        headers.set_kind(&entry.what)?;
        headers.header.set_cksum();
        Ok(headers)
    }

    fn record(&mut self, key: &str, value: Vec<u8>) {
        self.records.insert(key.as_bytes().to_vec(), value);
    }

    fn set_names(&mut self, what: &EntryKind) {
        if self.name.len() > NAME {
            self.record("path", self.name.to_vec());
        }
        copy_name(&mut self.header.as_old_mut().name, self.name);
        if let EntryKind::HardLink(target) | EntryKind::Symlink(target) = what {
            if target.len() > NAME {
                self.record("linkpath", target.clone());
            }
            copy_name(&mut self.header.as_old_mut().linkname, target);
        }
    }

    fn set_owner(&mut self, uid: u32, gid: u32) {
        if uid > MOST_ID {
            self.record("uid", uid.to_string().into_bytes());
        }
        self.header
            .set_uid(u64::from(if uid > MOST_ID { 0 } else { uid }));
        if gid > MOST_ID {
            self.record("gid", gid.to_string().into_bytes());
        }
        self.header
            .set_gid(u64::from(if gid > MOST_ID { 0 } else { gid }));
    }

    fn set_size(&mut self, stored: u64) {
        if stored > MOST_NUMBER {
            self.record("size", stored.to_string().into_bytes());
        }
        self.header.set_size(stored);
    }

    fn set_mtime(&mut self, mtime: Time) {
        let whole = u64::try_from(mtime.secs)
            .ok()
            .filter(|secs| *secs <= MOST_NUMBER);
        if whole.is_none() || mtime.nanos != 0 {
            self.record("mtime", decimal_time(mtime));
        }
        self.header.set_mtime(whole.unwrap_or(0));
    }

    fn set_kind(&mut self, what: &EntryKind) -> Result<()> {
        if *what == EntryKind::Socket {
            self.record(FILETYPE, b"socket".to_vec());
        }
        self.header.set_entry_type(match what {
            EntryKind::File(_) | EntryKind::Socket => EntryType::Regular,
            EntryKind::HardLink(_) => EntryType::Link,
            EntryKind::Symlink(_) => EntryType::Symlink,
            EntryKind::Dir => EntryType::Directory,
            EntryKind::Fifo => EntryType::Fifo,
            EntryKind::Char(_) => EntryType::Char,
            EntryKind::Block(_) => EntryType::Block,
        });
        if let EntryKind::Char(rdev) | EntryKind::Block(rdev) = *what {
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            if major > MOST_ID || minor > MOST_ID {
                return Err(Error::refused(format!(
                    "its device number {major}:{minor} does not fit into an archive"
                )));
            }
            self.header.set_device_major(major).map_err(writing)?;
            self.header.set_device_minor(minor).map_err(writing)?;
        }
        Ok(())
    }

    /// Writes them. Errors: those of writing.
    pub(super) fn write_to(&self, out: &mut impl Write) -> Result<()> {
        if !self.records.is_empty() {
            self.write_records(out)?;
        }
        out.write_all(self.header.as_bytes()).map_err(writing)
    }

    fn write_records(&self, out: &mut impl Write) -> Result<()> {
        let mut bytes = Vec::new();
        for (key, value) in &self.records {
            push_record(&mut bytes, key, value);
        }
        let mut header = Header::new_ustar();
        copy_name(
            &mut header.as_old_mut().name,
            &beside(self.name, b"PaxHeaders.0"),
        );
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_entry_type(EntryType::XHeader);
        header.set_cksum();
        out.write_all(header.as_bytes()).map_err(writing)?;
        out.write_all(&bytes).map_err(writing)?;
        pad(out, bytes.len() as u64)
    }
}

/// Appends `LENGTH KEY=VALUE\n`.
fn push_record(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut len = rest + 1;
    while len.to_string().len() + rest > len {
        len += 1;
    }
    bytes.extend_from_slice(format!("{len} ").as_bytes());
    bytes.extend_from_slice(key);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// Fills up the last block of `size` bytes. Errors: those of writing.
pub(super) fn pad(out: &mut impl Write, size: u64) -> Result<()> {
    let zeros = [0; BLOCK];
    let len = usize::try_from(padding(size)).unwrap_or(0);
    out.write_all(&zeros[..len]).map_err(writing)
}

/// A failure of writing the archive.
pub(super) fn writing(err: std::io::Error) -> Error {
    Error::io("cannot write the archive", err)
}

/// As much of a name as fits.
fn copy_name(field: &mut [u8; NAME], name: &[u8]) {
    let len = name.len().min(NAME);
    field[..len].copy_from_slice(&name[..len]);
}

/// A name in a directory that is invented beside the entry, as POSIX proposes for extended headers.
pub(super) fn beside(path: &[u8], directory: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => [&path[..=slash], directory, &path[slash..]].concat(),
        None => [directory, b"/", path].concat(),
    }
}

/// Seconds with a fraction; both have the sign.
fn decimal_time(time: Time) -> Vec<u8> {
    let text = if time.secs >= 0 || time.nanos == 0 {
        format!("{}.{:09}", time.secs, time.nanos)
    } else {
        format!("-{}.{:09}", -(time.secs + 1), 1_000_000_000 - time.nanos)
    };
    text.trim_end_matches('0')
        .trim_end_matches('.')
        .as_bytes()
        .to_vec()
}

/// A key ends at its first `=`: as GNU tar, that and `%` are written as `%3D` and `%25`.
fn encoded(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            _ => key.push(*byte),
        }
    }
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_written_as_short_as_they_can_be() {
        for (secs, nanos, want) in [
            (0, 0, "0"),
            (10, 0, "10"),
            (1, 500_000_000, "1.5"),
            (1, 1, "1.000000001"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (1 << 40, 0, "1099511627776"),
        ] {
            assert_eq!(decimal_time(Time { secs, nanos }), want.as_bytes());
        }
    }

    #[test]
    fn invented_names_stand_beside() {
        assert_eq!(beside(b"a", b"X"), b"X/a");
        assert_eq!(beside(b"d/a", b"X"), b"d/X/a");
        assert_eq!(beside(b"d/a/", b"X"), b"d/X/a");
        assert_eq!(beside(b"./", b"X"), b"X/.");
    }
}
