//! The work directory and what else a writable union has.
pub(in crate::union) mod stage;
pub(in crate::union) mod writable;
