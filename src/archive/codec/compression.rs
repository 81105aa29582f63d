//! Which compression a blob has, by its first bytes.

/// First bytes of a gzip member.
pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a zstd frame without data; the first one's lower half is any number.
const ZSTD_SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes by which every compression is known.
pub(super) const PEEK: usize = 8;

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// From the first bytes of a blob; four are enough.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        if start.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if is_zstd_frame(start) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Whether a zstd frame begins so.
pub(super) fn is_zstd_frame(start: &[u8]) -> bool {
    let Some(start) = start.get(..4) else {
        return false;
    };
    start == ZSTD_MAGIC
        || (start[0] & 0xf0 == ZSTD_SKIPPABLE[0] && start[1..] == ZSTD_SKIPPABLE[1..])
}

/// A compression that others use and layers do not.
pub(super) fn foreign(start: &[u8]) -> Option<&'static str> {
    const FOREIGN: [(&[u8], &str); 4] = [
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    FOREIGN
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|(_, name)| *name)
}
