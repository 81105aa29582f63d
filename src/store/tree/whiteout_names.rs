//! Names in a copied tree that would be whiteouts in a layer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::archive::error::is_gone;
use crate::layer::dir::Name;
use crate::layer::marks::WH_PREFIX;
use crate::layer::stat::Kind;
use crate::layer::{FdCache, ReadOnlyDir};
use crate::store::base::{Context, Result};

/// Descriptors that stay open while a tree is walked.
const DESCRIPTORS: usize = 64;

/// The paths in a tree, from its root, whose names would be whiteouts in a layer; not what is below
/// them.
pub(super) fn whiteout_names(tree: &Path) -> Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, tree, flags, Mode::empty()).context("open", tree)?;
    let root = ReadOnlyDir::alone(root, &FdCache::new(DESCRIPTORS));
    let mut found = Vec::new();
    let mut path = Vec::new();
    let below = whiteout_names_in(&root, &path, &mut found).context("read", tree)?;
    let mut levels = vec![(root, path.len(), below.into_iter())];
    while let Some((dir, end, names)) = levels.last_mut() {
        path.truncate(*end);
        let Some(name) = names.next() else {
            levels.pop();
            continue;
        };
        path.extend_from_slice(&name);
        path.push(b'/');
        let below = dir.stat_on_disk(&name).and_then(|stat| {
            if stat.kind() != Kind::Dir {
                return Ok(None);
            }
            let inner = dir.child(&name);
            let below = whiteout_names_in(&inner, &path, &mut found)?;
            Ok(Some((inner, path.len(), below.into_iter())))
        });
        match below {
            // It was removed meanwhile.
            Err(errno) if is_gone(errno) => {}
            below => levels.extend(below.context("read", tree)?),
        }
    }
    found.sort();
    Ok(found)
}

/// Those in one directory, whose path is empty or ends with a slash; returns the names of what may
/// be directories in it.
fn whiteout_names_in(
    dir: &ReadOnlyDir,
    path: &[u8],
    found: &mut Vec<PathBuf>,
) -> rustix::io::Result<Vec<Name>> {
    let mut below = Vec::new();
    dir.for_each(|name, kind, _| {
        if name.starts_with(WH_PREFIX) {
            found.push(PathBuf::from(OsStr::from_bytes(&[path, name].concat())));
        } else if kind.is_none_or(|kind| kind == Kind::Dir) {
            below.push(Name::from(name));
        }
    })?;
    Ok(below)
}
