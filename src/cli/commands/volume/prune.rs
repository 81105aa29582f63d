//! `unionmount volume prune`.

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::{StoreArgs, confirm};
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::document;
use crate::cli::ui::units;

/// `volume prune`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct PruneArgs {
    /// Also those that have a name
    #[arg(short, long)]
    pub all: bool,

    /// Do not ask
    #[arg(short, long)]
    pub force: bool,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Removes the volumes that no container uses, after a question.
///
/// # Errors
/// There is no terminal to ask on, or the disk fails.
pub(super) fn run(store: &StoreArgs, args: &PruneArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let what = match args.all {
        true => "all volumes that no container uses, with their data",
        false => "all volumes without a name that no container uses, with their data",
    };
    if !args.force && !args.json && !confirm(what)? {
        return Ok(());
    }
    let (names, freed) = store.prune_volumes(args.all)?;
    if args.json {
        let report = json!({"VolumesDeleted": names, "SpaceReclaimed": freed});
        return print(document(&report)?.as_bytes());
    }
    let mut text = String::new();
    if !names.is_empty() {
        text = format!("Deleted Volumes:\n{}\n\n", names.join("\n"));
    }
    text.push_str(&format!("Total reclaimed space: {}\n", units::size(freed)));
    print(text.as_bytes())
}
