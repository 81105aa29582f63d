//! What a hard link of an archive is a link to.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::aside::{AufsLeftovers, is_leftover};
use super::beneath::{Tree, is_mark};
use super::inside::LayerPath;
use crate::archive::error::{Error, ErrorKind, Result};
use crate::layer::marks::WH_PREFIX;
use crate::layer::stat::{Kind, Stat};

/// How targets are found.
pub(super) struct Links<'a> {
    /// Targets may begin with a slash.
    pub(super) absolute: bool,
    /// Where AUFS's leftovers are, once there are some.
    pub(super) aside: Option<&'a Arc<OwnedFd>>,
}

impl Links<'_> {
    /// The directory and the name there of a target, which came before in the archive. `None` for a
    /// link to itself. Errors: a target that is outside, not there, a mark or a directory.
    pub(super) fn find(
        &self,
        tree: &mut Tree,
        link: &LayerPath,
        target: &[u8],
    ) -> Result<Option<(Arc<OwnedFd>, Vec<u8>)>> {
        let refused = |why: &str| {
            let shown = String::from_utf8_lossy(target);
            Error::refused(format!("it is a hard link to '{shown}', which {why}"))
        };
        let missing = || refused("is not in the layer before it");
        let to = LayerPath::new(target, self.absolute).map_err(|_| {
            refused("leads out of the layer; targets are names from the layer's root")
        })?;
        let Some((parent, name)) = to.split() else {
            return Err(refused("is the root of the layer"));
        };
        if to == *link {
            return Ok(None);
        }
        let (dir, name) = if is_leftover(&to) {
            let dir = self.aside.cloned().ok_or_else(missing)?;
            (dir, AufsLeftovers::name(&to))
        } else if to.components().any(|name| name.starts_with(WH_PREFIX)) {
            return Err(refused("is a mark for other layers"));
        } else {
            let dir = tree.existing(&parent).map_err(|err| match err.kind() {
                ErrorKind::Refused => refused("is reached through a symbolic link or a file"),
                _ => missing(),
            })?;
            (dir, name.to_vec())
        };
        match Stat::of_entry(&dir, &name) {
            Ok(stat) if stat.kind() == Kind::Dir => return Err(refused("is a directory")),
            Ok(_) => {}
            Err(_) => return Err(missing()),
        }
        match is_mark(&dir, &name)? {
            true => Err(missing()),
            false => Ok(Some((dir, name))),
        }
    }
}
