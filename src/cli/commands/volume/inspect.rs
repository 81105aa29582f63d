//! `unionmount volume inspect`.

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{self, print_inspected, value};

/// `volume inspect`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct InspectArgs {
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,

    /// How it is printed.
    #[command(flatten)]
    pub inspect: listing::InspectArgs,
}

/// Prints all about volumes.
///
/// # Errors
/// There is no such volume, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &InspectArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let mut values = Vec::new();
    for word in &args.volumes {
        values.push(value(&store.inspect_volume(word)?)?);
    }
    print_inspected(values, &args.inspect)
}
