//! Where a sparse file has data: GNU's old headers, and the forms that pax records carry.

use tar::GnuHeader;

use super::entry::Extent;
use super::fields::{BLOCK, unsigned_field};
use super::pax::{SparseRecords, decimal, too_many_extents};
use crate::archive::error::{Error, Result};

/// Bytes of an offset and of a length in GNU's old form, and of the pair.
const FIELD: usize = 12;
const PAIR: usize = 2 * FIELD;
/// Pairs in the header, and in each of the blocks that may follow it.
const PAIRS_IN_HEADER: usize = 4;
const PAIRS_IN_BLOCK: usize = 21;
/// Digits that a number of the map before the data may have.
const DIGITS: usize = 20;

/// The map of a file, under construction: ordered, without overlaps, within the file.
#[derive(Debug)]
pub(super) struct Map {
    extents: Vec<Extent>,
    /// Pairs so far, those without data included, and how many there may be.
    pairs: usize,
    most: usize,
    end: u64,
}

impl Map {
    pub(super) fn new(most: usize) -> Self {
        Self {
            extents: Vec::new(),
            pairs: 0,
            most,
            end: 0,
        }
    }

    fn push(&mut self, offset: u64, len: u64) -> Result<()> {
        if self.pairs >= self.most {
            return Err(too_many_extents(self.most));
        }
        self.pairs += 1;
        let end = offset.checked_add(len);
        let Some(end) = end.filter(|_| offset >= self.end) else {
            return Err(Error::malformed("the map of its data is out of order"));
        };
        self.end = end;
        if len > 0 {
            self.extents.push(Extent { offset, len });
        }
        Ok(())
    }

    /// The whole map, when it fits the file and the data that is stored.
    pub(super) fn finish(self, real_size: u64, stored: u64) -> Result<Vec<Extent>> {
        let data: u64 = self.extents.iter().map(|extent| extent.len).sum();
        if self.end > real_size || data != stored {
            return Err(Error::malformed(format!(
                "the map of its data has {data} bytes up to {} of {real_size}, and {stored} bytes are stored",
                self.end
            )));
        }
        Ok(self.extents)
    }

    /// The map that the records hold, in the two older pax forms.
    pub(super) fn from_records(records: &SparseRecords, most: usize) -> Result<Self> {
        let mut map = Self::new(most);
        for pair in records.numbers.chunks(2) {
            let [offset, len] = pair else {
                return Err(Error::malformed("the map of its data ends early"));
            };
            map.push(*offset, *len)?;
        }
        Ok(map)
    }

    /// The pairs of an old GNU header; `true` when more follow in blocks of their own.
    pub(super) fn push_header(&mut self, header: &GnuHeader) -> Result<bool> {
        const FIRST: usize = 386;
        const MORE: usize = 482;
        let bytes = header.as_header().as_bytes();
        self.push_pairs(&bytes[FIRST..FIRST + PAIRS_IN_HEADER * PAIR])?;
        Ok(bytes[MORE] != 0)
    }

    /// The pairs of a block behind it; `true` when another follows.
    pub(super) fn push_block(&mut self, block: &[u8; BLOCK]) -> Result<bool> {
        let pairs = PAIRS_IN_BLOCK * PAIR;
        self.push_pairs(&block[..pairs])?;
        Ok(block[pairs] != 0)
    }

    fn push_pairs(&mut self, bytes: &[u8]) -> Result<()> {
        for pair in bytes.chunks_exact(PAIR) {
            // Pairs that are not used are empty.
            if pair.iter().all(|byte| *byte == 0) {
                break;
            }
            let (offset, len) = pair.split_at(FIELD);
            self.push(
                unsigned_field(offset, "sparse map")?,
                unsigned_field(len, "sparse map")?,
            )?;
        }
        Ok(())
    }
}

/// Reads the map that precedes the data (pax form 1.0): decimal numbers, each ended by a line feed.
pub(super) struct Preface {
    map: Map,
    pairs: Option<u64>,
    offset: Option<u64>,
    digits: Vec<u8>,
}

impl Preface {
    pub(super) fn new(most: usize) -> Self {
        Self {
            map: Map::new(most),
            pairs: None,
            offset: None,
            digits: Vec::with_capacity(DIGITS),
        }
    }

    /// Takes one block; `true` when the map is complete: the data begins with the next one.
    pub(super) fn push_block(&mut self, block: &[u8; BLOCK]) -> Result<bool> {
        let damaged = || Error::malformed("the map of its data is damaged");
        for byte in block {
            if *byte != b'\n' {
                if self.digits.len() == DIGITS {
                    return Err(damaged());
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or_else(damaged)?;
            self.digits.clear();
            match (self.pairs, self.offset.take()) {
                (None, _) => self.pairs = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(pairs), Some(offset)) => {
                    self.map.push(offset, number)?;
                    self.pairs = Some(pairs - 1);
                }
            }
            if self.pairs == Some(0) && self.offset.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn map(self) -> Map {
        self.map
    }
}
