//! The road to the kernel: decodes FUSE requests, calls the union, sends the replies. The only place that
//! knows fuser and the wire.

mod answer;
mod convert;
mod fuser;
mod init;
mod list;
pub mod mountinfo;
mod node_ids;
pub mod session;
pub mod settings;
mod shared;
mod workers;
