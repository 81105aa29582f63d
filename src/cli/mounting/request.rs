//! A mount that is asked for, in either form of the command line: check, open the union, serve it.

use std::path::Path;

use crate::cli::options::table::Spec;
use crate::cli::ui::exit::{Failure, complain};
use crate::cli::ui::logging;
use crate::fuse::session::{self, descriptor};
use crate::fuse::settings::Settings;
use crate::sys::{daemon, limits};
use crate::union::Union;
use crate::union::config::Config;

use super::{preflight, privilege};

/// A mount that was asked for, in either form.
#[derive(Debug)]
pub(in crate::cli) struct Request {
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

/// Mounts. Returns in the daemon, once the mount has ended; the parent process exits inside
/// [`session::mount`].
///
/// # Errors
/// [`Failure::Operation`]: what was found wrong before anything was mounted, or what the kernel
/// refused.
pub(in crate::cli) fn run(request: Request) -> Result<(), Failure> {
    // The mount works without as well.
    if let Err(failure) = close_inherited(Some(&request.settings.mountpoint)) {
        complain(&failure.to_string());
    }
    serve(request)
}

/// Closes what was inherited without knowing but the device at `mountpoint`: the process that
/// started this one may wait for the end of such pipes. First thing in a process.
///
/// # Errors
/// [`Failure::Operation`] where close_range(2) is not permitted.
pub(in crate::cli) fn close_inherited(mountpoint: Option<&Path>) -> Result<(), Failure> {
    daemon::close_inherited(mountpoint.and_then(descriptor)).map_err(|error| {
        Failure::Operation(format!(
            "cannot close inherited descriptors: {error}; let the sandbox permit close_range(2)"
        ))
    })
}

/// As [`run`], in a process that has closed what it inherited and may have opened something that
/// its daemon is to keep.
///
/// # Errors
/// As [`run`].
pub(in crate::cli) fn serve(request: Request) -> Result<(), Failure> {
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
    // Each user of the mount has limits of their own.
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
    use super::*;

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
