//! `unionmount layer`: layers outside a store, as archives and as directories.

mod apply;
mod diff;
mod ls;

use clap::{Args, Subcommand};

use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::{logging, visible};

/// `unionmount layer`.
#[derive(Debug, Args)]
pub(super) struct LayerArgs {
    /// What to do with a layer.
    #[command(subcommand)]
    pub command: LayerCommand,
}

/// The subcommands of `layer`.
#[derive(Debug, Subcommand)]
pub(super) enum LayerCommand {
    /// Unpack a layer archive (tar, tar.gz, tar.zst) into a directory
    ///
    /// Into a new or empty directory the layer is unpacked as it is: whiteouts become marks, and
    /// the directory can be a --lower of a mount. On a directory that holds something the layer is
    /// carried out: what it deletes is removed, what it brings replaces what was there. Whatever is
    /// wrong with the archive, the directory stays as it was.
    #[command(after_help = apply::EXAMPLES)]
    Apply(apply::ApplyArgs),
    /// Write the changes in an upper directory as a layer archive
    ///
    /// The same changes give the same archive, byte for byte, on any machine.
    #[command(after_help = diff::EXAMPLES)]
    Diff(diff::DiffArgs),
    /// List the layers of the store, and who shares them
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
}

/// Runs `unionmount layer`.
///
/// # Errors
/// [`Failure::Operation`] when the archive or a directory is not what it should be,
/// [`Failure::Usage`] for options that contradict each other.
pub(super) fn run(args: &LayerArgs) -> Result<(), Failure> {
    logging::init(false, None)?;
    match &args.command {
        LayerCommand::Ls(args) => ls::run(args),
        LayerCommand::Apply(args) => apply::run(args),
        LayerCommand::Diff(args) => diff::run(args),
    }
}

/// Prints a document and a line feed.
///
/// # Errors
/// As [`print()`].
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(format!("{}\n", visible::json(&format!("{value:#}"))).as_bytes())
}
