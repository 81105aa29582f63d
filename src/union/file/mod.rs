//! What a file or directory is and holds: data, attributes, xattrs, ACLs, flags.

pub(in crate::union) mod acl;
pub(in crate::union) mod append;
pub(super) mod attr;
pub(in crate::union) mod backing;
mod capability;
pub(in crate::union) mod data;
pub(in crate::union) mod flags;
pub(in crate::union) mod privileges;
pub(in crate::union) mod protection;
pub(in crate::union) mod removed;
mod stored_xattr;
pub(in crate::union) mod sync;
pub(in crate::union) mod xattr;
