//! `unionmount volume create`.

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::{Failure, print};

/// `volume create`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct CreateArgs {
    /// Its name [default: a random one]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Makes a volume, and prints its name.
///
/// # Errors
/// The name is wrong, or the disk fails.
pub(super) fn run(store: &StoreArgs, args: &CreateArgs) -> Result<(), Failure> {
    let name = store.open()?.create_volume(args.name.as_deref())?;
    print(format!("{name}\n").as_bytes())
}
