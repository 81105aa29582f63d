//! From a request to its reply, for the transports that speak the protocol themselves.
//!
//! [`Server::handle`] takes a request's bytes and writes the reply's; who carries them is none of
//! its concern. Nothing is kept per open file, unless files are opened for passthrough
//! (`opens.rs`).
//!
//! `server` is what the operations share; `attrs`, `data`, `entries`, `ioctl`, `opens` and
//! `readdir` are the operations, each a method of [`Server`]; `dispatch` chooses among them. What
//! the fuser adapter needs as well takes no [`Server`]: `setid` (who may keep setuid and setgid
//! bits), `failure_log`, `notifier` (messages to the kernel), `end`.

mod attrs;
mod data;
mod dispatch;
mod end;
mod entries;
mod failure_log;
mod ioctl;
mod listing_pages;
pub(in crate::fuse) mod notifier;
mod opens;
mod predictor;
mod privilege;
mod readdir;
mod server;
mod setid;
mod trace;

pub(in crate::fuse) use data::NARROW_COPY;
pub use dispatch::Outcome;
pub(in crate::fuse) use end::sync_at_end;
pub(in crate::fuse) use entries::Rename;
pub(in crate::fuse) use failure_log::{FailureLog, Subject};
pub(in crate::fuse) use opens::open_file;
pub use server::Server;
pub(in crate::fuse) use setid::{AclChange, Requester, SetidRules, Write, WriteKind};
