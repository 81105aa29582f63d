//! `unionmount layer apply`.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::print_json;
use crate::archive::extract::{ApplyMode, apply};
use crate::archive::{Digest, Expect, Ownership, Unpack, Unpacked, Whiteouts};
use crate::cli::commands::limit_args::LimitArgs;
use crate::cli::ui::bar::Bar;
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::shown;

pub(super) const EXAMPLES: &str = "\
Examples:
  Make a directory that can be used as --lower:
      unionmount layer apply layer.tar.gz layers/app
  Carry the layer out on a root file system, deletions included:
      unionmount layer apply layer.tar.zst rootfs
  From a pipe, and only if it is the right one:
      curl -L URL | unionmount layer apply --expect-digest sha256:.. - layers/app";

/// What becomes of whiteouts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli::commands) enum WhiteoutArg {
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

impl WhiteoutArg {
    fn form(self) -> Whiteouts {
        match self {
            Self::Char => Whiteouts::Char,
            Self::Auto | Self::Wh | Self::Apply => Whiteouts::Wh,
        }
    }

    fn mode(self) -> ApplyMode {
        match self {
            Self::Auto => ApplyMode::Auto,
            Self::Wh | Self::Char => ApplyMode::Layer,
            Self::Apply => ApplyMode::Tree,
        }
    }
}

/// Whose the files are on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli::commands) enum OwnershipArg {
    /// real for root, recorded for others
    #[default]
    Auto,
    /// Owners and devices as the archive says
    Real,
    /// All yours; the archive's owners, modes and types are in xattrs, from which the union shows
    /// them
    Recorded,
}

impl From<OwnershipArg> for Ownership {
    fn from(arg: OwnershipArg) -> Self {
        match arg {
            OwnershipArg::Auto => Self::possible(),
            OwnershipArg::Real => Self::Real,
            OwnershipArg::Recorded => Self::Recorded,
        }
    }
}

/// `unionmount layer apply`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct ApplyArgs {
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

/// Unpacks or carries out a layer.
///
/// # Errors
/// [`Failure::Operation`] when the archive or the directory is not what it should be,
/// [`Failure::Usage`] when the archive would come from a terminal.
pub(super) fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let (blob, len) = open(&args.archive)?;
    let bar = Bar::new(len, "unpacking");
    let options = Unpack {
        expect: Expect::default(),
        limits: args.limits.limits(),
        ownership: args.ownership.into(),
        whiteouts: args.whiteout.form(),
        below: &args.lowers,
        either: args.expect_digest,
        keep: None,
        progress: &bar,
    };
    let applied = apply(blob, &args.dir, args.whiteout.mode(), &options);
    bar.finish();
    let unpacked = applied.map_err(|err| {
        let name = match is_stdin(&args.archive) {
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

fn is_stdin(archive: &Path) -> bool {
    archive == Path::new("-")
}

/// The archive, and its length; 0 of a pipe.
fn open(archive: &Path) -> Result<(Box<dyn Read + Send>, u64), Failure> {
    if !is_stdin(archive) {
        let file = open_file(archive)?;
        let len = file.metadata().map_or(0, |meta| meta.len());
        return Ok((Box::new(file), len));
    }
    if std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "standard input is a terminal; name a file, or pipe an archive into the command"
                .to_owned(),
        ));
    }
    Ok((Box::new(std::io::stdin()), 0))
}

fn open_file(path: &Path) -> Result<File, Failure> {
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
