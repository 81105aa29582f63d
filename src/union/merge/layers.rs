//! The directories that a union is made of.

use std::sync::Arc;

use crate::layer::{FdCache, ReadOnlyDir, WritableDir};
use crate::union::merge::hardlink::LayerLinks;

/// The directories that are merged.
#[derive(Debug)]
pub(in crate::union) struct Layers {
    pub(in crate::union) lowers: Vec<ReadOnlyDir>,
    /// Layers that are there for the bytes of files only (`metacopy.rs`).
    pub(in crate::union) data_only: Vec<ReadOnlyDir>,
    /// Where absolute redirects start.
    pub(in crate::union) redirect_roots: Vec<ReadOnlyDir>,
    pub(in crate::union) upper: Option<WritableDir>,
    /// Names that begin with `.wh.` are ordinary names in the upper.
    pub(in crate::union) plain_wh_names: bool,
    /// The index of hard links of each lower layer.
    pub(in crate::union) link_index: Vec<LayerLinks>,
    pub(in crate::union) fds: Arc<FdCache>,
}
