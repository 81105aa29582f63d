//! `unionmount system prune`.

use clap::Args;

use crate::cli::commands::store_args::{StoreArgs, confirm};
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::document;
use crate::cli::ui::units;
use crate::store::{PruneOptions, Pruned};

/// `system prune`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct PruneArgs {
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

/// Removes what is unused, after a question.
///
/// # Errors
/// There is no terminal to ask on, or the disk fails.
pub(super) fn run(store: &StoreArgs, args: &PruneArgs) -> Result<(), Failure> {
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

/// Asks on a terminal; elsewhere that is an error.
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
