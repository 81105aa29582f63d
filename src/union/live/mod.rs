//! Lower layers that others change while they are mounted (`cache=auto`).

pub(in crate::union) mod changes;
pub(in crate::union) mod others;
pub(in crate::union) mod renew;
pub(in crate::union) mod watching;
