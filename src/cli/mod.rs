//! The command line: two forms, one program.
//!
//! * `unionmount mount|umount|man|completions ..`, read by clap (`args.rs`);
//! * the compatible form without a subcommand (`compat.rs`), which container engines and mount(8)
//!   use.
//!
//! Both produce a [`mount::Request`] of plain values; `preflight.rs` and `privilege.rs` find what
//! is wrong with them before anything is mounted. Every message leaves through `exit.rs`.

pub(crate) mod args;
pub(crate) mod bar;
pub(crate) mod bind;
pub(crate) mod check;
pub(crate) mod compat;
pub(crate) mod container;
pub(crate) mod container_diff;
pub(crate) mod container_mount;
pub(crate) mod convert;
pub(crate) mod exit;
pub(crate) mod holders;
pub(crate) mod image;
pub(crate) mod interrupt;
pub(crate) mod layer;
pub(crate) mod layer_list;
pub(crate) mod limit_args;
pub(crate) mod listing;
pub(crate) mod logging;
pub(crate) mod manual;
pub(crate) mod mount;
mod nearest;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod preflight;
pub(crate) mod privilege;
pub(crate) mod progress;
pub(crate) mod remount;
pub(crate) mod store_args;
pub(crate) mod system;
pub(crate) mod system_info;
pub(crate) mod template;
pub(crate) mod umount;
pub(crate) mod units;
pub(crate) mod visible;
pub(crate) mod volume;
mod write_back;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::FromArgMatches as _;
use clap::error::ErrorKind;

use args::{Cli, Command};
use compat::{Asked, CalledAs};
use exit::Failure;

/// Runs the command line, `argv[0]` first, and gives the exit code (see [`exit`]).
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    crate::sys::limits::reset();
    exit::report(dispatch(arguments))
}

fn dispatch(mut arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let argv0 = arguments.next().unwrap_or_default();
    let called_as = CalledAs::from_argv0(&argv0);
    let arguments: Vec<OsString> = arguments.collect();
    let Some(first) = arguments.first() else {
        return Err(Failure::Usage(
            "no arguments are given; see 'unionmount --help'".to_owned(),
        ));
    };
    if called_as == CalledAs::Unionmount && args::is_subcommand(first) {
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
    let parsed = args::command()
        .try_get_matches_from(whole)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let command = parsed.map(|cli| cli.command);
    if command.as_ref().is_ok_and(Command::is_interruptible) {
        interrupt::watch()?;
    }
    match command {
        Ok(Command::Mount(args)) if args.from.is_given() => container_mount::mount(args),
        Ok(Command::Mount(args)) => mount::run(mount::Request::from_args(args)?),
        Ok(Command::Umount(args)) => umount::run(&args),
        Ok(Command::Layer(args)) => layer::run(&args),
        Ok(Command::Convert(args)) => convert::run(&args),
        Ok(Command::Check(args)) => check::run(args),
        Ok(Command::Image(args)) => image::run(&args),
        Ok(Command::Container(args)) => container::run(args),
        Ok(Command::Volume(args)) => volume::run(&args),
        Ok(Command::System(args)) => system::run(&args),
        Ok(Command::Man(args)) => manual::man(&args),
        Ok(Command::Completions(args)) => manual::completions(&args),
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
            args::one_line(&err)
        ))),
    }
}

fn without_subcommand(called_as: CalledAs, arguments: Vec<OsString>) -> Result<(), Failure> {
    match compat::parse(called_as, arguments)? {
        Asked::Help if called_as == CalledAs::Unionmount => {
            exit::print(args::command().render_long_help().to_string().as_bytes())
        }
        Asked::Help => exit::print(compat::HELP.as_bytes()),
        Asked::Version => exit::print(called_as.version().as_bytes()),
        Asked::Mount(request) => mount::run(*request),
        Asked::Remount {
            mountpoint,
            read_only,
            flags,
        } => remount::run(&mountpoint, read_only, flags),
    }
}

/// A path in a message.
fn shown(path: &(impl AsRef<OsStr> + ?Sized)) -> String {
    format!("'{}'", path.as_ref().to_string_lossy())
}
