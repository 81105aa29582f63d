//! `unionmount mount`, and what both forms of the mount command have in common: check, open the
//! union, serve it.

use std::os::unix::ffi::OsStrExt as _;

use super::args::MountArgs;
use super::exit::{Failure, complain};
use super::options::table::Spec;
use super::options::{Dialect, Options, value};
use super::{logging, preflight, privilege};
use crate::fuse::session::{self, descriptor};
use crate::fuse::settings::Settings;
use crate::sys::{daemon, limits};
use crate::union::Union;
use crate::union::config::Config;

/// A mount that was asked for, in either form.
#[derive(Debug)]
pub(crate) struct Request {
    /// The directories and rules.
    pub config: Config,
    /// The settings of the session.
    pub settings: Settings,
    /// Log at debug level.
    pub debug: bool,
    /// Check everything and mount nothing (`mount -f`).
    pub fake: bool,
    /// One line each, for standard error.
    pub warnings: Vec<String>,
    /// Options that were given and change nothing.
    pub without_effect: Vec<&'static Spec>,
}

impl Request {
    /// Puts the arguments of `unionmount mount` together.
    ///
    /// # Errors
    /// [`Failure::Usage`]: wrong options, a directory given twice, an upper without a work
    /// directory.
    pub(crate) fn from_args(args: MountArgs) -> Result<Self, Failure> {
        let mut options = Options::new(Dialect::Strict);
        for text in &args.options {
            options.add(text)?;
        }
        let Options {
            mut config,
            mut settings,
            debug,
            warnings,
            without_effect,
            ..
        } = options;
        if !args.lowers.is_empty() && !config.lowers.is_empty() {
            return Err(twice("lowerdir", "--lower"));
        }
        config.lowers.extend(args.lowers);
        if config.lowers.is_empty() {
            return Err(Failure::Usage(
                "no layer is given; add --lower DIR, newest first".to_owned(),
            ));
        }
        if args.upper.is_some() && config.upper.is_some() {
            return Err(twice("upperdir", "--upper"));
        }
        config.upper = args.upper.or(config.upper);
        if args.work.is_some() && config.work.is_some() {
            return Err(twice("workdir", "--work"));
        }
        config.work = args.work.or(config.work);
        for volume in &args.volumes {
            let parsed = value::volume(volume.as_bytes()).map_err(|accepted| {
                Failure::Usage(format!(
                    "--volume {} is wrong; it takes {accepted}",
                    volume.to_string_lossy()
                ))
            })?;
            config.volumes.push(parsed);
        }
        config.read_only |= args.read_only;
        match (&config.upper, &config.work) {
            (Some(_), None) if !config.read_only => {
                return Err(Failure::Usage(
                    "--upper needs a work directory; add --work DIR (on the same file system), or --read-only".to_owned(),
                ));
            }
            (None, Some(_)) => {
                return Err(Failure::Usage(
                    "--work is of no use without an upper directory; add --upper DIR".to_owned(),
                ));
            }
            _ => {}
        }
        if settings.subtype.is_empty() {
            "unionmount".clone_into(&mut settings.subtype);
        }
        if settings.fsname.is_empty() {
            settings.fsname.clone_from(&settings.subtype);
        }
        settings.mountpoint = args.mountpoint;
        settings.foreground = args.foreground || (args.debug && args.log_file.is_none());
        settings.log_file = args.log_file;
        Ok(Self {
            config,
            settings,
            debug: debug || args.debug,
            fake: false,
            warnings,
            without_effect,
        })
    }
}

fn twice(option: &str, argument: &str) -> Failure {
    Failure::Usage(format!(
        "option '{option}' and {argument} are both given; use one of them"
    ))
}

/// Mounts. Returns in the daemon, once the mount has ended; the parent process exits inside
/// [`session::mount`].
///
/// # Errors
/// [`Failure::Operation`]: what was found wrong before anything was mounted, or what the kernel
/// refused.
pub(crate) fn run(request: Request) -> Result<(), Failure> {
    close_inherited(&request);
    serve(request)
}

/// Whoever started us may wait for the end of pipes that we inherited without knowing. First thing
/// in a process.
pub(super) fn close_inherited(request: &Request) {
    if let Err(error) = daemon::close_inherited(descriptor(&request.settings.mountpoint)) {
        complain(&format!("cannot close inherited descriptors: {error}"));
    }
}

/// As [`run`], in a process that has closed what it inherited and may have opened something that
/// its daemon is to keep.
///
/// # Errors
/// As [`run`].
pub(super) fn serve(request: Request) -> Result<(), Failure> {
    let Request {
        mut config,
        mut settings,
        debug,
        fake,
        warnings,
        without_effect,
    } = request;
    for warning in &warnings {
        complain(warning);
    }
    logging::init(debug, settings.log_file.as_deref())?;
    for spec in &without_effect {
        log::debug!("option {} changes nothing: {}", spec.name, spec.help);
    }
    let checked = preflight::check(&config, &settings.mountpoint)?;
    // The daemon leaves the current directory.
    settings.mountpoint = checked.mountpoint;
    if descriptor(&settings.mountpoint).is_none() {
        privilege::check(&settings.mountpoint)?;
    }
    privilege::raise_descriptor_limit(preflight::layers(&config))?;
    // Who uses the mount is held to limits of his own.
    limits::ignore_processor_time();
    for left in limits::lift() {
        log::warn!(
            "a limit of {left} (ulimit) cannot be raised, and holds for everything that is done on the mount"
        );
    }
    if fake {
        return Ok(());
    }
    config.noatime = settings.flags.noatime;
    let union = Union::open(&config)?;
    session::mount(union, settings)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use clap::Parser as _;

    use super::super::args::{Cli, Command};
    use super::*;

    fn request(line: &str) -> Result<Request, String> {
        let arguments = ["unionmount", "mount"]
            .into_iter()
            .chain(line.split_whitespace());
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Mount(args) => Request::from_args(args).map_err(|err| err.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_become_values() {
        let request =
            request("--lower a --lower b:c --upper u --work w -o volatile -o threads=3 -f /m")
                .unwrap();
        assert_eq!(request.config.lowers, [Path::new("a"), Path::new("b:c")]);
        assert_eq!(request.config.upper.as_deref(), Some(Path::new("u")));
        assert_eq!(request.config.work.as_deref(), Some(Path::new("w")));
        assert!(
            request.config.volatile && !request.config.read_only && request.settings.foreground
        );
        assert_eq!(request.settings.threads, Some(3));
        assert_eq!(request.settings.fsname, "unionmount");
        assert_eq!(request.settings.subtype, "unionmount");
    }

    #[test]
    fn options_may_name_the_directories() {
        let request = request("-o lowerdir=a:b /m").unwrap();
        assert_eq!(request.config.lowers.len(), 2);
        let request =
            super::tests::request("--lower a -o upperdir=u,workdir=w,fsname=x /m").unwrap();
        assert_eq!(request.config.upper.as_deref(), Some(Path::new("u")));
        assert_eq!(request.settings.fsname, "x");
    }

    #[test]
    fn debug_without_a_log_file_stays_in_the_foreground() {
        assert!(request("--lower a -d /m").unwrap().settings.foreground);
        assert!(
            !request("--lower a -d --log-file f /m")
                .unwrap()
                .settings
                .foreground
        );
        assert!(request("--lower a -d --log-file f /m").unwrap().debug);
    }

    #[test]
    fn errors() {
        let cases = [
            ("/m", "no layer is given; add --lower DIR, newest first"),
            (
                "--lower a --upper u /m",
                "--upper needs a work directory; add --work DIR (on the same file system), or --read-only",
            ),
            (
                "--lower a --work w /m",
                "--work is of no use without an upper directory; add --upper DIR",
            ),
            (
                "--lower a -o lowerdir=b /m",
                "option 'lowerdir' and --lower are both given; use one of them",
            ),
            (
                "--lower a --upper u --work w -o upperdir=b /m",
                "option 'upperdir' and --upper are both given; use one of them",
            ),
            (
                "--lower a --upper u --work w -o workdir=b /m",
                "option 'workdir' and --work are both given; use one of them",
            ),
            (
                "--lower a -o volatil /m",
                "unknown option 'volatil'; did you mean 'volatile'?",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(request(line).unwrap_err(), expected, "{line}");
        }
        assert!(request("--lower a --upper u --read-only /m").is_ok());
    }

    #[test]
    fn descriptors() {
        let cases = [
            ("/dev/fd/3", Some(3)),
            ("/dev/fd/10", Some(10)),
            ("/dev/fd/", None),
            ("/dev/fd/x", None),
            ("/dev/fd/-1", None),
            ("/dev/fd/+1", None),
            ("/m", None),
        ];
        for (path, expected) in cases {
            assert_eq!(descriptor(Path::new(path)), expected, "{path}");
        }
    }
}
