//! Copy-up: bringing objects of lower layers into the upper, through the work directory.

pub(in crate::union) mod complete;
pub(in crate::union) mod copy;
pub(in crate::union) mod copydata;
pub(in crate::union) mod detach_tree;
pub(in crate::union) mod device;
pub(in crate::union) mod flags;
pub(in crate::union) mod kernel_index;
mod metadata;
pub(in crate::union) mod publish;
pub(in crate::union) mod publish_names;
pub(in crate::union) mod recovery;
pub(in crate::union) mod whiteout;
