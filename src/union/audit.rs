//! A look at every entry of an upper together with what lies below it: what does nothing, and what
//! leads nowhere.
//!
//! It works on a union that was opened read-only, by the rules that a mount goes by, so that it
//! cannot disagree with one.

use std::collections::HashSet;
use std::sync::Arc;

use crate::layer::WritableDir;
use crate::layer::dir::{Dir, Name, Source};
use crate::layer::marks::own::is_own_xattr;
use crate::layer::marks::root::has_device_marks;
use crate::layer::marks::write::{
    OpaqueValue, create_opaque_file, remove_redirect, set_opaque_xattr,
};
use crate::layer::marks::{Mark, REDIRECT_XATTRS, USER_PREFIX, whiteout_name};
use crate::layer::stat::Kind;
use crate::layer::stat_override::{STAT_OVERRIDE_XATTRS, StatOverride};
use crate::union::Union;
use crate::union::copyup::copy::restore_dir_times;
use crate::union::error::{Context, Result};
use crate::union::node::identity::decode_origin;
use crate::union::node::inode::DirState;
use crate::union::node::stack::Redirect;

/// Something about one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// A whiteout of the upper that hides nothing.
    IdleWhiteout(Mark),
    /// A directory of a layer whose lower part, this path or name, is not there.
    DanglingRedirect(Source, Name),
    /// An xattr of the upper that remembers an `st_ino` for another object, for one that is not
    /// there, or oddly.
    DanglingOrigin(Vec<u8>),
    /// An xattr of the upper that keeps owner and mode and cannot be read.
    OddRecord(&'static [u8]),
}

/// An entry, by the names that lead to it, and what is odd about it.
pub(crate) type Found = (Vec<Name>, Oddity);

impl Union {
    /// Goes through the whole merged tree. What a directory does not show, because its disk does
    /// not let it be read, is an error.
    pub fn audit(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut origins = Vec::new();
        let mut todo = vec![(Arc::clone(&self.nodes.root), Vec::new())];
        while let Some((inode, path)) = todo.pop() {
            let mut directories = Vec::new();
            if let Some(mut state) = inode.lock_dir() {
                self.load_all(&mut state)?;
                self.audit_dir(&state, &path, &mut found, &mut origins, &mut directories)?;
            }
            for name in directories {
                if let Some(child) = self.child(&inode, &name)? {
                    todo.push((child.inode, below(&path, &name)));
                }
            }
        }
        if !origins.is_empty() {
            let numbers = self.numbers_of_lowers()?;
            let gone = |origin: &(Vec<Name>, Vec<u8>, u64)| !numbers.contains(&origin.2);
            for (path, xattr, _) in origins.into_iter().filter(gone) {
                found.push((path, Oddity::DanglingOrigin(xattr)));
            }
        }
        Ok(found)
    }

    fn audit_dir(
        &self,
        state: &DirState,
        path: &[Name],
        found: &mut Vec<Found>,
        origins: &mut Vec<(Vec<Name>, Vec<u8>, u64)>,
        directories: &mut Vec<Name>,
    ) -> Result<()> {
        let mut numbers = HashSet::new();
        for (name, slot) in state.listing.iter().flat_map(|listing| listing.all()) {
            let covered = slot
                .merged
                .upper
                .as_ref()
                .is_some_and(|upper| upper.kind != Kind::Dir);
            if let Some(mark) = slot.merged.mark
                && (slot.merged.lower.is_none() || covered)
            {
                found.push((below(path, name), Oddity::IdleWhiteout(mark)));
            }
            let lower = slot
                .merged
                .lower
                .as_ref()
                .and_then(|lower| lower.redirect());
            for redirect in slot
                .merged
                .upper_redirect
                .as_deref()
                .into_iter()
                .chain(lower)
            {
                self.audit_redirect(state, redirect, &below(path, name), found)?;
            }
            if slot.kind() == Some(Kind::Dir) {
                directories.push(Arc::clone(name));
            }
            if let (Some(entry), Some(dir)) = (&slot.merged.upper, &state.upper) {
                numbers.insert(entry.ino);
                audit_xattrs(dir, name, entry.ino, &below(path, name), found, origins)?;
            }
        }
        if let Some(dir) = &state.upper {
            audit_children(dir, path, &numbers, found)?;
        }
        Ok(())
    }

    fn audit_redirect(
        &self,
        state: &DirState,
        redirect: &Redirect,
        path: &[Name],
        found: &mut Vec<Found>,
    ) -> Result<()> {
        if self.follow_redirect(state, redirect)?.is_empty() {
            let target = Arc::clone(&redirect.target);
            let oddity = Oddity::DanglingRedirect(redirect.layer, target);
            found.push((path.to_vec(), oddity));
        }
        Ok(())
    }

    /// The `st_ino` of everything that the lower layers hold, shown or not.
    fn numbers_of_lowers(&self) -> Result<HashSet<u64>> {
        let mut numbers = HashSet::new();
        for root in &self.layers.lowers {
            let mut todo = vec![root.clone()];
            while let Some(dir) = todo.pop() {
                let mut directories = Vec::new();
                let (layer, device) = (dir.source(), dir.device().context("stat", b".")?);
                dir.for_each(|name, kind, ino| {
                    numbers.insert(self.nodes.numbers.of(layer, device, ino));
                    numbers.insert(self.nodes.numbers.of_before(layer, ino));
                    if kind.is_none_or(|kind| kind == Kind::Dir) {
                        directories.push(Name::from(name));
                    }
                })
                .context("getdents", b".")?;
                for name in directories {
                    if dir.stat_entry(&name).context("stat", &name)?.kind() == Kind::Dir {
                        todo.push(dir.child(&name));
                    }
                }
            }
        }
        Ok(numbers)
    }
}

fn below(path: &[Name], name: &Name) -> Vec<Name> {
    let mut path = path.to_vec();
    path.push(Arc::clone(name));
    path
}

fn audit_xattrs(
    dir: &WritableDir,
    name: &Name,
    ino: u64,
    path: &[Name],
    found: &mut Vec<Found>,
    origins: &mut Vec<(Vec<Name>, Vec<u8>, u64)>,
) -> Result<()> {
    let xattrs = dir.xattrs_of(name).context("open directory", name)?;
    let list = xattrs.list().context("listxattr", name)?;
    for xattr in list.split(|byte| *byte == 0) {
        if is_own_xattr(xattr, "origin") {
            let value = xattrs.get_opt(xattr).context("getxattr", name)?;
            match decode_origin(&value.unwrap_or_default(), ino) {
                Some(number) => origins.push((path.to_vec(), xattr.to_vec(), number)),
                None => found.push((path.to_vec(), Oddity::DanglingOrigin(xattr.to_vec()))),
            }
        }
        if let Some(record) = STAT_OVERRIDE_XATTRS.iter().find(|record| **record == xattr) {
            let value = xattrs.get_opt(record).context("getxattr", name)?;
            if value.is_some_and(|value| StatOverride::parse(&value).is_none()) {
                found.push((path.to_vec(), Oddity::OddRecord(record)));
            }
        }
    }
    Ok(())
}

/// What a directory remembers of entries that cannot carry xattrs, and of which some are not in it
/// any more.
fn audit_children(
    dir: &WritableDir,
    path: &[Name],
    numbers: &HashSet<u64>,
    found: &mut Vec<Found>,
) -> Result<()> {
    let list = dir.xattrs().and_then(|xattrs| xattrs.list());
    for xattr in list.context("listxattr", b".")?.split(|byte| *byte == 0) {
        let number = xattr
            .strip_prefix(USER_PREFIX.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"child."))
            .map(|hex| u64::from_str_radix(&String::from_utf8_lossy(hex), 16));
        if number.is_some_and(|number| number.map_or(true, |number| !numbers.contains(&number))) {
            found.push((path.to_vec(), Oddity::DanglingOrigin(xattr.to_vec())));
        }
    }
    Ok(())
}

/// Mends one oddity in the upper whose root is given; `false` for those of lower layers, which are
/// never written to.
///
/// Times of directories are put back. Each is one call, or two of which the first leaves what a
/// reader sees as it is: a directory whose redirect leads nowhere is opaque before the redirect
/// goes. Errors: what the disk answers.
pub(crate) fn mend(root: &WritableDir, (path, oddity): &Found) -> rustix::io::Result<bool> {
    let Some((name, parents)) = path.split_last() else {
        // The root itself: only xattrs of it can be odd.
        if let Oddity::DanglingOrigin(xattr) = oddity {
            root.this()?.remove_xattr(xattr)?;
        }
        return Ok(true);
    };
    let dir = parents
        .iter()
        .fold(root.clone(), |dir, name| dir.child(name));
    match oddity {
        Oddity::DanglingRedirect(layer, _) if *layer != Source::Upper => return Ok(false),
        Oddity::DanglingRedirect(..) => {
            let inner = dir.child(name);
            let before = inner.stat()?;
            make_opaque(root, &inner)?;
            restore_dir_times(&inner, &before);
            remove_redirect(&inner.this()?)?;
        }
        Oddity::IdleWhiteout(mark) => {
            let before = dir.stat()?;
            match (mark, whiteout_name(name)) {
                (Mark::InPlace, _) => dir.unlink(name)?,
                (Mark::Beside, Some(mark)) => {
                    let stat = dir.stat_on_disk(&mark)?;
                    // A valuable file may bear this name.
                    if stat.kind() != Kind::File || stat.size > 0 {
                        return Ok(false);
                    }
                    dir.unlink(&mark)?;
                }
                (Mark::Beside, None) => {}
            }
            restore_dir_times(&dir, &before);
        }
        // What a directory remembers of its entries stands on itself.
        Oddity::DanglingOrigin(xattr) if !is_own_xattr(xattr, "origin") => {
            dir.child(name).this()?.remove_xattr(xattr)?;
        }
        Oddity::DanglingOrigin(xattr) => dir.remove_xattr(name, xattr)?,
        Oddity::OddRecord(xattr) => dir.remove_xattr(name, xattr)?,
    }
    Ok(true)
}

/// In the form of the redirect's own xattr namespace, or as a file where xattrs are none of the
/// upper's marks.
fn make_opaque(root: &WritableDir, dir: &WritableDir) -> rustix::io::Result<()> {
    let has = |dir: &Dir, xattr: &str| {
        let found = dir
            .xattrs()
            .and_then(|xattrs| xattrs.get_opt(xattr.as_bytes()));
        matches!(found, Ok(Some(_)))
    };
    let [trusted, user] = REDIRECT_XATTRS.map(|xattr| has(dir, xattr));
    if has_device_marks(root) {
        let namespace = if user && !trusted {
            "user."
        } else {
            "trusted."
        };
        return set_opaque_xattr(&dir.fd()?, &[namespace], OpaqueValue::Opaque);
    }
    create_opaque_file(dir.fd()?)
}
