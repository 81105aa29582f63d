//! The road to the kernel: decodes FUSE requests, calls the union, sends the replies. The only place that
//! knows fuser and the wire.

mod answer;
pub mod control;
mod convert;
mod dev;
mod fuser;
mod handshake;
pub mod init;
mod labels;
mod list;
pub mod mountinfo;
mod node_ids;
mod notifier;
mod privilege;
pub mod proto;
mod report;
pub mod serve;
pub mod session;
pub mod settings;
mod shared;
mod transport;
mod unmounting;
mod uring;
mod watch;
mod workers;
