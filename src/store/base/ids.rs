//! Random ids, and names for containers that were given none.

use serde::{Serialize, Serializer};

use super::error::{Result, StoreError};
use crate::archive::Digest;
use std::fmt;

use rustix::rand::{GetRandomFlags, getrandom};

/// Bytes of an id; it is written as twice as many hexadecimal digits.
const BYTES: usize = 32;
/// Digits that tables and the directories of layers show.
pub(crate) const SHORT: usize = 12;

/// First words of made-up names.
const QUALITIES: [&str; 32] = [
    "amber", "brisk", "calm", "candid", "clever", "cosy", "dapper", "eager", "early", "fleet",
    "frank", "gentle", "glad", "hardy", "honest", "jolly", "keen", "lively", "lucid", "mellow",
    "neat", "nimble", "plucky", "polite", "proud", "quiet", "ready", "robust", "sunny", "swift",
    "tidy", "witty",
];

/// Second words of made-up names.
const THINGS: [&str; 32] = [
    "acorn", "badger", "beacon", "birch", "brook", "cedar", "comet", "curlew", "dune", "falcon",
    "fjord", "garnet", "harbour", "heron", "island", "juniper", "kestrel", "lantern", "maple",
    "meadow", "otter", "pebble", "plover", "quarry", "raven", "river", "saddle", "sparrow",
    "summit", "thistle", "valley", "willow",
];

/// A digest that stands for one sort of thing, so that it is not taken for another one's.
macro_rules! named_digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(Digest);

        impl $name {
            /// The digest itself.
            #[must_use]
            pub(crate) fn digest(self) -> Digest {
                self.0
            }

            /// The digits that tables show.
            #[must_use]
            pub(crate) fn short(self) -> String {
                self.0.short()
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                Self(digest)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                self.0.serialize(to)
            }
        }
    };
}

named_digest! {
    /// The digest of a layer's uncompressed tar, by which a layer is known.
    DiffId
}

named_digest! {
    /// The digest of an image's configuration, by which an image is known.
    ImageId
}

/// 64 random hexadecimal digits.
///
/// # Errors
/// Those of getrandom(2).
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0_u8; BYTES];
    let mut filled = 0;
    while filled < BYTES {
        let rest = bytes.get_mut(filled..).unwrap_or_default();
        filled += getrandom(rest, GetRandomFlags::empty()).map_err(|errno| {
            StoreError::failed(
                "getrandom",
                errno,
                "run on Linux 3.17 or later, and let the sandbox permit the call",
            )
        })?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The part of an id that is shown.
#[must_use]
pub(crate) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..SHORT).unwrap_or(hex)
}

/// A name of two words, taken from an id; `attempt` 1 and later add a number, for when the plain
/// one is taken.
#[must_use]
pub(crate) fn name_for(id: &str, attempt: u32) -> String {
    let digit = |at: usize| {
        id.get(at..at + 4)
            .and_then(|hex| usize::from_str_radix(hex, 16).ok())
            .unwrap_or(0)
    };
    let quality = QUALITIES
        .get(digit(0) % QUALITIES.len())
        .unwrap_or(&"plain");
    let thing = THINGS.get(digit(4) % THINGS.len()).unwrap_or(&"stone");
    match attempt {
        0 => format!("{quality}_{thing}"),
        _ => format!("{quality}_{thing}{attempt}"),
    }
}

/// Checks the name of a container or volume.
///
/// # Errors
/// It is not valid.
pub(crate) fn check_name(name: &str, what: &str) -> Result<()> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && name.len() <= 128 {
        return Ok(());
    }
    Err(StoreError::invalid(
        format!("'{}' cannot be the name of a {what}", name.escape_debug()),
        "use letters, digits, '_', '.' and '-', a letter or digit first",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_differ_and_names_follow_from_them() {
        let id = random_id().unwrap();
        assert_eq!(id.len(), 64);
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        );
        assert_ne!(id, random_id().unwrap());
        assert_eq!(short(&id), &id[..12]);
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(name_for("0001000200", 0), "brisk_beacon");
        assert_eq!(name_for("0001000200", 3), "brisk_beacon3");
    }
}
