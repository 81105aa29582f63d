//! What was asked for when the union was opened.

use crate::union::config::CacheMode;
use crate::union::idmap::IdMaps;

/// What holds for every operation.
#[derive(Debug)]
pub(in crate::union) struct Rules {
    pub(super) ids: IdMaps,
    pub(super) volatile: bool,
    pub(super) noatime: bool,
    pub(super) redirect_dir: bool,
    pub(super) no_acl: bool,
    pub(super) no_xattrs: bool,
    pub(super) static_nlink: bool,
    pub(super) cache: CacheMode,
    /// Owner and group that the daemon's own creations get on disk.
    pub(super) daemon: (u32, u32),
}
