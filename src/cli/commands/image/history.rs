//! `unionmount image history`.

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{ListArgs, ListOutput, id, shortened, value};
use crate::cli::ui::units;
use crate::store::time;

/// `image history`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Prints how an image was made.
///
/// # Errors
/// There is no such image, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &HistoryArgs) -> Result<(), Failure> {
    let lines = store.open()?.image_history(&args.image)?;
    let no_trunc = args.list.no_trunc;
    let shown = lines
        .iter()
        .map(|line| {
            json!({
                "ID": if line.id.starts_with('<') { line.id.clone() } else { id(&line.id, no_trunc) },
                "CreatedSince": time::ago(line.created),
                "CreatedAt": line.created.map_or_else(|| "N/A".to_owned(), time::format),
                "CreatedBy": shortened(&line.created_by, no_trunc, None),
                "Size": units::size(line.size),
                "Comment": shortened(&line.comment, no_trunc, None),
            })
        })
        .collect();
    ListOutput {
        columns: &[
            ("IMAGE", "ID"),
            ("CREATED", "CreatedSince"),
            ("CREATED BY", "CreatedBy"),
            ("SIZE", "Size"),
            ("COMMENT", "Comment"),
        ],
        more: &[("CREATED AT", "CreatedAt")],
        lines: shown,
        quiet: "ID",
        document: value(&lines)?,
    }
    .print(&args.list)
}
