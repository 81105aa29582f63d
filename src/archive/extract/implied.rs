//! Directories of a layer that no entry describes, made because something is in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::below::LowerDirs;
use super::beneath::Tree;
use super::inside::LayerPath;
use super::policy::Policy;
use crate::archive::error::{Context as _, ErrorKind, Result};
use crate::archive::marks::say;
use crate::archive::options::Ownership;
use crate::layer::marks::{HAS_IMPLIED, IMPLIED, looks};
use crate::layer::object::WritableObject;
use crate::layer::stat::Kind;

/// Applies to directories of an unpacked layer that no entry of its archive describes
/// ([`super::Unpacked::implied`]) the owner, mode, times and xattrs that they have in the layers
/// below, newest first: for layers that are unpacked side by side, once all are there. Those that
/// no layer below has stay as they are. May be repeated.
///
/// # Errors
/// A layer that cannot be read or written.
///
/// # Crash
/// Killed meanwhile, some directories have the metadata that they were made with; a union shows
/// those of the layers below for all of them. Nothing is synced.
pub(crate) fn apply_lower_metadata(
    layer: &Path,
    implied: &[Vec<u8>],
    below: &[PathBuf],
) -> Result<()> {
    if implied.is_empty() || below.is_empty() {
        return Ok(());
    }
    let mut tree = Tree::open(layer)?;
    let mut policy = Policy::again(Arc::clone(tree.root()), Ownership::possible())?;
    if policy.ownership == Ownership::Recorded {
        tree.set_parent_mode(policy.disk_mode());
    }
    policy.implied = implied.iter().cloned().collect();
    Implied {
        tree: &mut tree,
        policy: &mut policy,
    }
    .mark(below)?;
    tree.finish()
}

/// The directories that a policy remembers as made.
pub(super) struct Implied<'a> {
    pub(super) tree: &'a mut Tree,
    pub(super) policy: &'a mut Policy,
}

impl Implied<'_> {
    /// Marks them, so that a union shows them with the metadata of the layers below, whichever
    /// these are: other images may have this layer over other ones. For other readers, they get the
    /// metadata that they have in those that are known.
    pub(super) fn mark(self, below: &[PathBuf]) -> Result<()> {
        if !self.policy.implied.is_empty() {
            let root = self.tree.existing(&LayerPath::root())?;
            say(&root, HAS_IMPLIED, b"y")?;
        }
        let implied: Vec<LayerPath> = self
            .policy
            .implied
            .iter()
            .map(|path| LayerPath::known(path))
            .collect();
        let below = match implied.is_empty() {
            true => None,
            false => LowerDirs::open(below)?,
        };
        for path in implied {
            let dir = match self.tree.existing(&path) {
                // A later entry took its place.
                Err(error) if error.kind() == ErrorKind::Refused || error.is_gone() => continue,
                dir => dir?,
            };
            let known = match &below {
                Some(below) => below.directory(path.bytes())?,
                None => None,
            };
            if let Some(entry) = known {
                self.policy
                    .apply_metadata(Arc::clone(&dir), &entry, Kind::Dir, 0)?;
                self.tree.set_mtime(&path, entry.mtime);
            }
            let seen = WritableObject::new(Arc::clone(&dir), self.policy.records.clone());
            let stat = seen.stat().context("stat", path.bytes())?;
            say(&dir, IMPLIED, &looks(stat.uid, stat.gid, stat.perm()))?;
        }
        Ok(())
    }
}
