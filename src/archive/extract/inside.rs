//! Names of an archive, made safe.

use crate::archive::error::{Error, Result};

/// A name of an archive, made safe: the components below the root, joined by single slashes; empty
/// for the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerPath(Vec<u8>);

impl LayerPath {
    /// Reads a name as it stands in an archive.
    ///
    /// # Errors
    /// `..`, a component that no disk can store, and an absolute name unless `absolute` allows it:
    /// it is then taken from the root of the layer.
    pub(super) fn new(name: &[u8], absolute: bool) -> Result<Self> {
        if name.is_empty() {
            return Err(Error::malformed("it has no name"));
        }
        if name.starts_with(b"/") && !absolute && name.iter().any(|byte| *byte != b'/') {
            return Err(
                Error::refused("its name is absolute, and may be meant for another place")
                    .with_hint("take such names from the layer's root with --absolute-names"),
            );
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(Error::refused("its name leads upwards by '..'")),
                _ if component.contains(&0) => {
                    return Err(Error::malformed("its name has a NUL byte"));
                }
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(component);
                }
            }
        }
        Ok(Self(path))
    }

    /// The root.
    #[must_use]
    pub(super) fn root() -> Self {
        Self(Vec::new())
    }

    /// One that was made by [`LayerPath::new`] before.
    #[must_use]
    pub(super) fn known(path: &[u8]) -> Self {
        Self(path.to_vec())
    }

    /// The directory it is in, and its name there; `None` for the root.
    #[must_use]
    pub(super) fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Self(self.0[..slash].to_vec()), &self.0[slash + 1..]),
            None => (Self(Vec::new()), &self.0),
        })
    }

    /// A name in this directory.
    #[must_use]
    pub(super) fn child(&self, name: &[u8]) -> Self {
        if self.0.is_empty() {
            return Self(name.to_vec());
        }
        Self([&self.0, &b"/"[..], name].concat())
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components.
    pub(super) fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// Whether it is the root.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is `other`, or below it.
    pub(super) fn is_at_or_below(&self, other: &Self) -> bool {
        match self.0.strip_prefix(&other.0[..]) {
            Some(rest) => rest.is_empty() || rest.starts_with(b"/") || other.0.is_empty(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn inside(name: &str) -> LayerPath {
        LayerPath::new(name.as_bytes(), false).unwrap()
    }

    #[test]
    fn names_are_made_safe() {
        for (name, want) in [
            ("a", "a"),
            ("./a//b/./c/", "a/b/c"),
            (".", ""),
            ("./", ""),
            ("/", ""),
            ("..a/...", "..a/..."),
        ] {
            assert_eq!(inside(name).0, want.as_bytes().to_vec(), "{name}");
        }
        for name in ["", "/a", "//a", "..", "a/..", "a/../b", "../a", "./../a"] {
            assert!(LayerPath::new(name.as_bytes(), false).is_err(), "{name}");
        }
        assert_eq!(LayerPath::new(b"/a", true).unwrap().0, b"a".to_vec());
        assert!(LayerPath::new(b"/a/../b", true).is_err());
        assert!(!inside("ab/c").is_at_or_below(&inside("a")));
        assert!(inside("a/c").is_at_or_below(&inside("a")));
    }
}
