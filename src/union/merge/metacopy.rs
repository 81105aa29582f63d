//! Files of which a layer has the attributes only: kernel overlayfs's `metacopy` (`overlayfs.rst`,
//! "Metadata only copy up"), composefs images.
//!
//! Such a file has the right size and no bytes; those are found in the layers below, under the same
//! name or where a redirect leads. They are read in any layer; none are written here.
//!
//! # Crash
//! Before such a file of the upper is changed, it gets its bytes, in place, as its other names
//! share them. The xattr that says that it has none goes last, when the bytes are on disk (unless
//! the union is volatile): killed before, the bytes are still looked for below.

use crate::union::node::inode::Bytes;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::layer::ReadOnlyDir;
use crate::layer::dir::{Dir, Name, Source};
use crate::layer::marks;
use crate::layer::stat::{Kind, Stat};
use crate::layer::xattr::XattrPath;
use crate::union::Union;
use crate::union::error::{Context, Result};
use crate::union::merge::redirect;
use crate::union::node::inode::{FileState, Real};

fn is_metacopy(xattrs: &XattrPath) -> rustix::io::Result<bool> {
    xattrs.any(marks::read::is_metacopy_xattr)
}

fn redirect_of(xattrs: &XattrPath) -> Option<Name> {
    marks::read::redirect(xattrs).map(Name::from)
}

/// A file of the layers below that goes by a name.
struct Below {
    dir: ReadOnlyDir,
    stack: Vec<ReadOnlyDir>,
    name: Name,
}

impl Union {
    /// Where the bytes of an entry are, if not in itself. `siblings` are the lower directories of
    /// its directory. Costs nothing for a file that has as many blocks as it needs, unless its
    /// directory holds copies (`impure`).
    pub(super) fn bytes_of(
        &self,
        dir: &Dir,
        name: &Name,
        stat: &Stat,
        impure: bool,
        siblings: &[ReadOnlyDir],
    ) -> Result<Option<Bytes>> {
        let sparse = stat.blocks * 512 < stat.size;
        if stat.kind() != Kind::File || stat.size == 0 || !(sparse || impure) {
            return Ok(None);
        }
        let xattrs = dir.xattrs_of(name).context("open directory", b".")?;
        if !is_metacopy(&xattrs).context("listxattr", name)? {
            return Ok(None);
        }
        let mut above = dir.source();
        let mut siblings = siblings.to_vec();
        let mut name = Name::clone(name);
        let mut target = redirect_of(&xattrs);
        for _ in 0..redirect::DEPTH {
            let Some(below) = self.find_below(&siblings, above, &name, target.as_ref())? else {
                break;
            };
            let xattrs = below
                .dir
                .xattrs_of(&below.name)
                .context("open directory", b".")?;
            if !is_metacopy(&xattrs).context("listxattr", &below.name)? {
                return Ok(Some(Bytes::At(below.dir, below.name)));
            }
            target = redirect_of(&xattrs);
            above = below.dir.source();
            (siblings, name) = (below.stack, below.name);
        }
        log::warn!("{} has no bytes in any layer", name.escape_ascii());
        Ok(Some(Bytes::Missing))
    }

    /// The newest file below layer `above` that a name, or the redirect it carries, leads to.
    fn find_below(
        &self,
        siblings: &[ReadOnlyDir],
        above: Source,
        name: &Name,
        target: Option<&Name>,
    ) -> Result<Option<Below>> {
        let name = Name::clone(target.unwrap_or(name));
        let (stack, name) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(at) => {
                let parent = [b"/", &name[..at]].concat();
                let stack = self.resolve(siblings, above, &parent, redirect::DEPTH)?;
                (stack, Name::from(&name[at + 1..]))
            }
            None => (siblings.to_vec(), name),
        };
        for dir in stack.iter().filter(|dir| dir.source() > above) {
            match dir.stat_on_disk(&name) {
                Ok(stat) if stat.kind() == Kind::File => {
                    return Ok(Some(Below {
                        dir: dir.clone(),
                        stack: stack.clone(),
                        name,
                    }));
                }
                Ok(_) => break,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context("stat", &name),
            }
        }
        if target.is_some_and(|target| target.starts_with(b"/")) {
            return self.find_data_only(target);
        }
        Ok(None)
    }

    /// A file of a layer that is there for its bytes only, by its path from the layer's root.
    fn find_data_only(&self, target: Option<&Name>) -> Result<Option<Below>> {
        let path: Vec<Name> = target
            .into_iter()
            .flat_map(|target| target.split(|byte| *byte == b'/'))
            .filter(|name| !name.is_empty())
            .map(Name::from)
            .collect();
        let Some((name, dirs)) = path.split_last() else {
            return Ok(None);
        };
        for root in &self.layers.data_only {
            let dir = dirs.iter().fold(root.clone(), |dir, name| dir.child(name));
            match dir.stat_on_disk(name) {
                Ok(stat) if stat.kind() == Kind::File => {
                    return Ok(Some(Below {
                        dir,
                        stack: Vec::new(),
                        name: Name::clone(name),
                    }));
                }
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno).context("stat", name),
            }
        }
        Ok(None)
    }

    /// Opens the bytes of a lower file, or of an upper one that has none of its own.
    pub(in crate::union) fn open_bytes(state: &FileState) -> rustix::io::Result<OwnedFd> {
        match (&state.bytes, &state.real) {
            (Some(Bytes::At(dir, name)), _) | (None, Real::Lower { dir, name }) => {
                dir.open_entry(name)
            }
            (Some(Bytes::Missing), _) => Err(Errno::IO),
            (None, _) => Err(Errno::BADF),
        }
    }
}
