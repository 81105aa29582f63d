//! Writes a tar stream: ustar headers, and pax records for what does not fit them. The same entries give the same bytes.
//!
//! Runs of zeros of a file are left out, in GNU's sparse form 1.0, which GNU tar, Python and Go read. Which ones are is
//! decided by the content alone: where a disk has its holes differs from one copy of a tree to the next.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use rustix::io::Errno;
use tar::{EntryType, Header};

use super::entry::{Entry, Extent, What};
use super::error::{AtEntry as _, Error, Result, is_gone};
use super::read::{BLOCK, FILETYPE, XATTR_PREFIX, padding};
use crate::layer::stat::Time;

/// Zeros are looked for in units of this many bytes.
const UNIT: usize = 4096;
/// Fewer zeros than this in a row are data.
const HOLE: u64 = 64 * 1024;
/// Holes of one file that are left out; what follows is data.
const MOST_HOLES: usize = 1 << 18;
/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;
/// What a numeric field of a header holds: owner, and size or time.
const MOST_ID: u32 = 0o7_777_777;
const MOST_NUMBER: u64 = 0o77_777_777_777;
/// Bytes of a name in a header.
const NAME: usize = 100;

/// Where the bytes of a file come from.
pub trait Content {
    /// Reads at an offset; less than asked for only at the end.
    ///
    /// # Errors
    /// Those of pread(2).
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The next piece at or behind an offset that is no hole on the disk, up to `size`; `None` when only holes follow.
    ///
    /// # Errors
    /// Those of lseek(2).
    fn next_data(&mut self, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>>;
}

/// Writes entries.
pub struct TarWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            buffer: vec![0; BUFFER],
        }
    }

    /// Writes an entry that has no data: anything but a file of more than 0 bytes.
    ///
    /// # Errors
    /// A device number that no header holds, and what writing gives.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.headers(entry, &entry.path, 0, BTreeMap::new())
            .at_entry(&entry.path)
    }

    /// Writes a file with its data. One that becomes shorter or goes while it is read ends in zeros, one that becomes longer is
    /// cut, as GNU tar does: an archive is whole whatever happens to the file.
    ///
    /// # Errors
    /// What reading and writing give; when the file is gone before anything of it was read, nothing was written.
    pub fn file(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        self.whole_file(entry, size, content).at_entry(&entry.path)
    }

    /// Writes a file whose content comes as a stream of exactly `size` bytes, as it is: no runs of zeros are looked for.
    ///
    /// # Errors
    /// What reading and writing give; a stream that is shorter. What follows in one that is longer is not read.
    pub fn stream(&mut self, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<()> {
        self.whole_stream(entry, size, content)
            .at_entry(&entry.path)
    }

    fn whole_stream(&mut self, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<()> {
        self.headers(entry, &entry.path, size, BTreeMap::new())?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            content
                .read_exact(&mut self.buffer[..want])
                .map_err(reading)?;
            self.out.write_all(&self.buffer[..want]).map_err(writing)?;
            left -= want as u64;
        }
        self.pad(size)
    }

    /// Writes the end mark, and gives what it wrote to.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(writing)?;
        Ok(self.out)
    }

    fn whole_file(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        if let Ok(len) = usize::try_from(size)
            && size < HOLE
        {
            let read = content.read_at(0, &mut self.buffer[..len]);
            self.fill_up(read.map_err(reading)?, len);
            self.headers(entry, &entry.path, size, BTreeMap::new())?;
            self.out.write_all(&self.buffer[..len]).map_err(writing)?;
            return self.pad(size);
        }
        let Some(extents) = self.find_data(size, content)? else {
            self.headers(entry, &entry.path, size, BTreeMap::new())?;
            self.copy(
                Extent {
                    offset: 0,
                    len: size,
                },
                content,
            )?;
            return self.pad(size);
        };
        let map = sparse_map(&extents, size);
        let data: u64 = extents.iter().map(|extent| extent.len).sum();
        let stored = map.len() as u64 + data;
        let records = BTreeMap::from([
            (b"GNU.sparse.major".to_vec(), b"1".to_vec()),
            (b"GNU.sparse.minor".to_vec(), b"0".to_vec()),
            (b"GNU.sparse.name".to_vec(), entry.path.clone()),
            (
                b"GNU.sparse.realsize".to_vec(),
                size.to_string().into_bytes(),
            ),
        ]);
        // Readers that know nothing of it see this name, and a file that begins with the map.
        let invented = beside(&entry.path, b"GNUSparseFile.0");
        self.headers(entry, &invented, stored, records)?;
        self.write(&map)?;
        for extent in extents {
            self.copy(extent, content)?;
        }
        self.pad(stored)
    }

    /// Where a file has data; `None` when it has no holes worth leaving out.
    fn find_data(&mut self, size: u64, content: &mut dyn Content) -> Result<Option<Vec<Extent>>> {
        let mut found = DataFinder::default();
        let mut at = 0;
        while at < size && found.extents.len() < MOST_HOLES {
            let Some((begin, end)) = content.next_data(at, size).map_err(reading)? else {
                break;
            };
            // The disk's holes need not begin where our units do.
            let mut offset = begin - begin % UNIT as u64;
            while offset < end && found.extents.len() < MOST_HOLES {
                let want = (end - offset)
                    .next_multiple_of(UNIT as u64)
                    .min(size - offset);
                let want = usize::try_from(want).unwrap_or(BUFFER).min(BUFFER);
                let len = content
                    .read_at(offset, &mut self.buffer[..want])
                    .map_err(reading)?;
                if len == 0 {
                    break;
                }
                for unit in self.buffer[..len].chunks(UNIT) {
                    if unit.iter().any(|byte| *byte != 0) {
                        found.data(offset, unit.len() as u64);
                    }
                    offset += unit.len() as u64;
                }
            }
            at = match found.extents.len() {
                MOST_HOLES.. => offset,
                _ => offset.max(end),
            };
        }
        if found.extents.len() >= MOST_HOLES && at < size {
            found.data(at, size - at);
        }
        Ok(found.finish(size))
    }

    /// Copies a piece of a file, of which the header is written.
    fn copy(&mut self, extent: Extent, content: &mut dyn Content) -> Result<()> {
        let (mut offset, end) = (extent.offset, extent.offset + extent.len);
        while offset < end {
            let want = usize::try_from(end - offset).unwrap_or(BUFFER).min(BUFFER);
            let len = match content.read_at(offset, &mut self.buffer[..want]) {
                Err(error) if Errno::from_io_error(&error).is_some_and(is_gone) => 0,
                read => read.map_err(reading)?,
            };
            if len < want {
                self.fill_up(len, want);
            }
            self.out.write_all(&self.buffer[..want]).map_err(writing)?;
            offset += want as u64;
        }
        Ok(())
    }

    /// Of a piece only a part was there.
    fn fill_up(&mut self, read: usize, wanted: usize) {
        if read < wanted {
            log::warn!("a file became shorter while it was read; it is filled up with zeros");
            self.buffer[read..wanted].fill(0);
        }
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        self.write(&zeros[..usize::try_from(padding(size)).unwrap_or(0)])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(writing)
    }

    /// Writes the header of an entry, after one with the records that it needs. `name` is what the header says.
    fn headers(
        &mut self,
        entry: &Entry,
        name: &[u8],
        stored: u64,
        mut records: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut record = |key: &str, value: Vec<u8>| {
            records.insert(key.as_bytes().to_vec(), value);
        };
        if name.len() > NAME {
            record("path", name.to_vec());
        }
        copy_name(&mut header.as_old_mut().name, name);
        if let What::HardLink(target) | What::Symlink(target) = &entry.what {
            if target.len() > NAME {
                record("linkpath", target.clone());
            }
            copy_name(&mut header.as_old_mut().linkname, target);
        }
        header.set_mode(entry.mode & 0o7777);
        if entry.uid > MOST_ID {
            record("uid", entry.uid.to_string().into_bytes());
        }
        header.set_uid(u64::from(if entry.uid > MOST_ID { 0 } else { entry.uid }));
        if entry.gid > MOST_ID {
            record("gid", entry.gid.to_string().into_bytes());
        }
        header.set_gid(u64::from(if entry.gid > MOST_ID { 0 } else { entry.gid }));
        if stored > MOST_NUMBER {
            record("size", stored.to_string().into_bytes());
        }
        header.set_size(stored);
        let whole = u64::try_from(entry.mtime.secs)
            .ok()
            .filter(|secs| *secs <= MOST_NUMBER);
        if whole.is_none() || entry.mtime.nanos != 0 {
            record("mtime", decimal_time(entry.mtime));
        }
        header.set_mtime(whole.unwrap_or(0));
        if entry.what == What::Socket {
            record(FILETYPE, b"socket".to_vec());
        }
        for (name, value) in &entry.xattrs {
            records.insert([XATTR_PREFIX, &encoded(name)].concat(), value.clone());
        }
        header.set_entry_type(match entry.what {
            What::File(_) | What::Socket => EntryType::Regular,
            What::HardLink(_) => EntryType::Link,
            What::Symlink(_) => EntryType::Symlink,
            What::Dir => EntryType::Directory,
            What::Fifo => EntryType::Fifo,
            What::Char(_) => EntryType::Char,
            What::Block(_) => EntryType::Block,
        });
        if let What::Char(rdev) | What::Block(rdev) = entry.what {
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            if major > MOST_ID || minor > MOST_ID {
                return Err(Error::refused(format!(
                    "its device number {major}:{minor} does not fit into an archive"
                )));
            }
            header.set_device_major(major).map_err(writing)?;
            header.set_device_minor(minor).map_err(writing)?;
        }
        if !records.is_empty() {
            self.extended(name, &records)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn extended(&mut self, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
        let mut bytes = Vec::new();
        for (key, value) in records {
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
        let mut header = Header::new_ustar();
        copy_name(
            &mut header.as_old_mut().name,
            &beside(name, b"PaxHeaders.0"),
        );
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_entry_type(EntryType::XHeader);
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(&bytes)?;
        self.pad(bytes.len() as u64)
    }
}

/// Collects the units of a file that are not all zeros.
#[derive(Default)]
struct DataFinder {
    extents: Vec<Extent>,
}

impl DataFinder {
    fn data(&mut self, offset: u64, len: u64) {
        match self.extents.last_mut() {
            Some(last) if offset < last.offset + last.len + HOLE => {
                last.len = offset + len - last.offset
            }
            // A short run of zeros at the beginning is data, too.
            None if offset < HOLE => self.extents.push(Extent {
                offset: 0,
                len: offset + len,
            }),
            _ => self.extents.push(Extent { offset, len }),
        }
    }

    fn finish(mut self, size: u64) -> Option<Vec<Extent>> {
        match self.extents.last_mut() {
            Some(last) if size < last.offset + last.len + HOLE => last.len = size - last.offset,
            _ => {}
        }
        match self.extents[..] {
            [Extent { offset: 0, len }] if len == size => None,
            _ => Some(self.extents),
        }
    }
}

/// The map that precedes the data: the number of pairs, the pairs, and zeros up to a whole block. A file that ends in a hole
/// has a pair without data at its end, as GNU tar writes it.
fn sparse_map(extents: &[Extent], size: u64) -> Vec<u8> {
    let ends_in_hole = extents
        .last()
        .is_none_or(|last| last.offset + last.len < size);
    let mut map = format!("{}\n", extents.len() + usize::from(ends_in_hole));
    for Extent { offset, len } in extents {
        map.push_str(&format!("{offset}\n{len}\n"));
    }
    if ends_in_hole {
        map.push_str(&format!("{size}\n0\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// As much of a name as fits.
fn copy_name(field: &mut [u8; NAME], name: &[u8]) {
    let len = name.len().min(NAME);
    field[..len].copy_from_slice(&name[..len]);
}

/// A name in a directory that is invented beside the entry, as POSIX proposes for extended headers.
fn beside(path: &[u8], directory: &[u8]) -> Vec<u8> {
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

fn reading(err: io::Error) -> Error {
    Error::io("cannot read it", err)
}

fn writing(err: io::Error) -> Error {
    Error::io("cannot write the archive", err)
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

    #[test]
    fn only_long_runs_of_zeros_are_left_out() {
        let find = |units: &[(u64, u64)], size| {
            let mut found = DataFinder::default();
            for (offset, len) in units {
                found.data(*offset, *len);
            }
            let extents = found.finish(size);
            extents.map(|all| all.iter().map(|e| (e.offset, e.len)).collect::<Vec<_>>())
        };
        assert_eq!(find(&[(0, 4096)], 4096), None);
        assert_eq!(find(&[], HOLE), Some(vec![]));
        assert_eq!(find(&[(0, 4096), (HOLE, 4096)], HOLE + 4096), None);
        assert_eq!(find(&[(4096, 1)], HOLE), None);
        let far = 4096 + HOLE;
        assert_eq!(
            find(&[(0, 4096), (far, 4096)], far + 4096),
            Some(vec![(0, 4096), (far, 4096)])
        );
        assert_eq!(find(&[(HOLE, 10)], HOLE + 10), Some(vec![(HOLE, 10)]));
        assert_eq!(find(&[(0, 4096)], 4096 + HOLE), Some(vec![(0, 4096)]));
    }
}
