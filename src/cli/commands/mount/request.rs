//! From the arguments of `unionmount mount` to a request.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::MountArgs;
use crate::cli::mounting::request::Request;
use crate::cli::options::{Dialect, Options, value};
use crate::cli::ui::exit::Failure;
use crate::union::config::Config;

/// Puts the arguments together.
///
/// # Errors
/// [`Failure::Usage`]: wrong options, a directory given twice, an upper without a work directory.
pub(super) fn request(args: MountArgs) -> Result<Request, Failure> {
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
    add_layers(&mut config, &args)?;
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
    check_work(&config)?;
    if settings.subtype.is_empty() {
        "unionmount".clone_into(&mut settings.subtype);
    }
    if settings.fsname.is_empty() {
        settings.fsname.clone_from(&settings.subtype);
    }
    settings.mountpoint = args.mountpoint;
    settings.foreground = args.foreground || (args.debug && args.log_file.is_none());
    settings.log_file = args.log_file;
    Ok(Request {
        config,
        settings,
        debug: debug || args.debug,
        fake: false,
        warnings,
        without_effect,
    })
}

/// The directories, by arguments or by options.
fn add_layers(config: &mut Config, args: &MountArgs) -> Result<(), Failure> {
    if !args.lowers.is_empty() && !config.lowers.is_empty() {
        return Err(twice("lowerdir", "--lower"));
    }
    config.lowers.extend_from_slice(&args.lowers);
    if config.lowers.is_empty() {
        return Err(Failure::Usage(
            "no layer is given; add --lower DIR, newest first".to_owned(),
        ));
    }
    let either = |option: &mut Option<PathBuf>, argument: &Option<PathBuf>, names: [&str; 2]| {
        if argument.is_some() && option.is_some() {
            return Err(twice(names[0], names[1]));
        }
        if argument.is_some() {
            option.clone_from(argument);
        }
        Ok(())
    };
    either(&mut config.upper, &args.upper, ["upperdir", "--upper"])?;
    either(&mut config.work, &args.work, ["workdir", "--work"])
}

/// An upper needs a work directory, which is of no use without one.
fn check_work(config: &Config) -> Result<(), Failure> {
    match (&config.upper, &config.work) {
        (Some(_), None) if !config.read_only => Err(Failure::Usage(
            "--upper needs a work directory; add --work DIR (on the same file system), or --read-only".to_owned(),
        )),
        (None, Some(_)) => Err(Failure::Usage(
            "--work is of no use without an upper directory; add --upper DIR".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn twice(option: &str, argument: &str) -> Failure {
    Failure::Usage(format!(
        "option '{option}' and {argument} are both given; use one of them"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::path::Path;

    use clap::Parser as _;

    use super::*;
    use crate::cli::commands::{Cli, Command};

    fn parsed(line: &str) -> Result<Request, String> {
        let arguments = ["unionmount", "mount"]
            .into_iter()
            .chain(line.split_whitespace());
        match Cli::try_parse_from(arguments).unwrap().command {
            Command::Mount(args) => request(*args).map_err(|err| err.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_become_values() {
        let request =
            parsed("--lower a --lower b:c --upper u --work w -o volatile -o threads=3 -f /m")
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
        let request = parsed("-o lowerdir=a:b /m").unwrap();
        assert_eq!(request.config.lowers.len(), 2);
        let request = parsed("--lower a -o upperdir=u,workdir=w,fsname=x /m").unwrap();
        assert_eq!(request.config.upper.as_deref(), Some(Path::new("u")));
        assert_eq!(request.settings.fsname, "x");
    }

    #[test]
    fn debug_without_a_log_file_stays_in_the_foreground() {
        assert!(parsed("--lower a -d /m").unwrap().settings.foreground);
        assert!(
            !parsed("--lower a -d --log-file f /m")
                .unwrap()
                .settings
                .foreground
        );
        assert!(parsed("--lower a -d --log-file f /m").unwrap().debug);
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
            assert_eq!(parsed(line).unwrap_err(), expected, "{line}");
        }
        assert!(parsed("--lower a --upper u --read-only /m").is_ok());
    }
}
