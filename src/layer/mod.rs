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

pub(crate) mod descent;
pub(crate) mod dir;
pub(crate) mod fd_cache;
pub(crate) mod marks;
pub(crate) mod object;
mod open;
pub(crate) mod probe;
pub(crate) mod read_dir;
mod read_only;
pub(crate) mod real_path;
pub(crate) mod remove;
pub mod stat;
pub(crate) mod stat_override;
pub(crate) mod watch;
mod writable;
pub(crate) mod xattr;
pub(crate) mod xattr_name;

pub(crate) use dir::Dir;
pub use dir::Name;
pub(crate) use fd_cache::{FdCache, FdSlot};
pub use object::SetTime;
pub(crate) use read_only::ReadOnlyDir;
pub(crate) use writable::WritableDir;
