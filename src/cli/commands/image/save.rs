//! `unionmount image save`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::archive::Compression;
use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::Failure;
use crate::cli::ui::output::Output;
use crate::cli::ui::progress::Bars;
use crate::store::{Format, SaveOptions};

pub(super) const EXAMPLES: &str = "\
Examples:
  unionmount image save debian:12 | podman load
  unionmount image save app base -o both.tar --format docker
  unionmount image save app --compress zstd -o app.tar && skopeo copy oci-archive:app.tar dir:app";

/// `image save`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct SaveArgs {
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
pub(in crate::cli::commands) enum FormatArg {
    /// An OCI image layout
    #[default]
    Oci,
    /// As docker save writes it, manifest.json and a tar for each layer
    Docker,
}

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli::commands) enum CompressArg {
    /// Every engine reads it
    Gzip,
    /// Smaller and faster; docker since 23, podman since 2.1
    Zstd,
    /// Plain tars
    None,
}

/// Writes images into an archive.
///
/// # Errors
/// There is no such image, or the output cannot be written.
pub(super) fn run(store: &StoreArgs, args: &SaveArgs) -> Result<(), Failure> {
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
