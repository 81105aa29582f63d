//! The fields of a header: checksum, numbers, names. The layout is crate `tar`'s; what a field
//! means is decided here, because only what every reader of layers agrees on may be accepted.

use tar::Header;

use super::entry::EntryKind;
use crate::archive::error::{Error, Result};

/// Bytes of a header, and the unit in which data is stored.
pub(super) const BLOCK: usize = 512;

/// Bytes that fill up the last block of `size` bytes.
#[must_use]
pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// What a header says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// A regular file.
    File,
    /// A file in GNU's old sparse form.
    GnuSparse,
    /// No regular file: it has no data, also where a size is said.
    Other(char),
    /// Records for the next entry.
    Extended,
    /// Records for all following entries.
    Global,
    /// The name of the next entry.
    LongName,
    /// What the next entry links to.
    LongLink,
}

/// Whether the checksum is right: that of unsigned bytes (POSIX), or of signed ones, as some old
/// programs have it.
pub(super) fn checksum_is_right(header: &Header) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let bytes = header.as_bytes();
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if FIELD.contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    number(&header.as_old().cksum).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// A numeric field: octal digits, or a big-endian two's complement number when the first bit is set
/// (GNU's base-256). An empty field is 0. `None` for anything else, and for what does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The second bit is the sign, the first one belongs to the encoding.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = match at {
                0 if negative => *byte,
                0 => *byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_mul(256)? | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let begin = field.iter().position(|byte| !blank(byte));
    let digits = field.get(begin?..)?;
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return None;
    }
    let mut value: i64 = 0;
    for digit in &digits[..end] {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// As [`number`], with blanks only as 0 and an error that names the field.
pub(super) fn field(bytes: &[u8], name: &str) -> Result<i64> {
    if bytes.iter().all(|byte| matches!(byte, b' ' | 0)) {
        return Ok(0);
    }
    number(bytes).ok_or_else(|| Error::malformed(format!("the header's {name} is no number")))
}

/// A field that is never negative.
pub(super) fn unsigned_field(bytes: &[u8], name: &str) -> Result<u64> {
    u64::try_from(field(bytes, name)?)
        .map_err(|_| Error::malformed(format!("the header's {name} is negative")))
}

/// An owner. 4294967295 means "leave it" to chown(2).
pub(super) fn id(value: i64, name: &str) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::refused(format!("{name} {value} is none that a disk can store")))
}

/// What the header is about. `name` decides between file and directory in the oldest format (POSIX,
/// ustar, typeflag 0).
pub(super) fn type_of(header: &Header, name: &[u8]) -> Result<Type> {
    let flag = header.as_old().linkflag[0];
    Ok(match flag {
        0 if name.ends_with(b"/") => Type::Other('5'),
        0 | b'0' | b'7' => Type::File,
        b'S' => Type::GnuSparse,
        b'1'..=b'6' => Type::Other(char::from(flag)),
        b'x' | b'X' => Type::Extended,
        b'g' => Type::Global,
        b'L' => Type::LongName,
        b'K' => Type::LongLink,
        _ => {
            return Err(Error::refused(format!(
                "entries of type '{}' have no place in a layer",
                flag.escape_ascii()
            ))
            .at(name));
        }
    })
}

/// What an entry without data is. `link` is the name it refers to.
pub(super) fn without_data(flag: char, header: &Header, link: Vec<u8>) -> Result<EntryKind> {
    let device = || -> Result<u64> {
        let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
            (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
            (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
            (None, None) => return Ok(0),
        };
        let part = |bytes: &[u8], name| {
            u32::try_from(unsigned_field(bytes, name)?)
                .map_err(|_| Error::malformed(format!("the header's {name} is too large")))
        };
        Ok(rustix::fs::makedev(
            part(major, "device number")?,
            part(minor, "device number")?,
        ))
    };
    Ok(match flag {
        '1' => EntryKind::HardLink(link),
        '2' => EntryKind::Symlink(link),
        '3' => EntryKind::Char(device()?),
        '4' => EntryKind::Block(device()?),
        '6' => EntryKind::Fifo,
        _ => EntryKind::Dir,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_in_all_forms() {
        let table: [(&[u8], Option<i64>); 16] = [
            (b"0000644\0", Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"644 \0 \0\0\0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                Some(-1),
            ),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"644x\0\0\0\0", None),
            (b"6 44\0\0\0\0", None),
            (b"", None),
        ];
        for (bytes, want) in table {
            assert_eq!(number(bytes), want, "{}", bytes.escape_ascii());
        }
        assert_eq!(field(b"\0\0 \0", "mode").unwrap(), 0);
        assert!(field(b"9", "mode").is_err());
        assert!(unsigned_field(b"\xff\xff\xff\xff\xff\xff\xff\xfe", "size").is_err());
        assert!(id(-1, "uid").is_err() && id(0xffff_ffff, "uid").is_err());
        assert_eq!(id(0xffff_fffe, "uid").unwrap(), 0xffff_fffe);
    }
}
