//! The marks of one directory of a layer, as they stand there: each with its form.

use rustix::io::Result;

use super::names::{NameMeaning, OPAQUE_FILE, meaning_in, whiteout_name};
use super::read::{OPAQUE_XATTRS, REDIRECT_XATTRS, has_whiteout_xattr};
use crate::layer::dir::{Dir, Name};
use crate::layer::stat::Kind;

/// What a directory holds, sorted by what it means.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Names hidden by a `.wh.` file.
    pub(crate) beside: Vec<Name>,
    /// Names hidden by a 0/0 device.
    pub(crate) devices: Vec<Name>,
    /// Names hidden by an empty file with an xattr.
    pub(crate) xattr_files: Vec<Name>,
    /// `.wh..wh..opq` is there.
    pub(crate) opaque_file: bool,
    /// The xattrs that make the directory opaque.
    pub(crate) opaque_xattrs: Vec<&'static [u8]>,
    /// The xattrs that say that empty files in it may be whiteouts.
    pub(crate) announcing_xattrs: Vec<&'static [u8]>,
    /// Other `.wh..wh.` names: leftovers without meaning.
    pub(crate) leftovers: Vec<Name>,
    /// It was renamed, and continues below under another name.
    pub(crate) redirected: bool,
    /// Entries that are directories.
    pub(crate) directories: Vec<Name>,
}

impl Marks {
    /// Whether there is a mark of any form, or a leftover.
    pub(crate) fn any(&self) -> bool {
        let names = [
            &self.beside,
            &self.devices,
            &self.xattr_files,
            &self.leftovers,
        ];
        let xattrs = [&self.opaque_xattrs, &self.announcing_xattrs];
        self.opaque_file
            || names.iter().any(|names| !names.is_empty())
            || xattrs.iter().any(|xattrs| !xattrs.is_empty())
    }

    /// Reads a directory. Where `plain_names` holds, `.wh.` names are ordinary entries.
    pub(crate) fn read(dir: &Dir, plain_names: bool) -> Result<Self> {
        let mut marks = Self::default();
        let xattrs = dir.xattrs()?;
        for xattr in OPAQUE_XATTRS {
            match xattrs.get_opt(xattr)?.as_deref() {
                Some(b"y") => marks.opaque_xattrs.push(xattr),
                Some(b"x") => marks.announcing_xattrs.push(xattr),
                _ => {}
            }
        }
        for xattr in REDIRECT_XATTRS {
            marks.redirected |= xattrs.get_opt(xattr.as_bytes())?.is_some();
        }
        let mut closer = Vec::new();
        dir.for_each(|name, kind, _| {
            let name = Name::from(name);
            match meaning_in(&name, plain_names) {
                NameMeaning::Whiteout(hidden) => marks.beside.push(Name::from(hidden)),
                NameMeaning::Opaque => marks.opaque_file = true,
                NameMeaning::Leftover => marks.leftovers.push(name),
                NameMeaning::Plain => match kind {
                    Some(Kind::Dir) => marks.directories.push(name),
                    Some(Kind::Char | Kind::File) | None => closer.push(name),
                    Some(_) => {}
                },
            }
        })?;
        for name in closer {
            let stat = dir.stat_on_disk(&name)?;
            if stat.is_whiteout_device() {
                marks.devices.push(name);
            } else if stat.kind() == Kind::Dir {
                marks.directories.push(name);
            } else if stat.kind() == Kind::File
                && stat.size == 0
                && !marks.announcing_xattrs.is_empty()
                && has_whiteout_xattr(&dir.xattrs_of(&name)?)?
            {
                marks.xattr_files.push(name);
            }
        }
        Ok(marks)
    }

    /// How many marks have the form of `.wh.` files, and how many are devices or xattrs. A name
    /// that is too long for a `.wh.` file counts for neither: there is one form for it.
    pub(crate) fn by_form(&self) -> (usize, usize) {
        let short = |names: &[Name]| {
            let fit = names.iter().filter(|name| whiteout_name(name).is_some());
            fit.count()
        };
        (
            self.beside.len() + usize::from(self.opaque_file),
            short(&self.devices) + short(&self.xattr_files) + self.opaque_xattrs.len(),
        )
    }

    /// The file of a mark of the form `wh`, for messages.
    pub(crate) fn example_beside(&self) -> Option<Vec<u8>> {
        match self.beside.first() {
            Some(name) => whiteout_name(name),
            None => self.opaque_file.then(|| OPAQUE_FILE.to_vec()),
        }
    }
}
