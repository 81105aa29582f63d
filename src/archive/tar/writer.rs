//! Writes a tar stream: ustar headers, and pax records for what does not fit them. Equal entries
//! make equal bytes.
//!
//! Runs of zeros of a file are left out, in GNU's sparse form 1.0, which GNU tar, Python and Go
//! read. Which ones are is decided by the content alone: where a disk has its holes differs from
//! one copy of a tree to the next.

use std::io::{self, Read, Write};

use rustix::io::Errno;

use super::entry::{Extent, TarEntry};
use super::fields::BLOCK;
use super::headers::{Headers, NewRecords, beside, pad, writing};
use super::holes::{DataFinder, HOLE, sparse_map};
use crate::archive::error::{AtEntry as _, Error, Result, is_gone};

/// Zeros are looked for in units of this many bytes.
const UNIT: usize = 4096;
/// Holes of one file that are left out; what follows is data.
const MOST_HOLES: usize = 1 << 18;
/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;

/// Where the bytes of a file come from.
pub trait Content {
    /// Reads at an offset; less than asked for only at the end.
    ///
    /// # Errors
    /// Those of pread(2).
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The next piece at or behind an offset that is no hole on the disk, up to `size`; `None` when
    /// only holes follow.
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
    /// A device number that no header holds, and those of writing.
    pub fn entry(&mut self, entry: &TarEntry) -> Result<()> {
        self.headers(entry, &entry.path, 0, NewRecords::new())
            .at_entry(&entry.path)
    }

    /// Writes a file with its data. One that becomes shorter or goes while it is read ends in
    /// zeros, one that becomes longer is cut, as GNU tar does: the archive is complete in any case.
    ///
    /// # Errors
    /// Those of reading and writing; when the file is gone before anything of it was read, nothing
    /// was written.
    pub fn file(&mut self, entry: &TarEntry, size: u64, content: &mut dyn Content) -> Result<()> {
        self.whole_file(entry, size, content).at_entry(&entry.path)
    }

    /// Writes a file whose bytes come in order, as they are: no holes are left out.
    ///
    /// # Errors
    /// Content that ends before `size` bytes, and those of reading and writing; the archive is not
    /// complete then. What follows `size` bytes is not read.
    pub fn stream(&mut self, entry: &TarEntry, size: u64, content: &mut dyn Read) -> Result<()> {
        self.whole_stream(entry, size, content)
            .at_entry(&entry.path)
    }

    /// Writes the end mark. Returns the writer.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        self.out.flush().map_err(writing)?;
        Ok(self.out)
    }

    fn whole_stream(&mut self, entry: &TarEntry, size: u64, content: &mut dyn Read) -> Result<()> {
        self.headers(entry, &entry.path, size, NewRecords::new())?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let len = match content.read(&mut self.buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(reading)?,
            };
            if len == 0 {
                return Err(reading(io::ErrorKind::UnexpectedEof.into()));
            }
            self.out.write_all(&self.buffer[..len]).map_err(writing)?;
            left -= len as u64;
        }
        pad(&mut self.out, size)
    }

    fn whole_file(&mut self, entry: &TarEntry, size: u64, content: &mut dyn Content) -> Result<()> {
        if let Ok(len) = usize::try_from(size)
            && size < HOLE
        {
            let read = content.read_at(0, &mut self.buffer[..len]);
            self.fill_up(read.map_err(reading)?, len);
            self.headers(entry, &entry.path, size, NewRecords::new())?;
            self.out.write_all(&self.buffer[..len]).map_err(writing)?;
            return pad(&mut self.out, size);
        }
        let Some(extents) = self.find_data(size, content)? else {
            self.headers(entry, &entry.path, size, NewRecords::new())?;
            self.copy(
                Extent {
                    offset: 0,
                    len: size,
                },
                content,
            )?;
            return pad(&mut self.out, size);
        };
        let map = sparse_map(&extents, size);
        let data: u64 = extents.iter().map(|extent| extent.len).sum();
        let stored = map.len() as u64 + data;
        let records = NewRecords::from([
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
        pad(&mut self.out, stored)
    }

    /// Where a file has data; `None` when it has no holes worth leaving out.
    fn find_data(&mut self, size: u64, content: &mut dyn Content) -> Result<Option<Vec<Extent>>> {
        let mut found = DataFinder::default();
        let mut at = 0;
        while at < size && found.len() < MOST_HOLES {
            let Some((begin, end)) = content.next_data(at, size).map_err(reading)? else {
                break;
            };
            // The disk's holes need not begin where our units do.
            let mut offset = begin - begin % UNIT as u64;
            while offset < end && found.len() < MOST_HOLES {
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
            at = match found.len() {
                MOST_HOLES.. => offset,
                _ => offset.max(end),
            };
        }
        if found.len() >= MOST_HOLES && at < size {
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

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(writing)
    }

    /// Writes the headers of an entry. `name` is what they say, `records` those that it needs in
    /// any case.
    fn headers(
        &mut self,
        entry: &TarEntry,
        name: &[u8],
        stored: u64,
        records: NewRecords,
    ) -> Result<()> {
        Headers::new(entry, name, stored, records)?.write_to(&mut self.out)
    }
}

fn reading(err: io::Error) -> Error {
    Error::io("cannot read it", err)
}
