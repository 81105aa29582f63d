//! The numbers of nodes and volumes.

/// The number by which a transport names an inode. Never reused while the union lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the merged tree.
    pub const ROOT: Self = Self(1);
}

/// The number of a volume of the union, from 0.
pub(in crate::union) type VolumeNo = u16;
