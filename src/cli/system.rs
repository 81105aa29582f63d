//! `unionmount system`: what the store takes, what the machine can do, cleaning up, checking.

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::{Failure, print};
use super::listing::{ListArgs, Listing, document, id, shortened, value};
use super::store_args::{StoreArgs, confirm};
use super::{system_info, units, visible};
use crate::store::{CheckOptions, PruneOptions, Pruned, Usage, time};

const EXAMPLES: &str = "\
Examples:
  unionmount system df -v
  unionmount system info
  unionmount system prune --all --volumes
  unionmount system check --deep";

/// `unionmount system`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SystemArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: SystemCommand,
}

/// The subcommands of `system`.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Show what images, containers, volumes and leftovers take
    Df(DfArgs),
    /// Show which driver, transport and forms are used here, and why
    Info(InfoArgs),
    /// Remove unused images, layers and what commands left that were killed
    Prune(PruneArgs),
    /// See whether the disk has what the catalog says
    Check(CheckArgs),
}

/// `system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Each image, container and volume
    #[arg(short, long)]
    pub verbose: bool,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `system info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Print this template with {{.Field}}
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// `system prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// All images that no container was made from, not only those without a name
    #[arg(short, long)]
    pub all: bool,

    /// Volumes without a name that no container uses, too
    #[arg(long)]
    pub volumes: bool,

    /// Do not ask
    #[arg(short, long)]
    pub force: bool,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// `system check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Put right what can be
    #[arg(long)]
    pub repair: bool,

    /// Read all layers, verify their digests, and compare their directories with their archives
    #[arg(long)]
    pub deep: bool,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Carries it out.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(crate) fn run(args: &SystemArgs) -> Result<(), Failure> {
    match &args.command {
        SystemCommand::Df(df) => disk_usage(&args.store, df),
        SystemCommand::Info(info) => system_info::run(&args.store, info),
        SystemCommand::Prune(prune) => self::prune(&args.store, prune),
        SystemCommand::Check(check) => self::check(&args.store, check),
    }
}

fn disk_usage(store: &StoreArgs, args: &DfArgs) -> Result<(), Failure> {
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
    Listing {
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
    let lines = usage.images.iter().map(|image| {
        json!({
            "Repository": image.repository,
            "Tag": image.tag,
            "ID": id(&image.id, no_trunc),
            "CreatedSince": time::ago(image.created),
            "Size": units::size(image.size),
            "SharedSize": units::size(image.shared_size),
            "UniqueSize": units::size(image.unique_size),
            "Containers": image.containers.to_string(),
        })
    });
    Listing {
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
    .print(&table)?;
    print(b"\nContainers space usage:\n\n")?;
    let lines = usage.containers.iter().map(|container| {
        json!({
            "ID": id(&container.id, no_trunc),
            "Image": container.image,
            "Command": format!("{:?}", shortened(&container.command, no_trunc, Some(super::listing::SHORT_COMMAND))),
            "LocalVolumes": container.local_volumes.to_string(),
            "Size": units::size(container.size),
            "CreatedSince": time::ago(Some(container.created)),
            "Status": container.status,
            "Names": container.names,
        })
    });
    Listing {
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
    .print(&table)?;
    print(b"\nLocal Volumes space usage:\n\n")?;
    let lines = usage.volumes.iter().map(|volume| {
        json!({
            "VolumeName": volume.volume_name,
            "Links": volume.links.to_string(),
            "Size": units::size(volume.size),
        })
    });
    Listing {
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
    .print(&table)
}

fn prune(store: &StoreArgs, args: &PruneArgs) -> Result<(), Failure> {
    if !args.force && !args.json && !confirmed(args)? {
        return Ok(());
    }
    let pruned = store.open()?.prune(PruneOptions {
        all: args.all,
        volumes: args.volumes,
    })?;
    if args.json {
        return print(document(&pruned)?.as_bytes());
    }
    let Pruned {
        containers,
        images,
        layers,
        volumes,
        leftovers,
        space_reclaimed,
    } = &pruned;
    let mut text = String::new();
    for (title, names) in [
        ("Deleted Containers", containers),
        ("Deleted Images", images),
        ("Deleted Layers", layers),
        ("Deleted Volumes", volumes),
    ] {
        if !names.is_empty() {
            text.push_str(&format!("{title}:\n{}\n\n", names.join("\n")));
        }
    }
    if *leftovers > 0 {
        text.push_str(&format!("Deleted Leftovers: {leftovers}\n\n"));
    }
    text.push_str(&format!(
        "Total reclaimed space: {}\n",
        units::size(*space_reclaimed)
    ));
    print(text.as_bytes())
}

/// Asks on a terminal; elsewhere there is nobody to ask.
fn confirmed(args: &PruneArgs) -> Result<bool, Failure> {
    let images = if args.all {
        "all images without a container"
    } else {
        "all images without a name"
    };
    let volumes = if args.volumes {
        ", all volumes without a name that no container uses"
    } else {
        ""
    };
    confirm(&format!(
        "{images}{volumes}, temporary containers that are not mounted, and what killed commands left"
    ))
}

fn check(store: &StoreArgs, args: &CheckArgs) -> Result<(), Failure> {
    let report = store.open()?.check(CheckOptions {
        deep: args.deep,
        repair: args.repair,
    })?;
    if args.json {
        print(document(&report)?.as_bytes())?;
    } else {
        let mut text = String::new();
        for finding in &report.findings {
            let end = if finding.repaired {
                "repaired"
            } else {
                &finding.cure
            };
            text.push_str(&format!("{}; {end}\n", visible::line(&finding.what)));
        }
        text.push_str(&format!(
            "{} layers, {} images, {} containers, {} volumes: {}\n",
            report.layers,
            report.images,
            report.containers,
            report.volumes,
            match report.findings.len() {
                0 => "all is well".to_owned(),
                1 => "1 finding".to_owned(),
                count => format!("{count} findings"),
            }
        ));
        print(text.as_bytes())?;
    }
    if report.is_bad() {
        let bad = report
            .findings
            .iter()
            .filter(|finding| !finding.repaired)
            .count();
        return Err(Failure::Operation(format!(
            "{bad} of the findings are not repaired; see above, or run 'unionmount system check --repair'"
        )));
    }
    Ok(())
}
