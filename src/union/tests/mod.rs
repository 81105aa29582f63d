//! Tests of the union as a whole, without a mount.

pub(in crate::union) mod deep;
pub(in crate::union) mod live;
pub(in crate::union) mod privileges;
pub(in crate::union) mod recorded;
pub(in crate::union) mod testing;
pub(in crate::union) mod volume;
pub(in crate::union) mod volume_random;
pub(in crate::union) mod volume_shared;
