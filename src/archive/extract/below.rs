//! What directories look like in the layers below the one that is unpacked.

use std::path::{Path, PathBuf};

use super::apply::Applier;
use crate::archive::error::Result;
use crate::archive::merged::{at_path, description, failed, open_union};
use crate::archive::tar::{Entry, What};
use crate::layer::stat::Kind;
use crate::union::{Config, Union};

/// Gives directories of an unpacked layer that no entry of its archive describes ([`super::Unpacked::implied`]) owner, mode, times
/// and xattrs that they have in the layers below, newest first: for layers that are unpacked side by side, once all are there.
/// Those that no layer below has stay as they are. May be repeated.
///
/// # Errors
/// A layer that cannot be read or written.
///
/// # Crash
/// Killed meanwhile, some directories look as they were made; a union shows what lies below for all of them. Nothing is
/// synced.
pub fn describe_implied(layer: &Path, implied: &[Vec<u8>], below: &[PathBuf]) -> Result<()> {
    if implied.is_empty() || below.is_empty() {
        return Ok(());
    }
    let mut applier = Applier::again(layer, implied)?.above(below);
    applier.mark_implied()?;
    applier.set_times()
}

/// The layers below, merged.
pub(super) struct Below(Union);

impl Below {
    /// Merges them, newest first; `None` of none. Errors: one that cannot be read.
    pub(super) fn open(lowers: &[PathBuf]) -> Result<Option<Self>> {
        if lowers.is_empty() {
            return Ok(None);
        }
        let config = Config {
            lowers: lowers.to_vec(),
            ..Config::default()
        };
        Ok(Some(Self(open_union(&config)?)))
    }

    /// What a directory looks like there; `None` when it is not there, or is something else.
    pub(super) fn directory(&self, path: &[u8]) -> Result<Option<Entry>> {
        let found = at_path(&self.0, path, |node| {
            let attr = self.0.getattr(node).map_err(failed)?;
            match attr.kind() {
                Kind::Dir => description(&self.0, node, path, What::Dir, &attr).map(Some),
                _ => Ok(None),
            }
        });
        match found {
            Err(error) if error.is_gone() => Ok(None),
            other => other,
        }
    }
}
