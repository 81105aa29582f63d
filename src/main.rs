//! The `unionmount` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    unionmount::cli::run(std::env::args_os())
}
