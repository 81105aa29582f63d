//! What holds of every archive, whatever its bytes are.

use std::io::{self, BufReader, Read as _};

use unionmount::internal::archive::Limits;
use unionmount::internal::archive::codec::Decoder;
use unionmount::internal::archive::tar::TarReader;
use unionmount::internal::archive::tar::{Content, TarWriter};
use unionmount::internal::archive::tar::{EntryKind, TarEntry};

/// Bytes of a file that are looked at.
const MOST: u64 = 1 << 20;
const BLOCK: usize = 512;

/// An entry with the pieces of its data.
type Read = (TarEntry, Vec<(u64, Vec<u8>)>);

/// Reads the bytes as a blob and as a tar; what can be read is written again, and must be the same
/// then.
pub fn check(bytes: &[u8]) {
    if let Ok((decoder, _)) = Decoder::new(bytes) {
        let mut plain = Vec::new();
        // A small input can become very large.
        if decoder.take(1 << 20).read_to_end(&mut plain).is_ok() {
            read(&plain);
        }
    }
    let mut sealed = bytes.to_vec();
    seal(&mut sealed);
    let Some(first) = read(&sealed) else { return };
    if let Some(written) = write(&first) {
        let again = read(&written).expect("what we write can be read");
        assert_eq!(first.len(), again.len());
        for (one, other) in first.iter().zip(&again) {
            assert_eq!(one.0, other.0);
            assert!(flat(one) == flat(other), "{:?}", one.0);
        }
    }
}

/// Makes the checksum of whatever looks like a header right: no fuzzer finds that by chance.
fn seal(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn read(bytes: &[u8]) -> Option<Vec<Read>> {
    let limits = Limits {
        bytes: 1 << 22,
        entries: 2000,
        extents: 2000,
        ..Limits::default()
    };
    let mut reader = TarReader::new(BufReader::with_capacity(700, bytes), limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut end = 0;
        let size = match entry.what {
            EntryKind::File(size) => size,
            _ => 0,
        };
        let done = reader.data(|offset, piece| {
            assert!(offset >= end, "pieces come in order");
            end = offset + piece.len() as u64;
            assert!(end <= size, "no piece is behind the end of the file");
            pieces.push((offset, piece.to_vec()));
            Ok(())
        });
        done.ok()?;
        assert!(entry.path.len() <= limits.path && !entry.path.contains(&0));
        assert!(entry.mode <= 0o7777 && entry.mtime.nanos < 1_000_000_000);
        all.push((entry, pieces));
    }
    Some(all)
}

/// The content; `None` of a file that is too large.
fn flat((entry, pieces): &Read) -> Option<Vec<u8>> {
    let EntryKind::File(size @ 0..=MOST) = entry.what else {
        return None;
    };
    let mut data = vec![0; usize::try_from(size).ok()?];
    for (offset, piece) in pieces {
        let at = usize::try_from(*offset).ok()?;
        data[at..at + piece.len()].copy_from_slice(piece);
    }
    Some(data)
}

struct Flat(Vec<u8>);

impl Content for Flat {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn next_data(&mut self, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        Ok((offset < size).then_some((offset, size)))
    }
}

fn write(all: &[Read]) -> Option<Vec<u8>> {
    let mut writer = TarWriter::new(Vec::new());
    for read in all {
        let (entry, _) = read;
        if entry.path.is_empty() || entry.mode > 0o7777 {
            return None;
        }
        match entry.what {
            EntryKind::File(size) if size > 0 => {
                writer.file(entry, size, &mut Flat(flat(read)?)).ok()?
            }
            _ => writer.entry(entry).ok()?,
        }
    }
    writer.finish().ok()
}
