//! Reading the value of one option: numbers, switches, times, id mappings. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::lex::{split_paths, unescape};
use crate::fuse::init::capability_names;
use crate::union::config::{IdRange, Volume};

/// Largest id that a file can have: the one above it means "no id" to every system call.
const MAX_ID: u32 = u32::MAX - 1;

/// Largest cache time, in seconds (a hundred years): longer ones would overflow times in the
/// kernel.
const MAX_TIMEOUT: f64 = 100.0 * 365.0 * 86400.0;

/// A switch: `1`, `on`, `yes`, `true` or `0`, `off`, `no`, `false`; without a value it is on.
///
/// # Errors
/// What is accepted, when the value is none of these.
pub(crate) fn switch(value: Option<&[u8]>) -> Result<bool, String> {
    match value {
        None | Some(b"1" | b"on" | b"yes" | b"true") => Ok(true),
        Some(b"0" | b"off" | b"no" | b"false") => Ok(false),
        Some(_) => Err("0 or 1".to_owned()),
    }
}

/// A whole number between `min` and `max`, both included, in decimal.
///
/// # Errors
/// What is accepted, when the value is no such number.
pub(crate) fn number(value: &[u8], min: u32, max: u32) -> Result<u32, String> {
    decimal(value)
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("a number from {min} to {max}"))
}

/// A user or group id.
///
/// # Errors
/// What is accepted, when the value is no id.
pub(crate) fn id(value: &[u8]) -> Result<u32, String> {
    number(value, 0, MAX_ID)
}

/// A time in seconds, possibly with a fraction.
///
/// # Errors
/// What is accepted, when the value is no such time.
pub(crate) fn seconds(value: &[u8]) -> Result<Duration, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|seconds| *seconds >= 0.0 && seconds.is_finite())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.min(MAX_TIMEOUT)).ok())
        .ok_or_else(|| "a time in seconds, such as 0, 0.5 or 86400".to_owned())
}

/// A volume: `SOURCE:TARGET`, or `SOURCE:TARGET:ro` (or `:rw`); `\:` stands for a colon in a path.
/// The target is a path from the union's root.
///
/// # Errors
/// What is accepted, when the value is no such thing.
pub(crate) fn volume(value: &[u8]) -> Result<Volume, String> {
    let accepted = || "SOURCE:TARGET or SOURCE:TARGET:ro, such as /srv/data:/data".to_owned();
    let parts = split_paths(value);
    let (source, target, read_only) = match parts.as_slice() {
        [source, target] => (source, target, false),
        [source, target, mode] => match mode.as_slice() {
            b"ro" => (source, target, true),
            b"rw" => (source, target, false),
            _ => return Err(accepted()),
        },
        _ => return Err(accepted()),
    };
    if source.is_empty() || !target.starts_with(b"/") || target.contains(&0) || source.contains(&0)
    {
        return Err(accepted());
    }
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    Ok(Volume {
        source: path(source),
        target: path(target),
        read_only,
    })
}

/// Id mappings: triples `DISK:SEEN:LEN`, joined by `:` or by an escaped (or quoted) comma; a colon
/// before or behind a triple means nothing (containers/storage begins the list with one). Accepted
/// are the mappings that a user namespace can have: no overlap among the stored ids, none among the
/// seen ones.
///
/// # Errors
/// What is accepted, when the value is no such list.
pub(crate) fn id_ranges(value: &[u8]) -> Result<Vec<IdRange>, String> {
    let accepted =
        || "triples DISK:SEEN:LENGTH joined by colons, such as 0:100000:65536".to_owned();
    let mut numbers = Vec::new();
    for part in unescape(value).split(|&byte| byte == b':' || byte == b',') {
        // Between triples an empty part is a separator too many; within one, a number is missing.
        if part.is_empty() && numbers.len() % 3 == 0 {
            continue;
        }
        numbers.push(decimal(part).ok_or_else(accepted)?);
    }
    let (triples, []) = numbers.as_chunks::<3>() else {
        return Err(accepted());
    };
    let mut ranges: Vec<IdRange> = Vec::with_capacity(triples.len());
    for &[disk, seen, len] in triples {
        let range = IdRange { disk, seen, len };
        if len == 0 || !fits(disk, len) || !fits(seen, len) {
            return Err(format!(
                "ranges of 1 or more ids within 0 to {MAX_ID}, unlike {disk}:{seen}:{len}"
            ));
        }
        if ranges.iter().any(|other| overlaps(other, &range)) {
            return Err(format!(
                "ranges that do not overlap, unlike {disk}:{seen}:{len}"
            ));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn fits(first: u32, len: u32) -> bool {
    first
        .checked_add(len - 1)
        .is_some_and(|last| last <= MAX_ID)
}

fn overlaps(one: &IdRange, other: &IdRange) -> bool {
    let meet =
        |a: u32, a_len: u32, b: u32, b_len: u32| a <= b + (b_len - 1) && b <= a + (a_len - 1);
    meet(one.disk, one.len, other.disk, other.len) || meet(one.seen, one.len, other.seen, other.len)
}

/// Digits only: `parse` alone would take a sign.
fn decimal(value: &[u8]) -> Option<u32> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Names of kernel capabilities, with colons between them.
pub(crate) fn capabilities(given: &[u8]) -> Result<Vec<String>, String> {
    let names = String::from_utf8_lossy(given);
    names
        .split(':')
        .map(|name| {
            if capability_names().any(|known| known == name) {
                return Ok(name.to_owned());
            }
            let known: Vec<_> = capability_names().collect();
            Err(format!("names of {}", known.join(", ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn ranges(value: &str) -> Option<Vec<(u32, u32, u32)>> {
        let ranges = id_ranges(value.as_bytes()).ok()?;
        Some(
            ranges
                .iter()
                .map(|range| (range.disk, range.seen, range.len))
                .collect(),
        )
    }

    #[test]
    fn id_mappings() {
        let two = Some(vec![(0, 1000, 1), (1, 100_000, 65536)]);
        let cases = [
            ("0:100000:1000", Some(vec![(0, 100_000, 1000)])),
            (":0:100000:1000", Some(vec![(0, 100_000, 1000)])),
            (":0:1000:1:1:100000:65536", two.clone()),
            ("0:1000:1::1:100000:65536:", two.clone()),
            (r"0:1000:1\,1:100000:65536", two.clone()),
            ("0:1000:1,1:100000:65536", two),
            ("0:0:4294967295", Some(vec![(0, 0, u32::MAX)])),
            ("", Some(vec![])),
            ("0:0:0", None),
            ("0:1", None),
            ("0:1:2:3", None),
            ("0::1:2", None),
            ("a:b:c", None),
            ("0:-1:5", None),
            ("0:+1:5", None),
            ("4294967295:0:1", None),
            ("1:0:4294967295", None),
            ("0:0:4294967296", None),
            ("0:0:10:5:100:10", None),
            ("0:0:10:10:9:10", None),
        ];
        for (value, expected) in cases {
            assert_eq!(ranges(value), expected, "{value}");
        }
    }

    #[test]
    fn volumes() {
        let cases = [
            ("/a:/b", Some(("/a", "/b", false))),
            ("a:/b:ro", Some(("a", "/b", true))),
            ("/a:/b:rw", Some(("/a", "/b", false))),
            (r"/a\:b:/c\,d", Some(("/a:b", "/c,d", false))),
            ("/a", None),
            ("/a:b", None),
            (":/b", None),
            ("/a:", None),
            ("/a:/b:z", None),
            ("/a:/b:ro:ro", None),
        ];
        for (value, expected) in cases {
            let expected = expected.map(|(source, target, read_only)| Volume {
                source: source.into(),
                target: target.into(),
                read_only,
            });
            assert_eq!(volume(value.as_bytes()).ok(), expected, "{value}");
        }
    }

    #[test]
    fn times() {
        let cases = [
            ("0", Some(Duration::ZERO)),
            ("0.25", Some(Duration::from_millis(250))),
            ("86400", Some(Duration::from_secs(86400))),
            ("1e30", Some(Duration::from_secs(100 * 365 * 86400))),
            ("-1", None),
            ("inf", None),
            ("nan", None),
            ("1s", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(seconds(value.as_bytes()).ok(), expected, "{value}");
        }
    }

    #[test]
    fn numbers_and_switches() {
        assert_eq!(number(b"8", 1, 64), Ok(8));
        for wrong in ["", "0", "65", "abc", "-1", "+8", "8 ", "0x8", "99999999999"] {
            assert_eq!(
                number(wrong.as_bytes(), 1, 64).unwrap_err(),
                "a number from 1 to 64",
                "{wrong}"
            );
        }
        assert_eq!(id(b"4294967294"), Ok(u32::MAX - 1));
        assert!(id(b"4294967295").is_err());
        assert_eq!(switch(None), Ok(true));
        assert_eq!(switch(Some(b"off")), Ok(false));
        assert!(switch(Some(b"maybe")).is_err());
    }
}
