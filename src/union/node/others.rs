//! Changes by others than the union itself.

use std::sync::{Arc, OnceLock};

use crate::union::Change;
use crate::union::node::changes::Attributes;
use crate::union::node::followers::Live;

/// Who changes the layers, and who is notified of changes.
#[derive(Debug)]
pub(in crate::union) struct Others {
    /// Layers are edited, and that was said.
    pub(in crate::union) live: Option<Arc<Live>>,
    /// The receiver of notifications of changes that others made to the layers.
    pub(in crate::union) changes: OnceLock<std::sync::mpsc::Sender<Change>>,
    /// The callback that notifies the kernel of attributes that changed beside a request.
    pub(in crate::union) attributes: Attributes,
}
