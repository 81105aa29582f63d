//! The command line with subcommands, as clap reads it. The doc comments here are the help texts.
//!
//! The form without a subcommand, which engines use, is read by `compat.rs`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::options::table;

const EXAMPLES: &str = "\
Examples:
  See two directories as one, the newer one on top:
      unionmount mount --lower new --lower old /mnt
  Work in it; the changes land in `upper`, `old` and `new` stay as they are:
      mkdir upper work
      unionmount mount --lower new --lower old --upper upper --work work /mnt
      unionmount umount /mnt
  Without root, inside a user namespace:
      unshare -Urm unionmount mount --lower base --upper upper --work work --foreground mnt

The compatible form, as fuse-overlayfs and mount(8) have it:
  unionmount [-f] [-d] -o lowerdir=NEW:OLD[,upperdir=DIR,workdir=DIR][,OPTION..] [SOURCE] MOUNTPOINT

Exit codes: 0 done, 1 the operation failed, 2 the command line is wrong.
Log messages: RUST_LOG=warn|info|debug|trace.";

const MOUNT_USAGE: &str = "\
unionmount mount --lower DIR [--lower DIR ..] [--upper DIR --work DIR] [--volume SOURCE:TARGET[:ro] ..] [--read-only] [-o OPTIONS] MOUNTPOINT
       unionmount mount --image IMAGE|--overlay2 DIR|--podman ID [-o OPTIONS] MOUNTPOINT";

const MOUNT_EXAMPLES: &str = "\
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

const CONVERT_EXAMPLES: &str = "\
A conversion that was interrupted is finished by running it again; meanwhile this program sees the same tree as ever.

Examples:
  unionmount convert --to char layer    so that kernel overlayfs can mount it
  unionmount convert --to wh layer      so that engines with a mount program can read it";

const CHECK_HELP: &str = "\
Found, and mended with --repair where it is in the upper or the work directory:
  stale-work         left in the work directory by a mount that was killed
  mixed-marks        .wh. files and devices or xattrs in one layer
  idle-whiteout      a whiteout of a name that no lower layer has
  dangling-redirect  a renamed directory whose lower part is not there
  dangling-origin    a remembered inode number of an object that is not there
  odd-override       an xattr that keeps owner and mode and cannot be read

Exit codes: 0 clean, or all of it mended; 1 problems are left.

Examples:
  unionmount check --lower base --upper changes --work work
  unionmount check --repair --lower base --upper changes --work work";

const UMOUNT_EXAMPLES: &str = "\
Examples:
  unionmount umount /mnt           write everything back, unmount, wait until the daemon has ended
  unionmount umount --lazy /mnt    unmount now, end when the last user has left
  unionmount umount --force /mnt   the daemon was killed or hangs";

/// A union filesystem in userspace: read-only layers below, one writable directory on top.
#[derive(Debug, Parser)]
#[command(
    name = "unionmount",
    version,
    after_help = EXAMPLES,
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount a stack of directories as one
    Mount(MountArgs),
    /// Unmount a union: write everything back and wait until its daemon has ended
    #[command(after_help = UMOUNT_EXAMPLES)]
    Umount(UmountArgs),
    /// Apply layer archives to directories, and write changes as such
    Layer(super::layer::LayerArgs),
    /// Rewrite the whiteouts and opaque marks of a layer in another form, in place
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Find what is wrong with layers that are not mounted, and mend it
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Load, list, inspect, name, save and remove images
    Image(super::image::ImageArgs),
    /// Make, mount, compare, commit and remove containers
    Container(super::container::ContainerArgs),
    /// Make, list and remove volumes
    Volume(super::volume::VolumeArgs),
    /// Space used, information, cleaning up, checking
    System(super::system::SystemArgs),
    /// Print the manual page, or write all manual pages into a directory
    Man(ManArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

impl Command {
    /// Whether Ctrl-C takes back what it has begun. Those that become a daemon answer by
    /// unmounting, and `convert` and `check` go on where they were when they are run again.
    #[must_use]
    pub(crate) fn is_interruptible(&self) -> bool {
        match self {
            Self::Container(args) => {
                !matches!(args.command, super::container::ContainerCommand::Mount(_))
            }
            Self::Layer(_) | Self::Image(_) | Self::Volume(_) | Self::System(_) => true,
            Self::Mount(_)
            | Self::Umount(_)
            | Self::Convert(_)
            | Self::Check(_)
            | Self::Man(_)
            | Self::Completions(_) => false,
        }
    }
}

/// `unionmount mount`.
#[derive(Debug, Args)]
#[command(override_usage = MOUNT_USAGE)]
pub(crate) struct MountArgs {
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
    pub from: super::container_mount::MountSourceArgs,

    /// Where to mount
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
}

/// `unionmount umount`.
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    /// Detach now, even when it is in use; the daemon ends when the last user has left
    #[arg(long, conflicts_with = "force")]
    pub lazy: bool,

    /// Remove a mount whose daemon was killed or hangs; what it had not written is lost
    #[arg(long)]
    pub force: bool,

    /// Where the union is mounted
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
}

/// A form of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MarkForm {
    /// `.wh.` files, as OCI layers and engines with a mount program have them
    Wh,
    /// 0/0 devices and opaque xattrs, as kernel overlayfs mounts them
    Char,
}

/// `unionmount convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The form that all marks get
    #[arg(long, value_name = "FORM")]
    pub to: MarkForm,

    /// The directory of the layer; it must not be mounted
    #[arg(value_name = "DIR")]
    pub layer: PathBuf,
}

/// `unionmount check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A lower layer; repeat it for more layers, newest first
    #[arg(long = "lower", value_name = "DIR")]
    pub lowers: Vec<PathBuf>,

    /// The upper directory
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,

    /// Its work directory
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,

    /// Mend what is found in the upper and the work directory; refused while they are mounted
    #[arg(long)]
    pub repair: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `unionmount man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory to write unionmount.1, unionmount-mount.1, .. into; printed when missing
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `unionmount completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// The whole command line for clap, with the option table in the long help of `mount`.
#[must_use]
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_subcommand("mount", |mount| {
        mount
            .after_help(MOUNT_EXAMPLES)
            .after_long_help(format!("{MOUNT_EXAMPLES}\n{}", table::help()))
    })
}

/// Whether this word begins the form with subcommands.
#[must_use]
pub(crate) fn is_subcommand(word: &std::ffi::OsStr) -> bool {
    word == "help"
        || Cli::command()
            .get_subcommands()
            .any(|known| word == known.get_name())
}

/// The subcommand that looks most like this word.
#[must_use]
pub(crate) fn nearest_subcommand(word: &str) -> Option<String> {
    let cli = Cli::command();
    super::nearest::nearest(word, cli.get_subcommands().map(clap::Command::get_name))
        .map(str::to_owned)
}

/// clap's message of several lines as one line, without the usage block.
#[must_use]
pub(crate) fn one_line(err: &clap::Error) -> String {
    let rendered = err.render().to_string();
    let mut line = String::new();
    for part in rendered
        .lines()
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        if part.starts_with("Usage:") || part.starts_with("For more information") {
            break;
        }
        let part = part.strip_prefix("error: ").unwrap_or(part);
        if line.ends_with(':') {
            line.push(' ');
        } else if !line.is_empty() {
            line.push_str("; ");
        }
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn errors_become_one_line() {
        let cases = [
            (
                vec!["unionmount", "mount", "--lower", "/l"],
                "the following required arguments were not provided: <MOUNTPOINT>",
            ),
            (
                vec!["unionmount", "mount", "--lowr", "/l", "/m"],
                "unexpected argument '--lowr' found; tip: a similar argument exists: '--lower'",
            ),
        ];
        for (args, expected) in cases {
            let err = command().try_get_matches_from(args).unwrap_err();
            assert_eq!(one_line(&err), expected);
        }
    }

    #[test]
    fn mount_options_begin_with_a_dash_only_behind_o() {
        let args = [
            "unionmount",
            "mount",
            "--lower",
            "a",
            "--lower",
            "b",
            "-ovolatile",
            "-o",
            "ro",
            "/m",
        ];
        let Command::Mount(mount) = Cli::try_parse_from(args).unwrap().command else {
            panic!("not mount");
        };
        assert_eq!(mount.lowers.len(), 2);
        assert_eq!(mount.options, ["volatile", "ro"]);
        assert_eq!(mount.mountpoint, PathBuf::from("/m"));
    }
}
