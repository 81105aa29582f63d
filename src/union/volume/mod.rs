//! Volumes and bind mounts: directories and files of the host that appear inside the merged tree
//! without a mount of their own.
//!
//! A directory of a volume is one writable directory of the host's disk and nothing else: there is
//! no layer below it, no copy-up and no mark, and every name, `.wh.` ones as well, is an ordinary
//! name. What is done in it is done on that disk at once (`volume/ops.rs`).
//!
//! A volume is shared, with the host and with other mounts. So nothing of it is remembered: each
//! lookup asks the disk, a directory is listed anew each time, and `Validity::Shared` tells the
//! transport that it must not have anything be cached for long. What is held, a place in the tree
//! or an open descriptor, is only used when what is found there is still the same inode (number,
//! and when it was made, where the disk says that); else the answer is ESTALE, as on a network
//! disk. A file that another process removed can be used on for as long as its descriptor stays in
//! the cache.
//!
//! Owners, modes and types are the disk's. The xattrs that keep them in a layer
//! (`layer/stat_override.rs`) mean nothing here: the process that owns the directory could write
//! them, and so make setuid programs of root and devices.
//!
//! `st_ino` is a number of the disk's own ([`crate::union::node::identity::of_volume`]). The
//! mappings of owners are the layers', for they say how those were unpacked; only what squashes all
//! owners into one holds here, too.

pub(in crate::union) mod attach;
pub(in crate::union) mod list;
pub(in crate::union) mod ops;
mod rename;
