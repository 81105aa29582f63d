//! What people and scripts see of a command: messages and exit codes, tables, JSON, templates,
//! archives on standard output, progress, and what an interruption does.

pub(in crate::cli) mod bar;
pub(in crate::cli) mod exit;
pub(in crate::cli) mod interrupt;
pub(in crate::cli) mod listing;
pub(in crate::cli) mod logging;
pub(in crate::cli) mod output;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod template;
pub(in crate::cli) mod units;
pub(in crate::cli) mod visible;

use std::ffi::OsStr;

/// A path in a message.
pub(in crate::cli) fn shown(path: &(impl AsRef<OsStr> + ?Sized)) -> String {
    format!("'{}'", path.as_ref().to_string_lossy())
}
