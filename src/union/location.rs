//! Where an object of the merged tree is, for messages: its path in the mount, and the real path
//! behind it.
//!
//! Nothing is kept for this: a location is put together when a call has failed.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Union;
use super::node::ids::NodeId;
use super::node::inode::Bytes;
use super::node::inode::{DirState, FileState, Inode, Node, Real};
use crate::layer::Dir;
use crate::layer::dir::Source;
use crate::layer::real_path::path_of;
use crate::sync::lock;

/// Where a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Its path in the mount, which begins with a slash; `None` when it has no name any more.
    pub path: Option<PathBuf>,
    /// What is behind it on the host; `None` when that was removed or its layer was released.
    pub real: Option<RealLocation>,
    /// The upper's root, where a change of an object of a lower layer goes.
    pub upper: Option<PathBuf>,
}

/// What is behind a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealLocation {
    /// Where the object lies.
    pub layer: LayerKind,
    /// Its path on the host.
    pub path: PathBuf,
}

/// Where a real object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// In the upper layer.
    Upper,
    /// In a lower layer.
    Lower,
    /// In a volume.
    Volume,
}

impl Location {
    /// Returns the path in the mount for a message, with escapes for what is not printable.
    #[must_use]
    pub fn shown_path(&self) -> String {
        match &self.path {
            Some(path) => quoted(path),
            None => "a removed file".to_owned(),
        }
    }
}

/// The real side: `upper layer "/srv/upper/a"`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(real) = &self.real else {
            return f.write_str("no real file");
        };
        let layer = match real.layer {
            LayerKind::Upper => "upper layer",
            LayerKind::Lower => "lower layer",
            LayerKind::Volume => "volume",
        };
        write!(f, "{layer} {}", quoted(&real.path))?;
        match (&self.upper, real.layer) {
            (Some(upper), LayerKind::Lower) => write!(f, ", changes go to {}", quoted(upper)),
            _ => Ok(()),
        }
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.as_os_str().as_bytes().escape_ascii())
}

impl Union {
    /// Returns where a node is, or `name` in the directory that it is; empty for a node that is not
    /// known.
    ///
    /// Locks the state of the node, under that the places of layer directories one at a time, and
    /// then the places of the directories above it; asks no disk. To be called by a thread that
    /// holds none of these locks: when the request is done that it is about.
    #[must_use]
    pub fn location(&self, node: NodeId, name: Option<&[u8]>) -> Location {
        let Ok(inode) = self.nodes.table.get(node) else {
            return Location::default();
        };
        let (mut path, mut real) = match &inode.node {
            Node::Dir(dir) => {
                let state = lock(&dir.state);
                let real = real_of_dir(&state, inode.is_shared());
                let removed = state.removed.is_some();
                drop(state);
                ((!removed).then(|| path_of_dir(&inode)), real)
            }
            Node::File(file) => {
                let state = lock(&file.state);
                let place = state.links.first().map(|link| link.place.clone());
                let real = real_of_file(&state, inode.is_shared());
                drop(state);
                let path = place.map(|place| {
                    let mut path = path_of_dir(&place.parent);
                    path.push(OsStr::from_bytes(&place.name));
                    path
                });
                (path, real)
            }
        };
        if let Some(name) = name {
            let name = OsStr::from_bytes(name);
            path.iter_mut().for_each(|path| path.push(name));
            real.iter_mut().for_each(|real| real.path.push(name));
        }
        Location {
            path,
            real,
            upper: self.upper_root(),
        }
    }

    /// The upper's root on the host.
    fn upper_root(&self) -> Option<PathBuf> {
        let root = self.nodes.table.get(NodeId::ROOT).ok()?;
        let upper = root.lock_dir()?.upper.clone()?;
        upper.real_path()
    }
}

/// The path of a directory in the mount.
fn path_of_dir(dir: &Arc<Inode>) -> PathBuf {
    let mut names = Vec::new();
    let mut at = Arc::clone(dir);
    while let Some(place) = at.place() {
        names.push(place.name);
        at = place.parent;
    }
    let mut path = PathBuf::from("/");
    path.extend(names.iter().rev().map(|name| OsStr::from_bytes(name)));
    path
}

fn real_of_dir(state: &DirState, in_volume: bool) -> Option<RealLocation> {
    match (&state.upper, state.looks_like()) {
        (Some(upper), _) => real_at(upper, None, in_volume),
        (None, Some(lower)) => real_at(lower, None, in_volume),
        (None, None) => None,
    }
}

fn real_of_file(state: &FileState, in_volume: bool) -> Option<RealLocation> {
    // What is read and written are the bytes.
    if let Some(Bytes::At(dir, name)) = &state.bytes {
        return real_at(dir, Some(name), in_volume);
    }
    match &state.real {
        Real::Lower { dir, name } => real_at(dir, Some(name), in_volume),
        Real::Upper { dir, name } => real_at(dir, Some(name), in_volume),
        Real::Orphan(object) => Some(RealLocation {
            layer: if in_volume {
                LayerKind::Volume
            } else {
                LayerKind::Upper
            },
            path: path_of(object.fd())?,
        }),
    }
}

fn real_at(dir: &Dir, name: Option<&[u8]>, in_volume: bool) -> Option<RealLocation> {
    let mut path = dir.real_path()?;
    if let Some(name) = name {
        path.push(OsStr::from_bytes(name));
    }
    let layer = match dir.source() {
        _ if in_volume => LayerKind::Volume,
        Source::Upper => LayerKind::Upper,
        _ => LayerKind::Lower,
    };
    Some(RealLocation { layer, path })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::tests::testing::{Stack, find};

    #[test]
    fn a_node_has_a_path_in_the_mount_and_a_real_one() {
        let stack = Stack::new();
        stack.file("old/d/lower", "lower");
        stack.file("upper/u", "upper");
        let union = stack.open();
        let real = |path: &str| stack.at(path).canonicalize().unwrap();

        let lower = union.location(find(&union, "d/lower").node, None);
        assert_eq!(lower.path.as_deref(), Some(Path::new("/d/lower")));
        assert_eq!(lower.real.as_ref().unwrap().path, real("old/d/lower"));
        assert_eq!(lower.real.as_ref().unwrap().layer, LayerKind::Lower);
        let text = format!(
            "lower layer \"{}\", changes go to \"{}\"",
            real("old/d/lower").display(),
            real("upper").display()
        );
        assert_eq!(lower.to_string(), text);

        let upper = find(&union, "u").node;
        let text = format!("upper layer \"{}\"", real("upper/u").display());
        assert_eq!(union.location(upper, None).to_string(), text);

        let dir = find(&union, "d").node;
        let absent = union.location(dir, Some(b"a\nb"));
        assert_eq!(absent.shown_path(), "\"/d/a\\nb\"");

        union.unlink(NodeId::ROOT, b"u").unwrap();
        let removed = union.location(upper, None);
        assert_eq!(removed.shown_path(), "a removed file");
        assert_eq!(removed.real.unwrap().layer, LayerKind::Upper);
        let root = union.location(NodeId::ROOT, None);
        assert_eq!(root.path.as_deref(), Some(Path::new("/")));
    }
}
