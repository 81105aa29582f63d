//! What must hold on the disk while nothing is mounted.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::build::path;
use super::ops::show;
use super::stack::{Merged, MergedNode, join};
use super::tree::{Look, Tree, read_tree};

/// A layer as it is on the disk, to see later that it was not touched.
pub fn fingerprint(layer: &Path) -> Tree {
    let fd = std::fs::File::open(layer).unwrap();
    read_tree(&fd, Look::default()).unwrap()
}

/// Says how a layer differs from what it was.
pub fn same(before: &Tree, layer: &Path) -> Result<(), String> {
    let after = fingerprint(layer);
    if *before == after {
        return Ok(());
    }
    let names = before.keys().chain(after.keys());
    let changed: Vec<String> = names
        .filter(|at| before.get(*at) != after.get(*at))
        .map(|at| show(at))
        .collect();
    Err(format!(
        "lower {} was changed: {changed:?}",
        layer.display()
    ))
}

/// Nothing is left in the work directory.
pub fn work_is_empty(work: &Path) -> Result<(), String> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(work.join("work")).map_err(|e| format!("work/work: {e}"))? {
        left.push(entry.unwrap().file_name());
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left in the work directory: {left:?}"))
    }
}

/// Every whiteout of an upper that began empty hides something. `lower`: what the lowers show at
/// this directory. Only for uppers without redirects. `plain`: `.wh.` names are ordinary.
pub fn no_needless_whiteout(
    upper: &Path,
    at: &[u8],
    lower: Option<&Merged>,
    plain: bool,
) -> Result<(), String> {
    let has_mark = |dir: &Path| {
        (!plain && dir.join(".wh..wh..opq").exists())
            || rustix::fs::getxattr(dir, "trusted.overlay.opaque", &mut [0; 4][..]) == Ok(1)
    };
    for entry in std::fs::read_dir(upper).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().as_bytes().to_vec();
        let meta = entry.metadata().unwrap();
        let hidden = match name.strip_prefix(b".wh.") {
            Some(b".wh..opq") if !plain => continue,
            Some(hidden) if !plain => Some(hidden),
            _ if meta.file_type().is_char_device() && meta.rdev() == 0 => Some(&name[..]),
            _ => None,
        };
        if let Some(hidden) = hidden {
            if !lower.is_some_and(|lower| lower.entries.contains_key(hidden)) {
                return Err(format!(
                    "needless whiteout of {:?} in the upper",
                    show(&join(at, hidden))
                ));
            }
        } else if meta.is_dir() {
            let here = path(upper, &name);
            let cut =
                has_mark(&here) || (!plain && path(upper, &[b".wh.", &name[..]].concat()).exists());
            let inner = match lower.and_then(|lower| lower.entries.get(&name)) {
                Some(MergedNode::Dir(inner)) if !cut => Some(inner),
                _ => None,
            };
            no_needless_whiteout(&here, &join(at, &name), inner, plain)?;
        }
    }
    Ok(())
}
