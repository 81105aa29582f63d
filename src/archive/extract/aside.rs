//! What AUFS left in old images: its own files, `.wh..wh.NAME`, and all that is below its own
//! directories.
//!
//! They are no part of a layer, but others may be hard links to them: AUFS kept files with several
//! names in `.wh..wh.plnk/`. So they are made in a directory of their own, which goes away when the
//! archive was read.
//!
//! # Crash
//! The directory has a name of AUFS's too: killed before it is removed, it is never shown.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, mkdirat, openat, unlinkat};

use super::inside::LayerPath;
use crate::archive::codec::Digest;
use crate::archive::disk::{DIRECTORY, clear};
use crate::archive::error::{Context as _, Result};
use crate::layer::marks::{NameMeaning, WH_META_PREFIX, meaning};

/// No entry of an archive gets a name that begins so.
const NAME: &[u8] = b".wh..wh.unionmount";

/// Whether it is a leftover.
pub(super) fn is_leftover(inside: &LayerPath) -> bool {
    inside
        .components()
        .any(|name| name.starts_with(WH_META_PREFIX) && meaning(name) == NameMeaning::Leftover)
}

/// The leftovers of one archive.
#[derive(Default)]
pub(super) struct AufsLeftovers {
    dir: Option<Arc<OwnedFd>>,
}

impl AufsLeftovers {
    /// The directory where they are, made with the first of them. The caller keeps the root's time.
    pub(super) fn make(&mut self, root: &OwnedFd) -> Result<Arc<OwnedFd>> {
        if let Some(dir) = &self.dir {
            return Ok(Arc::clone(dir));
        }
        mkdirat(root, NAME, Mode::RWXU).context("mkdir", NAME)?;
        let dir = openat(root, NAME, DIRECTORY, Mode::empty()).context("open", NAME)?;
        Ok(Arc::clone(self.dir.insert(Arc::new(dir))))
    }

    /// The directory, once there is a leftover.
    pub(super) fn dir(&self) -> Option<&Arc<OwnedFd>> {
        self.dir.as_ref()
    }

    /// Where it is.
    pub(super) fn place() -> LayerPath {
        LayerPath::root().child(NAME)
    }

    /// The name that a leftover has there: any path fits into it.
    pub(super) fn name(inside: &LayerPath) -> Vec<u8> {
        let digest = Digest::of(inside.bytes()).to_string();
        digest.into_bytes()
    }

    /// Removes all of them.
    pub(super) fn remove(&mut self, root: &OwnedFd) -> Result<()> {
        let Some(dir) = self.dir.take() else {
            return Ok(());
        };
        clear(&dir)?;
        unlinkat(root, NAME, AtFlags::REMOVEDIR).context("rmdir", NAME)
    }
}
