//! `unionmount layer ls`: the layers of the store, and who shares them.

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{ListArgs, ListOutput, value};
use crate::cli::ui::units;
use crate::store::{Store, time};

/// `layer ls`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct LsArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Lists the layers.
///
/// # Errors
/// The store cannot be opened.
pub(super) fn run(args: &LsArgs) -> Result<(), Failure> {
    let lines = Store::open(args.store.root.as_deref())?.layer_lines()?;
    let shown = lines
        .iter()
        .map(|line| {
            json!({
                "ID": if args.list.no_trunc { line.diff_id.clone() } else { line.id.clone() },
                "DiffID": line.diff_id,
                "Size": units::size(line.size),
                "ArchiveSize": units::size(line.archive_size),
                "Images": line.images.join(", "),
                "Containers": line.containers.join(", "),
                "CreatedSince": time::ago(Some(line.created)),
                "Path": line.path,
            })
        })
        .collect();
    ListOutput {
        columns: &[
            ("LAYER ID", "ID"),
            ("SIZE", "Size"),
            ("ARCHIVES", "ArchiveSize"),
            ("STORED", "CreatedSince"),
            ("IMAGES", "Images"),
            ("CONTAINERS", "Containers"),
        ],
        more: &[],
        lines: shown,
        quiet: "ID",
        document: value(&lines)?,
    }
    .print(&args.list)
}
