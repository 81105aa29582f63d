//! One directory as a layer: how to open beneath it, read and write its marks, and find out what it can do.
//!
//! A lower layer is read-only by type: [`LowerDir`] offers nothing that changes the disk, and every call that
//! does is a method of [`UpperDir`].

pub mod dir;
pub mod fd_cache;
pub mod mark;
pub mod probe;
pub(crate) mod real_path;
pub mod record;
pub mod stat;
pub mod upper;
pub mod watch;
pub mod way;
pub mod xattr;
pub mod xattr_name;

pub use dir::{Dir, LowerDir};
pub use fd_cache::{FdCache, FdSlot};
pub use upper::UpperDir;
