//! `unionmount container`: writable layers over images.

mod bind;
mod commit;
mod create;
mod diff;
mod export;
mod inspect;
mod ls;
mod mount;
mod rm;
mod umount;

use clap::{Args, Subcommand};

use super::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;

pub(super) use bind::from_volume;
pub(super) use umount::after_umount;

const EXAMPLES: &str = "\
Examples:
  unionmount container create --name box debian:12
  cd $(unionmount container mount box)
  unionmount container diff box
  unionmount container commit --change 'CMD [\"/bin/app\"]' box app:1
  unionmount container rm --force box";

/// `unionmount container`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ContainerArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do with containers.
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// The subcommands of `container`.
#[derive(Debug, Subcommand)]
pub(super) enum ContainerCommand {
    /// Make a container of an image, and print its id
    #[command(after_help = create::EXAMPLES)]
    Create(create::CreateArgs),
    /// List containers
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Mount a container, and print where
    Mount(mount::MountArgs),
    /// Unmount containers
    #[command(visible_alias = "unmount")]
    Umount(umount::UmountArgs),
    /// Show what was added (A), changed (C) and deleted (D)
    Diff(diff::DiffArgs),
    /// Make an image of a container's changes, and print its id
    Commit(commit::CommitArgs),
    /// Write what a container shows as a flat tar
    Export(export::ExportArgs),
    /// Remove containers with their changes
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    /// Show everything about containers, as JSON
    Inspect(inspect::InspectArgs),
}

impl ContainerCommand {
    /// Whether it becomes a daemon, which answers signals by unmounting.
    #[must_use]
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self, Self::Mount(_))
    }
}

/// Runs `unionmount container`.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(super) fn run(args: ContainerArgs) -> Result<(), Failure> {
    let store = args.store;
    match args.command {
        ContainerCommand::Create(args) => create::run(&store, args),
        ContainerCommand::Ls(args) => ls::run(&store, &args),
        ContainerCommand::Mount(args) => mount::run(&store, &args),
        ContainerCommand::Umount(args) => umount::run(&store, &args),
        ContainerCommand::Diff(args) => diff::run(&store, &args),
        ContainerCommand::Commit(args) => commit::run(&store, args),
        ContainerCommand::Export(args) => export::run(&store, &args),
        ContainerCommand::Rm(args) => rm::run(&store, &args),
        ContainerCommand::Inspect(args) => inspect::run(&store, &args),
    }
}
