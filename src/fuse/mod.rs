//! FUSE: one session with the kernel. The only room that knows the wire and the library fuser.
//!
//! ```text
//! session ─> transport (dev, uring, fuser) ─> serve ─> proto
//! ```
//!
//! Each room uses those to its right; all of them use the plain values beside them (`control`,
//! `init`, `settings`).
//!
//! * [`session`]: mounting, the daemon, signals, unmounting.
//! * `transport`: carries requests and replies between the kernel and [`serve`]. `fuser` is the
//!   portable transport: the library of that name reads and writes the wire, and the adapter calls
//!   the union.
//! * [`serve`]: what a request asks for, done on the union.
//! * [`proto`]: the structures of the protocol, read and written.
//! * [`init`]: what is asked of the kernel at INIT. [`control`]: the ioctls of our own commands.
//!   [`settings`]: what a session needs besides the union.

pub(crate) mod control;
pub(crate) mod init;
pub(crate) mod proto;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod settings;
mod transport;
