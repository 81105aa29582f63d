//! `unionmount layer diff`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::print_json;
use crate::archive::{Compression, Pack, Packed, Times, diff};
use crate::cli::ui::bar::Bar;
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::output::Output;
use crate::cli::ui::shown;
use crate::layer::stat::Time;

pub(super) const EXAMPLES: &str = "\
Examples:
  unionmount layer diff --lower base --upper changes -o changes.tar
  unionmount layer diff --upper changes --compress gzip -o changes.tar.gz --json
  unionmount layer diff --upper changes | tar -tv
  SOURCE_DATE_EPOCH=0 unionmount layer diff --upper changes -o changes.tar";

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli::commands) enum CompressArg {
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

/// `unionmount layer diff`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct DiffArgs {
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

/// Writes the changes of an upper as a layer.
///
/// # Errors
/// [`Failure::Operation`] when a directory cannot be read or the archive not be written,
/// [`Failure::Usage`] for options that contradict each other.
pub(super) fn run(args: &DiffArgs) -> Result<(), Failure> {
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
        let written = diff(&args.upper, &args.lowers, out, &options);
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
fn times(mtime: Option<i64>) -> Result<Times, Failure> {
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
