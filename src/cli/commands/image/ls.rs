//! `unionmount image ls`.

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{ListArgs, ListOutput, id, value};
use crate::cli::ui::units;
use crate::store::time;

/// `image ls`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct LsArgs {
    /// Only images of this repository or name
    #[arg(value_name = "NAME")]
    pub filter: Option<String>,

    /// Show the digests of the manifests
    #[arg(long)]
    pub digests: bool,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Lists the images.
///
/// # Errors
/// The store cannot be opened or read, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &LsArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let lines = store.image_lines(args.filter.as_deref())?;
    let no_trunc = args.list.no_trunc;
    let columns: &[(&str, &str)] = if args.digests {
        &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("DIGEST", "Digest"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
        ]
    } else {
        &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
        ]
    };
    let shown = lines
        .iter()
        .map(|line| {
            json!({
                "Repository": line.repository,
                "Tag": line.tag,
                "Digest": line.digest,
                "ID": id(&line.id, no_trunc),
                "CreatedSince": time::ago(line.created),
                "CreatedAt": line.created.map_or_else(|| "N/A".to_owned(), time::format),
                "Size": units::size(line.size),
                "VirtualSize": units::size(line.size),
                "Containers": line.containers.to_string(),
            })
        })
        .collect();
    ListOutput {
        columns,
        more: &[
            ("DIGEST", "Digest"),
            ("CREATED AT", "CreatedAt"),
            ("VIRTUAL SIZE", "VirtualSize"),
        ],
        lines: shown,
        quiet: "ID",
        document: value(&lines)?,
    }
    .print(&args.list)
}
