//! `unionmount image inspect`.

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{self, print_inspected};

/// `image inspect`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// How it is printed.
    #[command(flatten)]
    pub inspect: listing::InspectArgs,
}

/// Prints all about images.
///
/// # Errors
/// There is no such image, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &InspectArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let mut values = Vec::new();
    for word in &args.images {
        values.push(store.inspect_image(word)?);
    }
    print_inspected(values, &args.inspect)
}
