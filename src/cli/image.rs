//! `unionmount image`: loading, showing, naming, removing and saving images.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::exit::{Failure, print};
use super::limit_args::{LimitArgs, size};
use super::listing::{
    InspectArgs, ListArgs, Listing, document, id, print_inspected, shortened, value,
};
use super::output::Output;
use super::progress::Bars;
use super::store_args::{StoreArgs, for_each};
use super::units;
use crate::archive::{Compression, Limits};
use crate::store::documents::Platform;
use crate::store::reference::Reference;
use crate::store::{Format, LoadOptions, STDIN, SaveOptions, time};

const EXAMPLES: &str = "\
Examples:
  docker save debian:12 | unionmount image load
  unionmount image load app.tar             an archive of docker save, podman save, skopeo, buildkit, umoci
  unionmount image load layout/ --platform linux/arm64
  unionmount image ls
  unionmount image save debian:12 -o debian.tar --compress zstd
  unionmount image rm debian:12";

const LOAD_EXAMPLES: &str = "\
Examples:
  docker save debian:12 | unionmount image load
  unionmount image load layout/ --platform linux/arm64 --name localhost/app:1";

const SAVE_EXAMPLES: &str = "\
Examples:
  unionmount image save debian:12 | podman load
  unionmount image save app base -o both.tar --format docker
  unionmount image save app --compress zstd -o app.tar && skopeo copy oci-archive:app.tar dir:app";

/// `unionmount image`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImageArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do with images.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The subcommands of `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load images from an OCI layout (directory or tar) or an archive of docker save
    #[command(after_help = LOAD_EXAMPLES)]
    Load(LoadArgs),
    /// List images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about images, as JSON
    Inspect(InspectImageArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Take names from images, and remove images that have no other
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Write images into an archive
    #[command(after_help = SAVE_EXAMPLES)]
    Save(SaveArgs),
}

/// `image load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
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

/// `image ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
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

/// `image inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectImageArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// How it is printed.
    #[command(flatten)]
    pub inspect: InspectArgs,
}

/// `image history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `image tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// The new name, REPOSITORY or REPOSITORY:TAG
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// `image rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// Also with several names, and with containers, which keep their layers
    #[arg(short, long)]
    pub force: bool,

    /// Print one JSON document about what was removed
    #[arg(long)]
    pub json: bool,
}

/// `image save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// Write into this file, which appears when it is complete [default: -, standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// The sort of archive
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatArg,

    /// Compress the layers so [default: as they came; plain with --format docker]
    #[arg(long, value_enum, value_name = "HOW")]
    pub compress: Option<CompressArg>,
}

/// The sort of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    /// An OCI image layout
    #[default]
    Oci,
    /// As docker save writes it, manifest.json and a tar for each layer
    Docker,
}

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressArg {
    /// Every engine reads it
    Gzip,
    /// Smaller and faster; docker since 23, podman since 2.1
    Zstd,
    /// Plain tars
    None,
}

/// Carries it out.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(crate) fn run(args: &ImageArgs) -> Result<(), Failure> {
    match &args.command {
        ImageCommand::Load(load) => self::load(&args.store, load),
        ImageCommand::Ls(ls) => list(&args.store, ls),
        ImageCommand::Inspect(inspect) => {
            let mut store = args.store.open()?;
            let mut values = Vec::new();
            for word in &inspect.images {
                values.push(store.inspect_image(word)?);
            }
            print_inspected(values, &inspect.inspect)
        }
        ImageCommand::History(history) => self::history(&args.store, history),
        ImageCommand::Tag(tag) => {
            args.store.open()?.tag_image(&tag.image, &tag.name)?;
            Ok(())
        }
        ImageCommand::Rm(rm) => remove(&args.store, rm),
        ImageCommand::Save(save) => self::save(&args.store, save),
    }
}

fn load(store: &StoreArgs, args: &LoadArgs) -> Result<(), Failure> {
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
        let images: Vec<_> = loaded
            .iter()
            .map(|image| {
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
            })
            .collect();
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

fn list(store: &StoreArgs, args: &LsArgs) -> Result<(), Failure> {
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
    Listing {
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

fn history(store: &StoreArgs, args: &HistoryArgs) -> Result<(), Failure> {
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
    Listing {
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

fn remove(store: &StoreArgs, args: &RmArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let mut all = Vec::new();
    let result = for_each(&args.images, |word| {
        let removed = store.remove_image(word, args.force)?;
        if !args.json {
            let mut text = String::new();
            for name in &removed.untagged {
                text.push_str(&format!("Untagged: {name}\n"));
            }
            for id in &removed.deleted {
                text.push_str(&format!("Deleted: {id}\n"));
            }
            print(text.as_bytes())?;
        }
        all.push(removed);
        Ok(())
    });
    if args.json {
        print(document(&all)?.as_bytes())?;
    }
    result
}

fn save(store: &StoreArgs, args: &SaveArgs) -> Result<(), Failure> {
    let output = Output::new(args.output.as_deref())?;
    let mut store = store.open()?;
    let bars = Bars::new(false);
    let counter = bars.counter("saving");
    let options = SaveOptions {
        format: match args.format {
            FormatArg::Oci => Format::Oci,
            FormatArg::Docker => Format::Docker,
        },
        compression: args.compress.map(|how| match how {
            CompressArg::Gzip => Compression::Gzip,
            CompressArg::Zstd => Compression::Zstd,
            CompressArg::None => Compression::None,
        }),
        progress: &*counter,
    };
    output.write(|out| Ok(store.save(&args.images, out, &options)?))
}
