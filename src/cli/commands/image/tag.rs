//! `unionmount image tag`.

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;

/// `image tag`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// The new name, REPOSITORY or REPOSITORY:TAG
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Adds a name to an image.
///
/// # Errors
/// There is no such image, or the name is wrong.
pub(super) fn run(store: &StoreArgs, args: &TagArgs) -> Result<(), Failure> {
    store.open()?.tag_image(&args.image, &args.name)?;
    Ok(())
}
