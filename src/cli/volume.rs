//! `unionmount volume`: directories that containers share and that outlive them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::exit::{Failure, print};
use super::listing::{InspectArgs, ListArgs, Listing, document, print_inspected, value};
use super::store_args::{StoreArgs, confirm, for_each};
use super::units;

const EXAMPLES: &str = "\
Examples:
  unionmount volume create data
  unionmount container create app -v data:/var/lib/app
  unionmount volume ls
  unionmount volume rm data";

/// `unionmount volume`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VolumeArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do with volumes.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// The subcommands of `volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume; one that is there stays as it is
    Create {
        /// Its name [default: a random one]
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Show everything about volumes, as JSON
    Inspect {
        /// Names
        #[arg(value_name = "VOLUME", required = true)]
        volumes: Vec<String>,

        /// How it is printed.
        #[command(flatten)]
        inspect: InspectArgs,
    },
    /// Remove volumes that no container uses, with everything in them
    #[command(visible_alias = "remove")]
    Rm {
        /// Names
        #[arg(value_name = "VOLUME", required = true)]
        volumes: Vec<String>,
    },
    /// Remove the volumes without a name that no container uses
    Prune {
        /// Also those that have a name
        #[arg(short, long)]
        all: bool,

        /// Do not ask
        #[arg(short, long)]
        force: bool,

        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Carries it out.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(crate) fn run(args: &VolumeArgs) -> Result<(), Failure> {
    let mut store = args.store.open()?;
    match &args.command {
        VolumeCommand::Create { name } => {
            let name = store.create_volume(name.as_deref())?;
            print(format!("{name}\n").as_bytes())
        }
        VolumeCommand::Ls(list) => {
            let volumes = store.volumes()?;
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
            Listing {
                columns: &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")],
                more: &[("CREATED AT", "CreatedAt")],
                lines,
                quiet: "Name",
                document: value(&volumes)?,
            }
            .print(list)
        }
        VolumeCommand::Inspect { volumes, inspect } => {
            let mut values: Vec<Value> = Vec::new();
            for word in volumes {
                values.push(value(&store.inspect_volume(word)?)?);
            }
            print_inspected(values, inspect)
        }
        VolumeCommand::Rm { volumes } => for_each(volumes, |word| {
            let name = store.remove_volume(word)?;
            print(format!("{name}\n").as_bytes())
        }),
        VolumeCommand::Prune { all, force, json } => {
            let what = match all {
                true => "all volumes that no container uses, with their data",
                false => "all volumes without a name that no container uses, with their data",
            };
            if !force && !json && !confirm(what)? {
                return Ok(());
            }
            let (names, freed) = store.prune_volumes(*all)?;
            if *json {
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
    }
}
