//! `unionmount completions`: made from the definition of the command line.

use clap::Args;

use super::command;
use crate::cli::ui::exit::{Failure, print};

/// `unionmount completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Prints a completion script.
///
/// # Errors
/// [`Failure::Operation`] when standard output cannot be written.
pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: clap_complete panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "unionmount", &mut script);
    print(&script)
}
