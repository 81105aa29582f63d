//! Objects of the merged tree: inodes and their table, what the kernel has looked up, listings,
//! locks, numbers.

pub(in crate::union) mod changes;
pub(in crate::union) mod followers;
pub(in crate::union) mod forgotten;
pub(in crate::union) mod guards;
pub(in crate::union) mod identity;
pub(in crate::union) mod ids;
pub(in crate::union) mod inode;
pub(in crate::union) mod listing;
pub(in crate::union) mod mount_point;
pub(in crate::union) mod nodes;
pub(in crate::union) mod others;
pub(in crate::union) mod real;
pub(in crate::union) mod removed_dir;
pub(in crate::union) mod stack;
pub(in crate::union) mod table;
pub(in crate::union) mod volume;
pub(in crate::union) mod volumes;
