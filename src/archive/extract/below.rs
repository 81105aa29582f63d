//! The metadata of directories in the layers below the one that is unpacked.

use std::path::PathBuf;

use crate::archive::error::Result;
use crate::archive::merged::{description, failed, find, open_union};
use crate::archive::tar::{EntryKind, TarEntry};
use crate::layer::stat::Kind;
use crate::union::{Config, Union};

/// The layers below, merged.
pub(super) struct LowerDirs(Union);

impl LowerDirs {
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

    /// The metadata of a directory there; `None` when it is not there, or is something else.
    pub(super) fn directory(&self, path: &[u8]) -> Result<Option<TarEntry>> {
        match self.directory_at(path) {
            Err(error) if error.is_gone() => Ok(None),
            other => other,
        }
    }

    fn directory_at(&self, path: &[u8]) -> Result<Option<TarEntry>> {
        let node = find(&self.0, path)?;
        let attr = self.0.getattr(node.id()).map_err(failed)?;
        match attr.kind() {
            Kind::Dir => description(&self.0, node.id(), path, EntryKind::Dir, &attr).map(Some),
            _ => Ok(None),
        }
    }
}
