//! `unionmount image`: loading, showing, naming, removing and saving images.

mod history;
mod inspect;
mod load;
mod ls;
mod rm;
mod save;
mod tag;

use clap::{Args, Subcommand};

use super::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;

const EXAMPLES: &str = "\
Examples:
  docker save debian:12 | unionmount image load
  unionmount image load app.tar             an archive of docker save, podman save, skopeo, buildkit, umoci
  unionmount image load layout/ --platform linux/arm64
  unionmount image ls
  unionmount image save debian:12 -o debian.tar --compress zstd
  unionmount image rm debian:12";

/// `unionmount image`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImageArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do with images.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The subcommands of `image`.
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Load images from an OCI layout (directory or tar) or an archive of docker save
    #[command(after_help = load::EXAMPLES)]
    Load(load::LoadArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Show everything about images, as JSON
    Inspect(inspect::InspectArgs),
    /// Show how an image was made
    History(history::HistoryArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Take names from images, and remove images that have no other
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
    /// Write images into an archive
    #[command(after_help = save::EXAMPLES)]
    Save(save::SaveArgs),
}

/// Runs `unionmount image`.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(super) fn run(args: &ImageArgs) -> Result<(), Failure> {
    let store = &args.store;
    match &args.command {
        ImageCommand::Load(args) => load::run(store, args),
        ImageCommand::Ls(args) => ls::run(store, args),
        ImageCommand::Inspect(args) => inspect::run(store, args),
        ImageCommand::History(args) => history::run(store, args),
        ImageCommand::Tag(args) => tag::run(store, args),
        ImageCommand::Rm(args) => rm::run(store, args),
        ImageCommand::Save(args) => save::run(store, args),
    }
}
