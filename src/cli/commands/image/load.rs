//! `unionmount image load`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::archive::Limits;
use crate::cli::commands::limit_args::{LimitArgs, size};
use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::document;
use crate::cli::ui::progress::Bars;
use crate::store::documents::Platform;
use crate::store::reference::Reference;
use crate::store::{LoadOptions, Loaded, STDIN};

pub(super) const EXAMPLES: &str = "\
Examples:
  docker save debian:12 | unionmount image load
  unionmount image load layout/ --platform linux/arm64 --name localhost/app:1";

/// `image load`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct LoadArgs {
    /// An archive, a directory, or - for standard input
    #[arg(value_name = "FILE|DIR|-", default_value = "-")]
    pub source: PathBuf,

    /// Choose this platform, OS/ARCH[/VARIANT], from an image for several [default: the machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,

    /// Name the image so, instead of what the archive says
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Say nothing about layers
    #[arg(short, long)]
    pub quiet: bool,

    /// Print one JSON document about what was loaded
    #[arg(long)]
    pub json: bool,

    /// Most bytes of a JSON document
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "8M", help_heading = "Limits")]
    pub max_json: u64,

    /// The other limits.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Loads the images, and prints their names.
///
/// # Errors
/// The archive is not what it should be, or the disk fails; nothing is loaded then.
pub(super) fn run(store: &StoreArgs, args: &LoadArgs) -> Result<(), Failure> {
    if args.source.as_os_str() == STDIN && std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "standard input is a terminal; name a file or directory, or pipe an archive into the command".to_owned(),
        ));
    }
    let options = LoadOptions {
        platform: args.platform.as_deref().map(Platform::parse).transpose()?,
        name: args.name.as_deref().map(Reference::parse).transpose()?,
        limits: Limits {
            json: usize::try_from(args.max_json).unwrap_or(usize::MAX),
            ..args.limits.limits()
        },
    };
    let mut store = store.open()?;
    let bars = Bars::new(args.quiet || args.json);
    let loaded = store.load(&args.source, &options, &bars)?;
    drop(bars);
    if args.json {
        let images: Vec<_> = loaded.iter().map(as_json).collect();
        return print(document(&images)?.as_bytes());
    }
    let mut text = String::new();
    for image in &loaded {
        for name in &image.names {
            text.push_str(&format!("Loaded image: {name}\n"));
        }
        if image.names.is_empty() {
            text.push_str(&format!("Loaded image ID: {}\n", image.id));
        }
    }
    print(text.as_bytes())
}

fn as_json(image: &Loaded) -> Value {
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|(diff_id, existed)| {
            let status = if *existed {
                "already exists"
            } else {
                "unpacked"
            };
            json!({"DiffID": diff_id, "Status": status})
        })
        .collect();
    let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
    json!({"ID": image.id, "Names": names, "Layers": layers})
}
