//! `unionmount volume`: directories that containers share and that outlive them.

mod create;
mod inspect;
mod ls;
mod prune;
mod rm;

use clap::{Args, Subcommand};

use super::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::ListArgs;

const EXAMPLES: &str = "\
Examples:
  unionmount volume create data
  unionmount container create app -v data:/var/lib/app
  unionmount volume ls
  unionmount volume rm data";

/// `unionmount volume`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct VolumeArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do with volumes.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// The subcommands of `volume`.
#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
    /// Make a volume; one that is there stays as it is
    Create(create::CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about volumes, as JSON
    Inspect(inspect::InspectArgs),
    /// Remove volumes that no container uses, with everything in them
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    /// Remove the volumes without a name that no container uses
    Prune(prune::PruneArgs),
}

/// Runs `unionmount volume`.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(super) fn run(args: &VolumeArgs) -> Result<(), Failure> {
    let store = &args.store;
    match &args.command {
        VolumeCommand::Create(args) => create::run(store, args),
        VolumeCommand::Ls(args) => ls::run(store, args),
        VolumeCommand::Inspect(args) => inspect::run(store, args),
        VolumeCommand::Rm(args) => rm::run(store, args),
        VolumeCommand::Prune(args) => prune::run(store, args),
    }
}
