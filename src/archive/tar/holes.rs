//! Which runs of zeros of a file are left out of an archive.

use super::entry::Extent;
use super::fields::BLOCK;

/// Fewer zeros than this in a row are data.
pub(super) const HOLE: u64 = 64 * 1024;

/// Collects the units of a file that are not all zeros.
#[derive(Default)]
pub(super) struct DataFinder {
    extents: Vec<Extent>,
}

impl DataFinder {
    /// These bytes are not all zeros. In the order of the file.
    pub(super) fn data(&mut self, offset: u64, len: u64) {
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

    /// Pieces found so far.
    pub(super) fn len(&self) -> usize {
        self.extents.len()
    }

    /// Where a file of this size has data; `None` when it has no holes worth leaving out.
    pub(super) fn finish(mut self, size: u64) -> Option<Vec<Extent>> {
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

/// The map that precedes the data: the number of pairs, the pairs, and zeros up to a whole block. A
/// file that ends in a hole has a pair without data at its end, as GNU tar writes it.
pub(super) fn sparse_map(extents: &[Extent], size: u64) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
