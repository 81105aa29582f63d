//! One directory as a layer: how to open beneath it, read and write its marks, and find out what it can do.
//!
//! A lower layer is read-only by type: [`LowerDir`] offers nothing that changes the disk, and every call that
//! does is a method of [`UpperDir`].

pub mod descent;
pub mod dir;
pub mod fd_cache;
pub mod marks;
pub mod probe;
pub(crate) mod remove;
pub mod stat;
pub mod stat_override;
pub mod upper;
pub mod watch;
pub mod xattr;
pub mod xattr_name;

pub use descent as way;
pub use dir::{Dir, LowerDir};
pub use fd_cache::{FdCache, FdSlot};
pub use marks as mark;
pub use stat_override as record;
pub use upper::UpperDir;
