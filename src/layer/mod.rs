//! Directories as layers: how to open beneath one, read and write its marks, and find out what its
//! disk can do.
//!
//! A directory has the type of what may be done with it: [`ReadOnlyDir`] offers nothing that
//! changes the disk, every call that does is a method of [`WritableDir`], and
//! [`WritableDir::read_only`] returns the right to change away.
//!
//! | file | job |
//! | --- | --- |
//! | `stat`, `xattr`, `stat_override`, `xattr_name` | what a disk, and xattrs on it, say about one object |
//! | `object` | changing one object behind a descriptor |
//! | `dir`, `open`, `read_dir`, `fd_cache` | a directory: its place, opening it, listing it |
//! | `read_only`, `writable` | the two types of directories |
//! | [`marks`] | whiteouts, opaque marks, our own xattrs |
//! | `descent`, `remove` | walking down a tree with few descriptors; removing one |
//! | `probe`, `watch` | what a disk can do; changes that others make |

pub mod descent;
pub mod dir;
pub mod fd_cache;
pub mod marks;
pub mod object;
mod open;
pub mod probe;
pub mod read_dir;
mod read_only;
pub(crate) mod real_path;
pub(crate) mod remove;
pub mod stat;
pub mod stat_override;
pub mod watch;
mod writable;
pub mod xattr;
pub mod xattr_name;

pub use dir::Dir;
pub use fd_cache::{FdCache, FdSlot};
pub use read_only::ReadOnlyDir;
pub use writable::WritableDir;
