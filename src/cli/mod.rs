//! The command line: two forms, one program.
//!
//! * `unionmount mount|umount|image|.. ..`, the commands;
//! * the compatible form without a command (`commands/compat.rs`), which container engines and
//!   mount(8) use.
//!
//! | room | holds |
//! | --- | --- |
//! | `commands` | one file or directory per command with its arguments |
//! | `mounting` | what commands that mount and unmount share: checks before, requests, the daemon's end |
//! | `ui` | messages and exit codes, tables, JSON, templates, progress bars, interruption |
//! | `options` | the `-o` language and its table |

mod commands;
mod mounting;
pub(crate) mod options;
mod ui;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line, `argv[0]` first, and returns the exit code (see `ui/exit.rs`).
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    crate::sys::limits::reset();
    ui::exit::report(commands::dispatch(arguments))
}
