//! `unionmount layer`: layers outside a store, as archives and as directories.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::bar::Bar;
use super::exit::{Failure, print};
use super::limit_args::LimitArgs;
use super::output::Output;
use super::{logging, shown, visible};
use crate::archive::extract::{ApplyMode, apply as apply_layer};
use crate::archive::{
    Compression, Digest, Expect, Ownership, Pack, Packed, Times, Unpack, Unpacked, Whiteouts,
    diff as write_diff,
};
use crate::layer::stat::Time;

const APPLY_EXAMPLES: &str = "\
Examples:
  Make a directory that can be used as --lower:
      unionmount layer apply layer.tar.gz layers/app
  Carry the layer out on a root file system, deletions included:
      unionmount layer apply layer.tar.zst rootfs
  From a pipe, and only if it is the right one:
      curl -L URL | unionmount layer apply --expect-digest sha256:.. - layers/app";

const DIFF_EXAMPLES: &str = "\
Examples:
  unionmount layer diff --lower base --upper changes -o changes.tar
  unionmount layer diff --upper changes --compress gzip -o changes.tar.gz --json
  unionmount layer diff --upper changes | tar -tv
  SOURCE_DATE_EPOCH=0 unionmount layer diff --upper changes -o changes.tar";

/// `unionmount layer`.
#[derive(Debug, Args)]
pub(crate) struct LayerArgs {
    /// What to do with a layer.
    #[command(subcommand)]
    pub command: LayerCommand,
}

/// The subcommands of `layer`.
#[derive(Debug, Subcommand)]
pub(crate) enum LayerCommand {
    /// Unpack a layer archive (tar, tar.gz, tar.zst) into a directory
    ///
    /// Into a new or empty directory the layer is unpacked as it is: whiteouts become marks, and
    /// the directory can be a --lower of a mount. On a directory that holds something the layer is
    /// carried out: what it deletes is removed, what it brings replaces what was there. Whatever is
    /// wrong with the archive, the directory stays as it was.
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// Write the changes in an upper directory as a layer archive
    ///
    /// The same changes give the same archive, byte for byte, on any machine.
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// List the layers of the store, and who shares them
    #[command(visible_alias = "list")]
    Ls(super::layer_list::LsArgs),
}

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhiteoutArg {
    /// wh for a new or empty directory, apply for any other
    #[default]
    Auto,
    /// Files named .wh.NAME, as in the archive
    Wh,
    /// Devices 0/0 and xattrs, as kernel overlayfs has them
    Char,
    /// What they name is removed
    Apply,
}

/// Whose the files are on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OwnershipArg {
    /// real for root, recorded for others
    #[default]
    Auto,
    /// Owners and devices as the archive says
    Real,
    /// All yours; the archive's owners, modes and types are in xattrs, from which the union shows
    /// them
    Recorded,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CompressArg {
    /// Not at all
    #[default]
    None,
    /// gzip
    Gzip,
    /// zstd
    Zstd,
}

impl From<CompressArg> for Compression {
    fn from(arg: CompressArg) -> Self {
        match arg {
            CompressArg::None => Self::None,
            CompressArg::Gzip => Self::Gzip,
            CompressArg::Zstd => Self::Zstd,
        }
    }
}

/// `unionmount layer apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The archive; - for standard input
    #[arg(value_name = "TAR")]
    pub archive: PathBuf,
    /// The directory; it is made when it does not exist
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// A layer below, newest first: a directory that the archive does not describe gets the owner,
    /// mode, time and xattrs that it has there (unions find them by themselves; this is for others
    /// who read the directory)
    #[arg(long = "lower", value_name = "DIR")]
    pub lowers: Vec<PathBuf>,
    /// Refuse an archive that has another digest (sha256:..), compressed or not
    #[arg(long, value_name = "DIGEST")]
    pub expect_digest: Option<Digest>,
    /// What becomes of whiteouts
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub whiteout: WhiteoutArg,
    /// Whose the files are on the disk
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    pub ownership: OwnershipArg,
    /// Print digests, sizes and counts as JSON
    #[arg(long)]
    pub json: bool,
    /// How much the archive may ask for.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// `unionmount layer diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A lower layer of the upper, newest first; only needed where directories were renamed with
    /// redirect_dir=on, or files copied with metacopy=on
    #[arg(long = "lower", value_name = "DIR")]
    pub lowers: Vec<PathBuf>,
    /// The directory with the changes
    #[arg(long, value_name = "DIR")]
    pub upper: PathBuf,
    /// Where the archive goes; standard output when missing, or -
    #[arg(short, long, value_name = "TAR")]
    pub output: Option<PathBuf>,
    /// How the archive is compressed
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub compress: CompressArg,
    /// The time of all entries, in seconds since 1970. SOURCE_DATE_EPOCH in the environment makes
    /// later times earlier
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub mtime: Option<i64>,
    /// Print digests, sizes and counts as JSON; needs --output
    #[arg(long)]
    pub json: bool,
}

/// Runs `unionmount layer`.
///
/// # Errors
/// [`Failure::Operation`] when the archive or a directory is not what it should be,
/// [`Failure::Usage`] for options that contradict each other.
pub(crate) fn run(args: &LayerArgs) -> Result<(), Failure> {
    logging::init(false, None)?;
    match &args.command {
        LayerCommand::Ls(args) => super::layer_list::run(args),
        LayerCommand::Apply(args) => apply(args),
        LayerCommand::Diff(args) => diff(args),
    }
}

fn apply(args: &ApplyArgs) -> Result<(), Failure> {
    let is_pipe = args.archive == Path::new("-");
    if is_pipe && std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "an archive is not typed in; name a file, or use a pipe".to_owned(),
        ));
    }
    let (blob, len): (Box<dyn Read + Send>, u64) = if is_pipe {
        (Box::new(std::io::stdin()), 0)
    } else {
        let file = open_archive(&args.archive)?;
        let len = file.metadata().map_or(0, |meta| meta.len());
        (Box::new(file), len)
    };
    let bar = Bar::new(len, "unpacking");
    let whiteouts = match args.whiteout {
        WhiteoutArg::Char => Whiteouts::Char,
        WhiteoutArg::Auto | WhiteoutArg::Wh | WhiteoutArg::Apply => Whiteouts::Wh,
    };
    let options = Unpack {
        expect: Expect::default(),
        limits: args.limits.limits(),
        ownership: match args.ownership {
            OwnershipArg::Auto => Ownership::possible(),
            OwnershipArg::Real => Ownership::Real,
            OwnershipArg::Recorded => Ownership::Recorded,
        },
        whiteouts,
        below: &args.lowers,
        either: args.expect_digest,
        keep: None,
        progress: &bar,
    };
    let onto = match args.whiteout {
        WhiteoutArg::Auto => ApplyMode::Auto,
        WhiteoutArg::Wh | WhiteoutArg::Char => ApplyMode::Layer,
        WhiteoutArg::Apply => ApplyMode::Tree,
    };
    let applied = apply_layer(blob, &args.dir, onto, &options);
    bar.finish();
    let unpacked = applied.map_err(|err| {
        let name = match is_pipe {
            true => "the archive on standard input".to_owned(),
            false => shown(&args.archive),
        };
        Failure::Operation(format!(
            "cannot apply {name} to {}: {err}",
            shown(&args.dir)
        ))
    })?;
    if args.json {
        return print_json(&unpacked_json(&unpacked));
    }
    print(
        format!(
            "{}: {} entries, {} bytes of content\ndigest {}\ndiffID {}\n",
            args.dir.display(),
            unpacked.entries,
            unpacked.content,
            unpacked.digest,
            unpacked.diff_id
        )
        .as_bytes(),
    )
}

fn open_archive(path: &Path) -> Result<File, Failure> {
    File::open(path)
        .and_then(|file| match file.metadata()?.is_dir() {
            true => Err(ErrorKind::IsADirectory.into()),
            false => Ok(file),
        })
        .map_err(|err| {
            Failure::Operation(format!(
                "cannot open {}: {err}; name a layer archive, or - for standard input",
                shown(path)
            ))
        })
}

fn diff(args: &DiffArgs) -> Result<(), Failure> {
    if args.json
        && args
            .output
            .as_deref()
            .is_none_or(|path| path == Path::new("-"))
    {
        return Err(Failure::Usage(
            "--json prints to standard output, where the archive goes; name a file for it with --output"
                .to_owned(),
        ));
    }
    let output = Output::new(args.output.as_deref())?;
    let times = times(args.mtime)?;
    let bar = Bar::new(0, "writing");
    let options = Pack {
        compression: args.compress.into(),
        times,
        progress: &bar,
    };
    let packed = output.write(|out| {
        let written = write_diff(&args.upper, &args.lowers, out, &options);
        bar.finish();
        written.map_err(|err| {
            Failure::Operation(format!(
                "cannot write the changes in {} as a layer: {err}",
                shown(&args.upper)
            ))
        })
    })?;
    let Some(path) = output.file() else {
        return Ok(());
    };
    if args.json {
        return print_json(&packed_json(&packed));
    }
    print(
        format!(
            "{}: {} entries, {} bytes\ndigest {}\ndiffID {}\n",
            path.display(),
            packed.entries,
            packed.compressed_size,
            packed.digest,
            packed.diff_id
        )
        .as_bytes(),
    )
}

/// Which times an archive gets: by the option, or by the variable of reproducible-builds.org.
///
/// # Errors
/// [`Failure::Usage`] for a variable that is no number.
pub(crate) fn times(mtime: Option<i64>) -> Result<Times, Failure> {
    let at = |secs| Time { secs, nanos: 0 };
    if let Some(secs) = mtime {
        return Ok(Times::All(at(secs)));
    }
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|value| !value.is_empty())
    else {
        return Ok(Times::Unchanged);
    };
    let secs = value.to_str().and_then(|text| text.parse().ok());
    secs.map(|secs| Times::NoLaterThan(at(secs)))
        .ok_or_else(|| {
            Failure::Usage(format!(
                "SOURCE_DATE_EPOCH is {}; it must be a number of seconds since 1970",
                shown(&value)
            ))
        })
}

/// What `layer apply --json` prints.
fn unpacked_json(unpacked: &Unpacked) -> serde_json::Value {
    serde_json::json!({
        "digest": unpacked.digest,
        "diffID": unpacked.diff_id,
        "compression": unpacked.compression.name(),
        "compressedSize": unpacked.compressed_size,
        "size": unpacked.size,
        "entries": unpacked.entries,
        "content": unpacked.content,
    })
}

/// What `layer diff --json` prints.
fn packed_json(packed: &Packed) -> serde_json::Value {
    serde_json::json!({
        "digest": packed.digest,
        "diffID": packed.diff_id,
        "compressedSize": packed.compressed_size,
        "size": packed.size,
        "entries": packed.entries,
    })
}

/// Prints a document and a line feed.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(format!("{}\n", visible::json(&format!("{value:#}"))).as_bytes())
}
