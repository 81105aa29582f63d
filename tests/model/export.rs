//! Reads what a union left on the disk as any other reader of layers would: by the marks alone,
//! without the union's own bookkeeping. This is what engines see when they export the upper and
//! apply it elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::ops::show;
use super::stack::{At, Name, join};
use super::tree::{Object, Tree, read_object};

/// A layer's directory, opened, with the number of its layer.
struct Dir {
    layer: u64,
    fd: OwnedFd,
    object: Object,
}

/// What one layer's directory has under a name.
#[derive(Default)]
struct Entry {
    object: Option<(Object, OwnedFd)>,
    white: bool,
}

/// The merged tree of layers on disk, newest first; without redirects. `plain`: `.wh.` names of the
/// newest are ordinary ones. Inode numbers tell files apart, but mean nothing else. The link count
/// of a directory is its layer's, or 1 where several have it.
pub fn merged(layers: &[PathBuf], plain: bool) -> Result<Tree, String> {
    let mut dirs = Vec::new();
    for (layer, path) in (0..).zip(layers) {
        let (object, fd) = read_object(rustix::fs::CWD, path.as_os_str().as_encoded_bytes())?;
        dirs.push(Dir { layer, fd, object });
    }
    let mut tree = Tree::new();
    merge(dirs, b"", plain, &mut tree)?;
    let mut names: HashMap<u64, u64> = HashMap::new();
    for object in tree.values() {
        *names.entry(object.ino).or_default() += 1;
    }
    for object in tree.values_mut() {
        // Links to places outside the view do not count.
        if object.kind != 'd' {
            object.nlink = names[&object.ino];
        }
        object.xattrs = std::mem::take(&mut object.xattrs)
            .into_iter()
            .filter_map(|(name, value)| Some((seen(&name)?, value)))
            .collect();
    }
    Ok(tree)
}

/// The name of an xattr for those who look through an overlay; `None` for the overlay's own.
fn seen(stored: &[u8]) -> Option<Name> {
    if stored.starts_with(b"user.fuseoverlayfs.") {
        return None;
    }
    for space in [&b"trusted."[..], b"user."] {
        if let Some(rest) = stored.strip_prefix(&[space, b"overlay."].concat()[..]) {
            return rest
                .starts_with(b"overlay.")
                .then(|| [space, rest].concat());
        }
    }
    Some(stored.to_vec())
}

fn xattr_is(object: &Object, names: &[&str], value: &[u8]) -> bool {
    names.iter().any(|name| {
        object
            .xattrs
            .get(name.as_bytes())
            .is_some_and(|is| is == value)
    })
}

fn merge(mut dirs: Vec<Dir>, at: &[u8], plain: bool, tree: &mut Tree) -> Result<(), String> {
    let mut layers: Vec<BTreeMap<Name, Entry>> = Vec::new();
    for dir in &dirs {
        let (entries, opaque) = read_dir(dir, at, plain && dir.layer == 0)?;
        layers.push(entries);
        if opaque {
            break;
        }
    }
    dirs.truncate(layers.len());
    let mut own = dirs[0].object.clone();
    own.ino |= dirs[0].layer << 48;
    if dirs.len() > 1 {
        own.nlink = 1;
    }
    tree.insert(at.to_vec(), own);
    let names: BTreeSet<Name> = layers
        .iter()
        .flat_map(|entries| entries.keys().cloned())
        .collect();
    for name in names {
        let here: At = join(at, &name);
        let mut found: Vec<Dir> = Vec::new();
        for (dir, entries) in dirs.iter().zip(&mut layers) {
            let Some(entry) = entries.remove(&name) else {
                continue;
            };
            match entry.object {
                Some((object, fd)) if object.kind == 'd' => found.push(Dir {
                    layer: dir.layer,
                    fd,
                    object,
                }),
                Some((mut object, _)) => {
                    if found.is_empty() {
                        object.ino |= dir.layer << 48;
                        tree.insert(here.clone(), object);
                    }
                    break;
                }
                None => {}
            }
            if entry.white {
                break;
            }
        }
        if !found.is_empty() {
            merge(found, &here, plain, tree)?;
        }
    }
    Ok(())
}

/// The names of a layer's directory, and whether it is opaque.
fn read_dir(dir: &Dir, at: &[u8], plain: bool) -> Result<(BTreeMap<Name, Entry>, bool), String> {
    let kernel = ["trusted.overlay.opaque", "user.overlay.opaque"];
    let mut opaque = xattr_is(&dir.object, &kernel, b"y")
        || xattr_is(&dir.object, &["user.fuseoverlayfs.opaque"], b"y");
    let by_xattr = xattr_is(&dir.object, &kernel, b"x");
    let mut entries: BTreeMap<Name, Entry> = BTreeMap::new();
    for entry in rustix::fs::Dir::read_from(&dir.fd).map_err(|e| e.to_string())? {
        let name = entry
            .map_err(|e| e.to_string())?
            .file_name()
            .to_bytes()
            .to_vec();
        match name.strip_prefix(b".wh.") {
            _ if name == b"." || name == b".." => continue,
            Some(b".wh..opq") if !plain => opaque = true,
            Some(rest) if !plain => {
                if !rest.starts_with(b".wh.") {
                    entries.entry(rest.to_vec()).or_default().white = true;
                }
            }
            _ => {
                let object = read_object(&dir.fd, &name)
                    .map_err(|e| format!("{:?}: {e}", show(&join(at, &name))))?;
                let marks = ["trusted.overlay.whiteout", "user.overlay.whiteout"];
                let marked = by_xattr
                    && (object.0.kind, object.0.size) == ('-', 0)
                    && marks
                        .iter()
                        .any(|mark| object.0.xattrs.contains_key(mark.as_bytes()));
                let slot = entries.entry(name).or_default();
                if marked || (object.0.kind, object.0.rdev) == ('c', 0) {
                    slot.white = true;
                } else {
                    slot.object = Some(object);
                }
            }
        }
    }
    Ok((entries, opaque))
}
