//! `unionmount container ls`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{ListArgs, ListOutput, SHORT_COMMAND, id, shortened};
use crate::cli::ui::units;
use crate::store::{Container, Status, mountpoint, mounts, status_word, time};

/// `container ls`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct LsArgs {
    /// Show the bytes of the writable layer, and with the image's
    #[arg(short, long)]
    pub size: bool,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Lists the containers.
///
/// # Errors
/// The store cannot be opened or read.
pub(super) fn run(store: &StoreArgs, args: &LsArgs) -> Result<(), Failure> {
    let (store, mounts) = (store.open()?, mounts()?);
    let no_trunc = args.list.no_trunc;
    let (mut lines, mut documents) = (Vec::new(), Vec::new());
    for container in store.containers()? {
        let status = store.status(&container, &mounts)?;
        let sizes = if args.size {
            Some(store.container_size(&container)?)
        } else {
            None
        };
        lines.push(line(&container, &status, sizes, no_trunc));
        let mut exact = json!({
            "ID": container.id,
            "Image": container.image_name,
            "ImageID": container.image,
            "Command": container.command,
            "Created": container.created,
            "Status": status_word(&status),
            "Mountpoint": mountpoint(&status),
            "Names": container.name,
            "Driver": container.driver.name(),
            "Temporary": container.temporary,
        });
        if let Some((own, whole)) = sizes {
            exact["Size"] = json!(own);
            exact["VirtualSize"] = json!(whole);
        }
        documents.push(exact);
    }
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("NAMES", "Names"),
    ];
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    ListOutput {
        columns: &columns,
        more: &[
            ("SIZE", "Size"),
            ("CREATED AT", "CreatedAt"),
            ("MOUNTPOINT", "Mountpoint"),
        ],
        lines,
        quiet: "ID",
        document: Value::Array(documents),
    }
    .print(&args.list)
}

fn line(
    container: &Container,
    status: &Status,
    sizes: Option<(u64, u64)>,
    no_trunc: bool,
) -> Value {
    json!({
        "ID": id(&container.id, no_trunc),
        "Image": container.image_name,
        "Command": format!("\"{}\"", shortened(&container.command, no_trunc, Some(SHORT_COMMAND))),
        "RunningFor": time::ago(Some(container.created)),
        "CreatedAt": time::format(container.created),
        "Status": status_word(status),
        "Mountpoint": mountpoint(status),
        "Names": container.name,
        "Driver": container.driver.name(),
        "Size": sizes.map_or_else(String::new, |(own, whole)| {
            format!("{} (virtual {})", units::size(own), units::size(whole))
        }),
    })
}
