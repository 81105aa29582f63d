//! Volumes: directories of the host that are shown inside the merged tree, file systems of their own.

pub(in crate::union) mod attach;
pub(in crate::union) mod list;
pub(in crate::union) mod mounted;
pub(in crate::union) mod ops;
pub(in crate::union) mod volumes;
