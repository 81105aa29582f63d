//! One directory of a layer, as what it says: entries, and marks of every form.

use std::collections::BTreeSet;

use super::error::{Context as _, Result};
use crate::layer::ReadOnlyDir;
use crate::layer::dir::Name;
use crate::layer::marks::names::meaning_in;
use crate::layer::marks::{DirMarks, NameMeaning, dir_marks};
use crate::layer::xattr::XattrPath;

/// What a directory of a layer holds. A name that is hidden and there as well is a directory that
/// hides what lies below it, or something else that needs no whiteout.
#[derive(Default)]
pub(crate) struct LayerListing {
    /// It hides everything below it.
    pub(crate) opaque: bool,
    /// Names that are hidden.
    pub(crate) whiteouts: BTreeSet<Name>,
    /// Names that are there.
    pub(crate) entries: BTreeSet<Name>,
    /// What its xattrs say.
    pub(crate) marks: DirMarks,
}

impl LayerListing {
    /// Reads it; `plain_names` says that `.wh.` names are ordinary ones.
    pub(crate) fn read(dir: &ReadOnlyDir, plain_names: bool) -> Result<Self> {
        let xattrs = dir.xattrs().context("open", b".")?;
        let names = xattrs.list().context("listxattr", b".")?;
        Self::of(dir, &xattrs, &names, plain_names)
    }

    /// The same where the names of its xattrs are known.
    pub(crate) fn of(
        dir: &ReadOnlyDir,
        xattrs: &XattrPath,
        names: &[u8],
        plain_names: bool,
    ) -> Result<Self> {
        let marks = dir_marks(names, |name| xattrs.get(name).unwrap_or_default());
        let mut listing = Self {
            opaque: marks.opaque,
            marks,
            ..Self::default()
        };
        let mut closer = Vec::new();
        dir.for_each(|name, kind, _| match meaning_in(name, plain_names) {
            NameMeaning::Whiteout(hidden) => {
                listing.whiteouts.insert(Name::from(hidden));
            }
            NameMeaning::Opaque => listing.opaque = true,
            NameMeaning::Leftover => {}
            NameMeaning::Plain => {
                if marks.may_be_whiteout(kind) {
                    closer.push(Name::from(name));
                } else {
                    listing.entries.insert(Name::from(name));
                }
            }
        })
        .context("getdents", b".")?;
        for name in closer {
            let hides = marks.is_whiteout(dir, &name);
            match hides.context("stat", &name)? {
                true => listing.whiteouts.insert(name),
                false => listing.entries.insert(name),
            };
        }
        Ok(listing)
    }
}
