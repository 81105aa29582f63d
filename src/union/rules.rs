//! What was asked for when the union was opened.

use crate::union::config::CacheMode;
use crate::union::idmap::IdMaps;

/// What holds for every operation.
#[derive(Debug)]
pub(in crate::union) struct Rules {
    pub(in crate::union) ids: IdMaps,
    pub(in crate::union) volatile: bool,
    pub(in crate::union) noatime: bool,
    pub(in crate::union) redirect_dir: bool,
    pub(in crate::union) no_acl: bool,
    pub(in crate::union) no_xattrs: bool,
    pub(in crate::union) static_nlink: bool,
    pub(in crate::union) cache: CacheMode,
    /// Owner and group that the daemon's own creations get on disk.
    pub(in crate::union) daemon: (u32, u32),
}
