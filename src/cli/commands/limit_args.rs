//! How much an archive may ask for: the options that the messages of refused archives name.

use clap::Args;

use crate::archive::Limits;

/// How much an archive may ask for.
#[derive(Clone, Debug, Args)]
pub(super) struct LimitArgs {
    /// Most bytes of a layer after decompression
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64G", help_heading = "Limits")]
    pub max_size: u64,
    /// Most headers of a layer
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = Limits::default().entries,
        help_heading = "Limits"
    )]
    pub max_entries: u64,
    /// Most bytes of a path
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = Limits::default().path,
        help_heading = "Limits"
    )]
    pub max_path: usize,
    /// Most bytes of the extended header of an entry
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1M", help_heading = "Limits")]
    pub max_pax: u64,
    /// Most pieces of data of a sparse file
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = Limits::default().extents,
        help_heading = "Limits"
    )]
    pub max_extents: usize,
    /// Take names that begin with / from the layer's root (as nix writes them) instead of refusing
    /// them
    #[arg(long, help_heading = "Limits")]
    pub absolute_names: bool,
}

impl LimitArgs {
    /// As the archive room takes them.
    #[must_use]
    pub(super) fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_size,
            entries: self.max_entries,
            path: self.max_path,
            pax: usize::try_from(self.max_pax).unwrap_or(usize::MAX),
            extents: self.max_extents,
            absolute: self.absolute_names,
            ..Limits::default()
        }
    }
}

/// A number of bytes, with a suffix K, M, G or T.
///
/// # Errors
/// What is accepted.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a number of bytes such as 4096, 512M or 64G".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, want) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("1k", Some(1024)),
            ("3M", Some(3 << 20)),
            ("64G", Some(64 << 30)),
            ("2T", Some(2 << 40)),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1.5G", None),
            ("99999999999T", None),
            ("1ß", None),
        ] {
            assert_eq!(size(text).ok(), want, "{text}");
        }
        assert_eq!(size("64G").unwrap(), Limits::default().bytes);
        assert_eq!(size("1M").unwrap(), Limits::default().pax as u64);
        assert_eq!(size("8M").unwrap(), Limits::default().json as u64);
    }
}
