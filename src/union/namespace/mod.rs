//! Names: making, linking, removing and renaming entries.

pub(in crate::union) mod create;
pub(in crate::union) mod link;
pub(in crate::union) mod new_object;
pub(in crate::union) mod remove;
pub(in crate::union) mod rename;
pub(in crate::union) mod tmpfile;
