//! `unionmount system`: what the store takes, what the machine can do, cleaning up, checking.

mod check;
mod df;
mod info;
mod prune;

use clap::{Args, Subcommand};

use super::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  unionmount system df -v
  unionmount system info
  unionmount system prune --all --volumes
  unionmount system check --deep";

/// `unionmount system`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SystemArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: SystemCommand,
}

/// The subcommands of `system`.
#[derive(Debug, Subcommand)]
pub(super) enum SystemCommand {
    /// Show what images, containers, volumes and leftovers take
    Df(df::DfArgs),
    /// Show which driver, transport and forms are used here, and why
    Info(info::InfoArgs),
    /// Remove unused images, layers and what commands left that were killed
    Prune(prune::PruneArgs),
    /// See whether the disk has what the catalog says
    Check(check::CheckArgs),
}

/// Runs `unionmount system`.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(super) fn run(args: &SystemArgs) -> Result<(), Failure> {
    let store = &args.store;
    match &args.command {
        SystemCommand::Df(args) => df::run(store, args),
        SystemCommand::Info(args) => info::run(store, args),
        SystemCommand::Prune(args) => prune::run(store, args),
        SystemCommand::Check(args) => check::run(store, args),
    }
}
