//! A directory that can only be read: everything that changes a disk is missing here.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::dir::{Dir, DirLocation, Name, Source};
use super::fd_cache::FdCache;
use super::stat_override::StatOverrides;
use crate::sync::write;

/// A directory that can only be read: of a lower layer, or of any other.
#[derive(Clone, Debug)]
pub(crate) struct ReadOnlyDir(Arc<Dir>);

impl ReadOnlyDir {
    /// The root of a lower layer. Its xattrs say whether the layer has stat overrides.
    #[must_use]
    pub(crate) fn root(source: Source, fd: OwnedFd, cache: &Arc<FdCache>) -> Self {
        let fd = Arc::new(fd);
        let records = StatOverrides::of_root(&fd);
        Self(Dir::root(source, fd, cache, records))
    }

    /// The root of a layer that is read by itself.
    #[must_use]
    pub(crate) fn alone(fd: OwnedFd, cache: &Arc<FdCache>) -> Self {
        Self::root(Source::Lower(0), fd, cache)
    }

    pub(super) fn of(dir: Arc<Dir>) -> Self {
        Self(dir)
    }

    /// A directory in this one. Nothing is opened or checked yet.
    #[must_use]
    pub(crate) fn child(&self, name: &Name) -> Self {
        Self(Dir::child(&self.0, name, None))
    }

    /// Closes it for good: like a directory that was removed it cannot be opened again, nor can
    /// what is found through it.
    pub(crate) fn release(&self) {
        *write(&self.0.place) = DirLocation::Gone;
        self.0.slot.clear();
    }
}

impl std::ops::Deref for ReadOnlyDir {
    type Target = Dir;
    fn deref(&self) -> &Dir {
        &self.0
    }
}
