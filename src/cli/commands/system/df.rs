//! `unionmount system df`.

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::{ListArgs, ListOutput, SHORT_COMMAND, id, shortened, value};
use crate::cli::ui::units;
use crate::store::{Usage, time};

/// `system df`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct DfArgs {
    /// Each image, container and volume
    #[arg(short, long)]
    pub verbose: bool,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// Shows what images, containers, volumes and leftovers take.
///
/// # Errors
/// The store cannot be opened or read, or a template is wrong.
pub(super) fn run(store: &StoreArgs, args: &DfArgs) -> Result<(), Failure> {
    let usage = store.open()?.usage()?;
    if args.verbose && !args.list.json && args.list.format.is_none() {
        return verbose(&usage, args.list.no_trunc);
    }
    let lines = usage
        .summary
        .iter()
        .map(|line| {
            json!({
                "Type": line.kind,
                "TotalCount": line.total_count.to_string(),
                "Active": line.active.to_string(),
                "Size": units::exact_size(line.size),
                "Reclaimable": format!(
                    "{}{}",
                    units::exact_size(line.reclaimable),
                    units::percent(line.reclaimable, line.size)
                ),
            })
        })
        .collect();
    let document = if args.verbose {
        value(&usage)?
    } else {
        value(&usage.summary)?
    };
    ListOutput {
        columns: &[
            ("TYPE", "Type"),
            ("TOTAL", "TotalCount"),
            ("ACTIVE", "Active"),
            ("SIZE", "Size"),
            ("RECLAIMABLE", "Reclaimable"),
        ],
        more: &[],
        lines,
        quiet: "Type",
        document,
    }
    .print(&args.list)
}

fn verbose(usage: &Usage, no_trunc: bool) -> Result<(), Failure> {
    let table = ListArgs {
        no_trunc,
        ..ListArgs::default()
    };
    print(b"Images space usage:\n\n")?;
    images(usage, &table)?;
    print(b"\nContainers space usage:\n\n")?;
    containers(usage, &table)?;
    print(b"\nLocal Volumes space usage:\n\n")?;
    volumes(usage, &table)
}

fn images(usage: &Usage, table: &ListArgs) -> Result<(), Failure> {
    let lines = usage.images.iter().map(|image| {
        json!({
            "Repository": image.repository,
            "Tag": image.tag,
            "ID": id(&image.id, table.no_trunc),
            "CreatedSince": time::ago(image.created),
            "Size": units::size(image.size),
            "SharedSize": units::size(image.shared_size),
            "UniqueSize": units::size(image.unique_size),
            "Containers": image.containers.to_string(),
        })
    });
    ListOutput {
        columns: &[
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
            ("SHARED SIZE", "SharedSize"),
            ("UNIQUE SIZE", "UniqueSize"),
            ("CONTAINERS", "Containers"),
        ],
        more: &[],
        lines: lines.collect(),
        quiet: "ID",
        document: json!([]),
    }
    .print(table)
}

fn containers(usage: &Usage, table: &ListArgs) -> Result<(), Failure> {
    let lines = usage.containers.iter().map(|container| {
        json!({
            "ID": id(&container.id, table.no_trunc),
            "Image": container.image,
            "Command": format!("{:?}", shortened(&container.command, table.no_trunc, Some(SHORT_COMMAND))),
            "LocalVolumes": container.local_volumes.to_string(),
            "Size": units::size(container.size),
            "CreatedSince": time::ago(Some(container.created)),
            "Status": container.status,
            "Names": container.names,
        })
    });
    ListOutput {
        columns: &[
            ("CONTAINER ID", "ID"),
            ("IMAGE", "Image"),
            ("COMMAND", "Command"),
            ("LOCAL VOLUMES", "LocalVolumes"),
            ("SIZE", "Size"),
            ("CREATED", "CreatedSince"),
            ("STATUS", "Status"),
            ("NAMES", "Names"),
        ],
        more: &[],
        lines: lines.collect(),
        quiet: "ID",
        document: json!([]),
    }
    .print(table)
}

fn volumes(usage: &Usage, table: &ListArgs) -> Result<(), Failure> {
    let lines = usage.volumes.iter().map(|volume| {
        json!({
            "VolumeName": volume.volume_name,
            "Links": volume.links.to_string(),
            "Size": units::size(volume.size),
        })
    });
    ListOutput {
        columns: &[
            ("VOLUME NAME", "VolumeName"),
            ("LINKS", "Links"),
            ("SIZE", "Size"),
        ],
        more: &[],
        lines: lines.collect(),
        quiet: "VolumeName",
        document: json!([]),
    }
    .print(table)
}
