//! What a name in a layer means.

/// Prefix of a whiteout file.
pub(crate) const WH_PREFIX: &[u8] = b".wh.";
/// Prefix of AUFS's own files.
pub(crate) const WH_META_PREFIX: &[u8] = b".wh..wh.";
/// The file that makes its directory opaque.
pub(crate) const OPAQUE_FILE: &[u8] = b".wh..wh..opq";
/// Longest name a directory entry can have (`NAME_MAX` of Linux).
pub(crate) const NAME_MAX: usize = 255;

/// What a name in a layer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameMeaning<'a> {
    /// An entry.
    Plain,
    /// The layers below have no entry of this name.
    Whiteout(&'a [u8]),
    /// The directory hides everything below it.
    Opaque,
    /// A leftover that is never shown.
    Leftover,
}

/// Returns what a name means that stands in a layer.
#[must_use]
pub(crate) fn meaning(name: &[u8]) -> NameMeaning<'_> {
    if name == OPAQUE_FILE {
        return NameMeaning::Opaque;
    }
    if name.starts_with(WH_META_PREFIX) {
        return NameMeaning::Leftover;
    }
    match name.strip_prefix(WH_PREFIX) {
        // `.wh.`, `.wh..` and `.wh...` would name nothing, the directory itself or its parent.
        Some(b"" | b"." | b"..") => NameMeaning::Leftover,
        Some(hidden) => NameMeaning::Whiteout(hidden),
        None => NameMeaning::Plain,
    }
}

/// As [`meaning`], in a layer where `.wh.` names are ordinary ones if `plain_names` holds.
#[must_use]
pub(crate) fn meaning_in(name: &[u8], plain_names: bool) -> NameMeaning<'_> {
    if plain_names {
        NameMeaning::Plain
    } else {
        meaning(name)
    }
}

/// Returns the name of the whiteout file of a name; `None` when that would be longer than a name
/// may be.
#[must_use]
pub(crate) fn whiteout_name(name: &[u8]) -> Option<Vec<u8>> {
    if name.len() + WH_PREFIX.len() > NAME_MAX {
        return None;
    }
    let mut whiteout = Vec::with_capacity(WH_PREFIX.len() + name.len());
    whiteout.extend_from_slice(WH_PREFIX);
    whiteout.extend_from_slice(name);
    Some(whiteout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_all_forms() {
        let table: [(&[u8], NameMeaning); 11] = [
            (b"a", NameMeaning::Plain),
            (b".wh", NameMeaning::Plain),
            (b".whx", NameMeaning::Plain),
            (b"x.wh.a", NameMeaning::Plain),
            (b".wh.a", NameMeaning::Whiteout(b"a")),
            (b".wh..a", NameMeaning::Whiteout(b".a")),
            (b".wh..wh..opq", NameMeaning::Opaque),
            (b".wh..wh.plnk", NameMeaning::Leftover),
            (b".wh.", NameMeaning::Leftover),
            (b".wh..", NameMeaning::Leftover),
            (b".wh...", NameMeaning::Leftover),
        ];
        for (name, want) in table {
            assert_eq!(meaning(name), want, "{}", name.escape_ascii());
            assert_eq!(meaning_in(name, false), want, "{}", name.escape_ascii());
            assert_eq!(meaning_in(name, true), NameMeaning::Plain);
        }
    }

    #[test]
    fn a_whiteout_name_is_never_too_long() {
        assert_eq!(whiteout_name(b"a").as_deref(), Some(&b".wh.a"[..]));
        assert_eq!(whiteout_name(&[b'x'; 251]).map(|n| n.len()), Some(255));
        assert_eq!(whiteout_name(&[b'x'; 252]), None);
    }
}
