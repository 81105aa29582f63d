//! The stack rule: which entries of which layers form a merged directory. Pure, without any system
//! call.
//!
//! Layers are fed newest first. A name is decided by the first layer that has it; directory over
//! directory merges; a whiteout hides a name in the layers below its own, never in its own layer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::layer::dir::{Name, Source};
use crate::layer::marks::Mark;
use crate::layer::stat::Kind;

/// An entry as a layer has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::union) struct Found {
    /// Its type.
    pub(in crate::union) kind: Kind,
    /// Its inode number on the layer's disk.
    pub(in crate::union) ino: u64,
}

/// What the lower layers show under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::union) struct LowerFound {
    /// The newest of them that has it.
    pub(in crate::union) top: Source,
    /// What that one has.
    pub(in crate::union) found: Found,
    /// What only a directory has. Most names are of something else, and a listing costs by the
    /// name.
    dir: Option<Box<LowerStack>>,
}

/// What a lower directory consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LowerStack {
    /// Every layer that contributes to it, newest first.
    layers: Vec<Source>,
    /// Where its lower part continues when its oldest contributor was renamed.
    redirect: Option<Redirect>,
}

impl LowerFound {
    /// For a directory: every layer that contributes to it, newest first.
    pub(in crate::union) fn layers(&self) -> &[Source] {
        self.dir.as_ref().map_or(&[], |dir| &dir.layers)
    }

    /// For a directory whose oldest contributor was renamed: where its lower part continues.
    pub(in crate::union) fn redirect(&self) -> Option<&Redirect> {
        self.dir.as_ref()?.redirect.as_ref()
    }
}

/// A directory of `layer` that continues below under another name (`overlayfs.rst`,
/// "redirect_dir").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::union) struct Redirect {
    /// The layer whose directory carries the redirect.
    pub(in crate::union) layer: Source,
    /// A sibling's name, or a path from the layer's root when it starts with a slash.
    pub(in crate::union) target: Name,
}

/// Everything the stack says about one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::union) struct Merged {
    /// The upper's entry.
    pub(in crate::union) upper: Option<Found>,
    /// A whiteout of the upper.
    pub(in crate::union) mark: Option<Mark>,
    /// The redirect that the upper's directory carries.
    pub(in crate::union) upper_redirect: Option<Box<Redirect>>,
    /// What shows, or would show if the upper had nothing of this name.
    pub(in crate::union) lower: Option<LowerFound>,
    closed: bool,
}

impl Merged {
    /// Whether it says more than that lower layers hide the name.
    fn is_known(&self) -> bool {
        self.upper.is_some() || self.mark.is_some() || self.lower.is_some()
    }
}

impl AsMut<Self> for Merged {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

/// Merges the listings of one directory's layers, into what the caller keeps for a name.
#[derive(Debug)]
pub(in crate::union) struct Merger<T> {
    names: HashMap<Name, T>,
    /// In the order in which the layers listed them: the order of the disk, which is the fastest to
    /// visit.
    order: Vec<Name>,
    layer: Source,
    hidden: Vec<Name>,
}

impl<T> Default for Merger<T> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            order: Vec::new(),
            layer: Source::Upper,
            hidden: Vec::new(),
        }
    }
}

impl<T: AsMut<Merged> + Default> Merger<T> {
    /// Starts the next layer.
    pub(in crate::union) fn begin(&mut self, layer: Source) {
        self.layer = layer;
    }

    /// An entry of the layer. `redirect` is where the layers below continue it, for a renamed
    /// directory.
    pub(in crate::union) fn entry(
        &mut self,
        name: &[u8],
        kind: Kind,
        ino: u64,
        redirect: Option<Name>,
    ) {
        let layer = self.layer;
        let redirect = redirect.map(|target| Redirect { layer, target });
        let merged = self.name(name);
        if layer == Source::Upper {
            merged.upper = Some(Found { kind, ino });
            merged.upper_redirect = redirect.map(Box::new);
            return;
        }
        if merged.closed {
            return;
        }
        let is_dir = kind == Kind::Dir;
        merged.closed = !is_dir || redirect.is_some();
        let found = Found { kind, ino };
        let lower = merged.lower.get_or_insert(LowerFound {
            top: layer,
            found,
            dir: None,
        });
        if is_dir && lower.found.kind == Kind::Dir {
            let dir = lower.dir.get_or_insert_default();
            dir.layers.push(layer);
            dir.redirect = redirect;
        }
    }

    /// A whiteout of the layer.
    pub(in crate::union) fn whiteout(&mut self, name: &[u8], mark: Mark) {
        if self.layer == Source::Upper {
            self.name(name).mark = Some(mark);
        } else {
            self.hidden.push(Name::from(name));
        }
    }

    /// Ends the layer: from here on its whiteouts hide.
    pub(in crate::union) fn end(&mut self) {
        for name in std::mem::take(&mut self.hidden) {
            self.name(&name).closed = true;
        }
    }

    /// What came of it, and the names in order; without those that nothing is known of but a lower
    /// whiteout.
    pub(in crate::union) fn finish(mut self) -> (HashMap<Name, T>, Vec<Name>) {
        self.names.retain(|_, name| name.as_mut().is_known());
        self.order.retain(|name| self.names.contains_key(name));
        (self.names, self.order)
    }

    fn name(&mut self, name: &[u8]) -> &mut Merged {
        match self.names.entry(Name::from(name)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.order.push(Name::clone(entry.key()));
                entry.insert(T::default())
            }
        }
        .as_mut()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Source::Lower;

    /// Layers in a small language: `d/` directory, `f` file, `-x` whiteout beside, `!x` whiteout in
    /// place.
    fn merge(layers: &[(Source, &[&str])]) -> HashMap<String, Merged> {
        let mut merger = Merger::<Merged>::default();
        for (layer, entries) in layers {
            merger.begin(*layer);
            for (i, entry) in entries.iter().enumerate() {
                if let Some(name) = entry.strip_prefix('-') {
                    merger.whiteout(name.as_bytes(), Mark::Beside);
                } else if let Some(name) = entry.strip_prefix('!') {
                    merger.whiteout(name.as_bytes(), Mark::InPlace);
                } else if let Some(name) = entry.strip_suffix('/') {
                    merger.entry(name.as_bytes(), Kind::Dir, i as u64 + 1, None);
                } else {
                    merger.entry(entry.as_bytes(), Kind::File, i as u64 + 1, None);
                }
            }
            merger.end();
        }
        let (names, _) = merger.finish();
        names
            .into_iter()
            .map(|(name, merged)| (String::from_utf8_lossy(&name).into_owned(), merged))
            .collect()
    }

    fn lower(layers: &[(Source, &[&str])], name: &str) -> Option<(Source, Kind, Vec<Source>)> {
        let merged = merge(layers);
        let lower = merged.get(name)?.lower.clone()?;
        Some((lower.top, lower.found.kind, lower.layers().to_vec()))
    }

    #[test]
    fn the_newest_layer_decides() {
        let layers: &[(Source, &[&str])] = &[(Lower(1), &["a"]), (Lower(2), &["a/", "b"])];
        assert_eq!(lower(layers, "a"), Some((Lower(1), Kind::File, vec![])));
        assert_eq!(lower(layers, "b"), Some((Lower(2), Kind::File, vec![])));
    }

    #[test]
    fn directories_merge_until_something_else_comes() {
        let layers: &[(Source, &[&str])] = &[
            (Lower(1), &["d/"]),
            (Lower(2), &[]),
            (Lower(3), &["d/"]),
            (Lower(4), &["d"]),
            (Lower(5), &["d/"]),
        ];
        assert_eq!(
            lower(layers, "d"),
            Some((Lower(1), Kind::Dir, vec![Lower(1), Lower(3)]))
        );
    }

    #[test]
    fn a_whiteout_hides_only_what_lies_below_its_layer() {
        for order in [&["-d", "d/"][..], &["d/", "-d"][..]] {
            let layers = &[(Lower(1), order), (Lower(2), &["d/"][..])];
            assert_eq!(
                lower(layers, "d"),
                Some((Lower(1), Kind::Dir, vec![Lower(1)]))
            );
        }
        assert_eq!(
            lower(&[(Lower(1), &["-d"]), (Lower(2), &["d/"])], "d"),
            None
        );
        assert_eq!(
            lower(
                &[
                    (Lower(1), &["d/"]),
                    (Lower(2), &["-d"]),
                    (Lower(3), &["d/"])
                ],
                "d"
            ),
            Some((Lower(1), Kind::Dir, vec![Lower(1)]))
        );
    }

    #[test]
    fn the_upper_is_told_apart_from_what_it_covers() {
        let merged = merge(&[
            (Source::Upper, &["f", "-g", "!h", "d/"]),
            (Lower(1), &["f", "g", "d/"]),
        ]);
        assert!(merged["f"].upper.is_some() && merged["f"].lower.is_some());
        assert_eq!(merged["g"].mark, Some(Mark::Beside));
        assert!(merged["g"].upper.is_none() && merged["g"].lower.is_some());
        assert_eq!(merged["h"].mark, Some(Mark::InPlace));
        assert!(merged["h"].lower.is_none());
        assert_eq!(merged["d"].lower.as_ref().unwrap().layers(), [Lower(1)]);
    }

    #[test]
    fn a_lower_whiteout_alone_leaves_no_name() {
        assert!(merge(&[(Lower(1), &["-x"])]).is_empty());
    }

    #[test]
    fn a_redirect_ends_the_stack_of_its_name() {
        let mut merger = Merger::<Merged>::default();
        merger.begin(Lower(1));
        merger.entry(b"d", Kind::Dir, 1, Some(Name::from(&b"old"[..])));
        merger.end();
        merger.begin(Lower(2));
        merger.entry(b"d", Kind::Dir, 2, None);
        merger.end();
        let (names, _) = merger.finish();
        let lower = names[&b"d"[..]].lower.as_ref().unwrap();
        assert_eq!(lower.layers(), [Lower(1)]);
        assert_eq!(lower.redirect().unwrap().layer, Lower(1));
    }
}
