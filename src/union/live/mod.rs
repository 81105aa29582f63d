//! Lower layers that others change while they are mounted (`cache=auto`).

pub(in crate::union) mod watching;
