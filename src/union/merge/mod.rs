//! Merging: from the layers to entries and listings, and back from what layers say of moved and
//! linked entries.

pub(in crate::union) mod attr;
pub(in crate::union) mod export;
pub(in crate::union) mod hardlink;
pub(in crate::union) mod instantiate;
pub(in crate::union) mod layers;
pub(in crate::union) mod lookup;
pub(in crate::union) mod metacopy;
pub(in crate::union) mod origin;
pub(in crate::union) mod readdir;
pub(in crate::union) mod redirect;
pub(in crate::union) mod renew;
pub(in crate::union) mod scan;
pub(in crate::union) mod unlisted;
pub(in crate::union) mod validity;
