//! `unionmount container inspect`.

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{self, print_inspected};
use crate::store::mounts;

/// `container inspect`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,

    /// How it is printed.
    #[command(flatten)]
    pub inspect: listing::InspectArgs,
}

/// Prints all about containers.
///
/// # Errors
/// There is no such container, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &InspectArgs) -> Result<(), Failure> {
    let (mut store, mounts) = (store.open()?, mounts()?);
    let mut values = Vec::new();
    for word in &args.containers {
        values.push(store.inspect_container(word, &mounts)?);
    }
    print_inspected(values, &args.inspect)
}
