//! Extended records (POSIX pax, "pax Interchange Format"): `LENGTH KEY=VALUE\n`, any bytes in a
//! value.
//!
//! Crate `tar` splits records at line feeds, which the values of xattrs may contain; so they are
//! read here, by their lengths.

use super::entry::Xattr;
use super::fields;
use crate::archive::error::{Error, Result};
use crate::layer::stat::Time;

/// Prefix of the keys of xattrs (star(1); what Docker and containerd write).
pub(super) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// The key by which star(1) says what an entry is that tar has no type for.
pub(super) const FILETYPE: &str = "SCHILY.filetype";

/// The records of one entry.
#[derive(Debug, Default)]
pub(super) struct PaxRecords {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) socket: bool,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: SparseRecords,
}

/// What the records say about a sparse file (GNU tar, "Storing Sparse Files").
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    /// 1 for the form in which the map precedes the data.
    pub(super) major: Option<u64>,
    /// The size of the file with its holes.
    pub(super) real_size: Option<u64>,
    /// The file's name; `path` is an invented one then.
    pub(super) name: Option<Vec<u8>>,
    /// Offsets and lengths in turn, in the older forms.
    pub(super) numbers: Vec<u64>,
}

impl PaxRecords {
    /// Reads all records. `extents` is how many pieces of data a sparse file may have.
    pub(super) fn parse(mut bytes: &[u8], extents: usize) -> Result<Self> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = split_record(bytes)
                .ok_or_else(|| Error::malformed("its extended header is damaged"))?;
            records.take(key, value, extents)?;
            bytes = rest;
        }
        Ok(records)
    }

    fn take(&mut self, key: &[u8], value: &[u8], extents: usize) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            return self.take_xattr(&decoded(name), value);
        }
        let wrong = || {
            Error::malformed(format!(
                "its record {} is '{}'",
                key.escape_ascii(),
                value[..value.len().min(40)].escape_ascii()
            ))
        };
        let number = || decimal(value).ok_or_else(wrong);
        let text = || match value.contains(&0) {
            true => Err(wrong()),
            false => Ok(value.to_vec()),
        };
        // An empty value takes a record back (POSIX); what the header says holds.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(text()?),
            b"linkpath" => self.link = Some(text()?),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(owner(value, "uid").ok_or_else(wrong)??),
            b"gid" => self.gid = Some(owner(value, "gid").ok_or_else(wrong)??),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"SCHILY.filetype" => self.socket = value == b"socket",
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" if value != b"0" && value != b"1" => return Err(wrong()),
            b"GNU.sparse.name" => self.sparse.name = Some(text()?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(number()?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // Offset and length in turn, or one of them is missing.
                let is_offset = key == b"GNU.sparse.offset";
                if self.sparse.numbers.len().is_multiple_of(2) != is_offset {
                    return Err(wrong());
                }
                self.sparse.numbers.push(number()?);
            }
            b"GNU.sparse.map" => {
                self.sparse.numbers.clear();
                for part in value.split(|byte| *byte == b',') {
                    self.sparse.numbers.push(decimal(part).ok_or_else(wrong)?);
                }
            }
            _ => {}
        }
        if self.sparse.numbers.len() / 2 > extents {
            return Err(too_many_extents(extents));
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        const NAME_MAX: usize = 255;
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&0) {
            return Err(Error::malformed(format!(
                "it has an xattr '{}', which is no name",
                name.escape_ascii()
            )));
        }
        if value.len() > crate::layer::xattr::SIZE_MAX {
            return Err(Error::refused(format!(
                "its xattr {} has {} bytes, more than any disk stores",
                name.escape_ascii(),
                value.len()
            )));
        }
        match self.xattrs.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_vec(),
            None => self.xattrs.push((name.to_vec(), value.to_vec())),
        }
        Ok(())
    }
}

pub(super) fn too_many_extents(extents: usize) -> Error {
    Error::limit(
        format_args!("it is a sparse file of more than {extents} pieces"),
        "--max-extents",
    )
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty()).then_some((key, value, &bytes[len..]))
}

/// A decimal number without a sign.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
    }
    Some(value)
}

fn owner(value: &[u8], name: &str) -> Option<Result<u32>> {
    let value = i64::try_from(decimal(value)?).ok()?;
    Some(fields::id(value, name))
}

/// Seconds with a fraction, both of the sign: -1.5 is half a second before -1.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let (whole, fraction) = match value.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &b""[..]),
    };
    let whole = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0;
    for at in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    }
    let rest = fraction
        .get(9..)
        .is_some_and(|rest| rest.iter().any(|digit| *digit != b'0'));
    Some(match (negative, nanos, rest) {
        (false, ..) => Time { secs: whole, nanos },
        (true, 0, false) => Time {
            secs: -whole,
            nanos: 0,
        },
        // Always to the earlier nanosecond.
        (true, _, rest) => {
            let nanos = nanos + u32::from(rest);
            match nanos {
                1_000_000_000 => Time {
                    secs: -whole - 1,
                    nanos: 0,
                },
                _ => Time {
                    secs: -whole - 1,
                    nanos: 1_000_000_000 - nanos,
                },
            }
        }
    })
}

/// GNU tar writes `=` and `%` in the names of xattrs as `%3D` and `%25`, since a key ends at the
/// first `=`.
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"%3D") {
            plain.push(b'=');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix(b"%25") {
            plain.push(b'%');
            rest = tail;
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len.to_string().len() + rest != len {
            len += 1;
        }
        [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_are_any_bytes() {
        let value: Vec<u8> = (0..=255).collect();
        let bytes = [
            record("SCHILY.xattr.user.a%3Db%25", &value),
            record("path", b"a\nb"),
            record("comment", b""),
            record("SCHILY.xattr.user.empty", b""),
            record("SCHILY.xattr.user.a=b", b"x"),
        ]
        .concat();
        let records = PaxRecords::parse(&bytes, 1).unwrap();
        assert_eq!(records.path.unwrap(), b"a\nb");
        let want = [
            (b"user.a=b%".to_vec(), value),
            (b"user.empty".to_vec(), Vec::new()),
            (b"user.a".to_vec(), b"b=x".to_vec()),
        ];
        assert_eq!(records.xattrs, want);
    }

    #[test]
    fn times_have_a_sign_and_nanoseconds() {
        type Parts = Option<(i64, u32)>;
        let table: [(&[u8], Parts); 13] = [
            (b"0", Some((0, 0))),
            (b"1.5", Some((1, 500_000_000))),
            (b"1.000000001", Some((1, 1))),
            (b"1.0000000019", Some((1, 1))),
            (b"1.", Some((1, 0))),
            (b"-1", Some((-1, 0))),
            (b"-1.5", Some((-2, 500_000_000))),
            (b"-0.000000001", Some((-1, 999_999_999))),
            (b"-1.0000000001", Some((-2, 999_999_999))),
            (b"-1.9999999999", Some((-2, 0))),
            (b".5", None),
            (b"1.x", None),
            (b"99999999999999999999", None),
        ];
        for (text, want) in table {
            let want = want.map(|(secs, nanos)| Time { secs, nanos });
            assert_eq!(time(text), want, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\n6",
            b"99 a=b\n",
            b"6 a=bc\n",
            b"5 =b\n",
            b"4 ab\n",
            b"-6 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b"99999999999999999999999 a=b\n",
        ] {
            assert!(
                PaxRecords::parse(bytes, 1).is_err(),
                "{}",
                bytes.escape_ascii()
            );
        }
        for (key, value) in [
            ("size", &b"-1"[..]),
            ("size", b"1 "),
            ("size", b"18446744073709551616"),
            ("uid", b"4294967295"),
            ("uid", b"x"),
            ("mtime", b"now"),
            ("path", b"a\0b"),
            ("linkpath", b"\0"),
            ("SCHILY.xattr.", b"x"),
            ("GNU.sparse.numbytes", b"1"),
            ("GNU.sparse.map", b"0,1,"),
            ("GNU.sparse.map", b"0,1,2,1,4,1"),
        ] {
            assert!(PaxRecords::parse(&record(key, value), 1).is_err(), "{key}");
        }
        let large = record("SCHILY.xattr.user.large", &[b'x'; 65537]);
        assert!(PaxRecords::parse(&large, 1).is_err());
    }
}
