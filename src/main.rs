//! The `unionmount` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    unionmount::internal::run(std::env::args_os())
}
