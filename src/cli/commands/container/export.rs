//! `unionmount container export`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::output::Output;

/// `container export`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct ExportArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// Write into this file, which appears when it is complete [default: -, standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the archive.
///
/// # Errors
/// There is no such container, or it cannot be read, or the output not be written.
pub(super) fn run(store: &StoreArgs, args: &ExportArgs) -> Result<(), Failure> {
    let output = Output::new(args.output.as_deref())?;
    let store = store.open()?;
    output.write(|out| Ok(store.export(&args.container, out)?))
}
