//! `unionmount mount`.

mod from_store;
mod request;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::mounting::request::run as mount;
use crate::cli::ui::exit::Failure;
use from_store::MountSourceArgs;
use request::request;

const USAGE: &str = "\
unionmount mount --lower DIR [--lower DIR ..] [--upper DIR --work DIR] [--volume SOURCE:TARGET[:ro] ..] [--read-only] [-o OPTIONS] MOUNTPOINT
       unionmount mount --image IMAGE|--overlay2 DIR|--podman ID [-o OPTIONS] MOUNTPOINT";

pub(super) const EXAMPLES: &str = "\
Examples:
  unionmount mount --lower app --lower base --upper changes --work work /mnt
  unionmount mount --lower app --lower base --read-only /mnt
  unionmount mount --lower base --upper changes --work work -o volatile,threads=4 /mnt
  unionmount mount --lower base --upper changes --work work -o whiteout=char /mnt
  unionmount mount --lower base --volume /srv/data:/data --volume ./conf:/etc/app:ro /mnt
  unionmount mount --image debian:12 /mnt
  unionmount mount --podman my-container /mnt
  unionmount mount --overlay2 /var/lib/docker/overlay2/0123abcd.. /mnt
";

/// `unionmount mount`.
#[derive(Debug, Args)]
#[command(override_usage = USAGE)]
pub(super) struct MountArgs {
    /// A read-only directory; repeat it for more layers, newest first
    #[arg(long = "lower", value_name = "DIR")]
    pub lowers: Vec<PathBuf>,

    /// The writable directory; needs --work. Without it the mount is read-only
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,

    /// Scratch directory on the file system of the upper; it is emptied
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,

    /// Show a directory or file of the host inside the union; may be repeated (\: for a colon in a
    /// path)
    #[arg(long = "volume", value_name = "SOURCE:TARGET[:ro]")]
    pub volumes: Vec<OsString>,

    /// Refuse every change, although there is an upper (volumes keep their own :ro)
    #[arg(long)]
    pub read_only: bool,

    /// Mount options, separated by commas; --help lists them all
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<OsString>,

    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,

    /// Log at debug level; stays in the foreground unless --log-file is given
    #[arg(short, long)]
    pub debug: bool,

    /// Append the daemon's log to this file
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Layers of a store instead of --lower.
    #[command(flatten)]
    pub from: MountSourceArgs,

    /// Where to mount
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
}

/// Mounts. Returns in the daemon, once the mount has ended.
///
/// # Errors
/// A wrong command line, no such image or layer, and those of mounting.
pub(super) fn run(args: MountArgs) -> Result<(), Failure> {
    match args.from.is_given() {
        true => from_store::run(args),
        false => mount(request(args)?),
    }
}
