//! How much an archive may ask for: none of its numbers is used before it was compared with one of
//! these.

/// Bounds of what is accepted. Each can be raised on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one layer after decompression (`--max-size`).
    pub bytes: u64,
    /// Headers of one layer, those of extended records included (`--max-entries`).
    pub entries: u64,
    /// Bytes of a path or of a link's target (`--max-path`).
    pub path: usize,
    /// Bytes of the extended records of one entry (`--max-pax`).
    pub pax: usize,
    /// Bytes of one JSON document (`--max-json`).
    pub json: usize,
    /// Pieces of data of one sparse file (`--max-extents`).
    pub extents: usize,
    /// Names that begin with a slash are taken from the layer's root, as other programs do, instead
    /// of being refused (`--absolute-names`). Those of directories always are.
    pub absolute: bool,
}

impl Limits {
    /// For an archive whose digest is known to be that of one that was accepted, under any limits.
    #[must_use]
    pub fn accepted_before() -> Self {
        // Nothing in one archive is larger, and sums of these do not overflow.
        const LARGE: usize = usize::MAX >> 2;
        Self {
            bytes: 1 << 62,
            entries: 1 << 62,
            path: LARGE,
            pax: LARGE,
            json: LARGE,
            extents: LARGE,
            absolute: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 10_000_000,
            // PATH_MAX of Linux.
            path: 4096,
            pax: 1 << 20,
            json: 8 << 20,
            // 16 MiB of memory; a file of 4 GiB of which every other block is a hole.
            extents: 1 << 20,
            absolute: false,
        }
    }
}
