//! `unionmount volume ls`.

use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::listing::{ListArgs, ListOutput, value};

/// Lists the volumes.
///
/// # Errors
/// The store cannot be opened or read, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &ListArgs) -> Result<(), Failure> {
    let volumes = store.open()?.volumes()?;
    let lines = volumes
        .iter()
        .map(|volume| {
            json!({
                "Driver": volume.driver,
                "Name": volume.name,
                "Mountpoint": volume.mountpoint,
                "Scope": volume.scope,
                "CreatedAt": volume.created_at,
                "Links": volume.containers.len().to_string(),
            })
        })
        .collect();
    ListOutput {
        columns: &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")],
        more: &[("CREATED AT", "CreatedAt")],
        lines,
        quiet: "Name",
        document: value(&volumes)?,
    }
    .print(args)
}
