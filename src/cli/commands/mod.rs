//! The commands, one file or directory each, with their arguments as clap reads them: the doc
//! comments there are the help texts. The form without a command, which engines use, is read by
//! `compat.rs`.

mod check;
mod compat;
mod completions;
mod container;
mod convert;
mod image;
mod layer;
mod limit_args;
mod man;
mod mount;
mod store_args;
mod system;
mod umount;
mod volume;

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};

use super::mounting::{remount, request};
use super::options::nearest::nearest;
use super::options::table;
use super::ui::exit::{self, Failure};
use super::ui::interrupt;
use compat::{Asked, CalledAs};

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
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Mount a stack of directories as one
    Mount(Box<mount::MountArgs>),
    /// Unmount a union: write everything back and wait until its daemon has ended
    #[command(after_help = umount::EXAMPLES)]
    Umount(umount::UmountArgs),
    /// Apply layer archives to directories, and write changes as such
    Layer(layer::LayerArgs),
    /// Rewrite the whiteouts and opaque marks of a layer in another form, in place
    #[command(after_help = convert::EXAMPLES)]
    Convert(convert::ConvertArgs),
    /// Find what is wrong with layers that are not mounted, and mend it
    #[command(after_help = check::HELP)]
    Check(check::CheckArgs),
    /// Load, list, inspect, name, save and remove images
    Image(image::ImageArgs),
    /// Make, mount, compare, commit and remove containers
    Container(container::ContainerArgs),
    /// Make, list and remove volumes
    Volume(volume::VolumeArgs),
    /// Space used, information, cleaning up, checking
    System(system::SystemArgs),
    /// Print the manual page, or write all manual pages into a directory
    Man(man::ManArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Whether Ctrl-C takes back what it has begun. Those that become a daemon answer by
    /// unmounting, and `convert` and `check` go on where they were when they are run again.
    #[must_use]
    fn is_interruptible(&self) -> bool {
        match self {
            Self::Container(args) => !args.command.is_daemon(),
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

/// Reads the command line, `argv[0]` first, and runs what it asks for.
///
/// # Errors
/// A wrong command line, and what the command could not do.
pub(super) fn dispatch(mut arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let argv0 = arguments.next().unwrap_or_default();
    let called_as = CalledAs::from_argv0(&argv0);
    let arguments: Vec<OsString> = arguments.collect();
    let Some(first) = arguments.first() else {
        return Err(Failure::Usage(
            "no arguments are given; see 'unionmount --help'".to_owned(),
        ));
    };
    if called_as == CalledAs::Unionmount && is_subcommand(first) {
        with_subcommand(arguments)
    } else {
        without_subcommand(called_as, arguments)
    }
}

fn with_subcommand(arguments: Vec<OsString>) -> Result<(), Failure> {
    let name = arguments
        .first()
        .map(|first| first.to_string_lossy().into_owned())
        .unwrap_or_default();
    let whole = std::iter::once(OsString::from("unionmount")).chain(arguments);
    let parsed = command()
        .try_get_matches_from(whole)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let command = parsed.map(|cli| cli.command);
    if command.as_ref().is_ok_and(Command::is_interruptible) {
        interrupt::watch()?;
    }
    match command {
        Ok(Command::Mount(args)) => mount::run(*args),
        Ok(Command::Umount(args)) => umount::run(args),
        Ok(Command::Layer(args)) => layer::run(&args),
        Ok(Command::Convert(args)) => convert::run(&args),
        Ok(Command::Check(args)) => check::run(args),
        Ok(Command::Image(args)) => image::run(&args),
        Ok(Command::Container(args)) => container::run(args),
        Ok(Command::Volume(args)) => volume::run(&args),
        Ok(Command::System(args)) => system::run(&args),
        Ok(Command::Man(args)) => man::run(&args),
        Ok(Command::Completions(args)) => completions::run(&args),
        Err(help)
            if matches!(
                help.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            exit::print(help.render().to_string().as_bytes())
        }
        Err(err) if err.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::Usage(format!(
                "what to do is missing; see 'unionmount {name} --help'"
            )))
        }
        Err(err) => Err(Failure::Usage(format!(
            "{}; see 'unionmount {name} --help'",
            one_line(&err)
        ))),
    }
}

fn without_subcommand(called_as: CalledAs, arguments: Vec<OsString>) -> Result<(), Failure> {
    match compat::parse(called_as, arguments)? {
        Asked::Help if called_as == CalledAs::Unionmount => {
            exit::print(command().render_long_help().to_string().as_bytes())
        }
        Asked::Help => exit::print(compat::HELP.as_bytes()),
        Asked::Version => exit::print(called_as.version().as_bytes()),
        Asked::Mount(request) => request::run(*request),
        Asked::Remount {
            mountpoint,
            read_only,
            flags,
        } => remount::run(&mountpoint, read_only, flags),
    }
}

/// The whole command line for clap, with the option table in the long help of `mount`.
#[must_use]
fn command() -> clap::Command {
    Cli::command().mut_subcommand("mount", |mount| {
        mount.after_help(mount::EXAMPLES).after_long_help(format!(
            "{}\n{}",
            mount::EXAMPLES,
            table::help()
        ))
    })
}

/// Whether this word begins the form with subcommands.
#[must_use]
fn is_subcommand(word: &OsStr) -> bool {
    word == "help"
        || Cli::command()
            .get_subcommands()
            .any(|known| word == known.get_name())
}

/// The subcommand that looks most like this word.
#[must_use]
fn nearest_subcommand(word: &str) -> Option<String> {
    let cli = Cli::command();
    nearest(word, cli.get_subcommands().map(clap::Command::get_name)).map(str::to_owned)
}

/// clap's message of several lines as one line, without the usage block.
#[must_use]
fn one_line(err: &clap::Error) -> String {
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
        assert_eq!(mount.mountpoint, std::path::Path::new("/m"));
    }
}
