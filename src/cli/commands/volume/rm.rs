//! `unionmount volume rm`.

use clap::Args;

use crate::cli::commands::store_args::{StoreArgs, for_each};
use crate::cli::ui::exit::{Failure, print};

/// `volume rm`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct RmArgs {
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

/// Removes volumes.
///
/// # Errors
/// The first that could not be removed; all are tried.
pub(super) fn run(store: &StoreArgs, args: &RmArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    for_each(&args.volumes, |word| {
        let name = store.remove_volume(word)?;
        print(format!("{name}\n").as_bytes())
    })
}
