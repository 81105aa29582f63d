//! Where log messages go and how much is said. `RUST_LOG` decides when it is set.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use env_logger::{Builder, Env, Target};

use super::exit::Failure;
use super::visible;

/// Starts logging: at debug level or for warnings only, to a file that is appended to or to
/// standard error. In the background, standard error is closed once the mount is usable, so that
/// only a file sees the daemon's messages.
///
/// # Errors
/// [`Failure::Operation`] when the file cannot be opened.
pub(in crate::cli) fn init(debug: bool, log_file: Option<&Path>) -> Result<(), Failure> {
    let mut builder =
        Builder::from_env(Env::default().default_filter_or(if debug { "debug" } else { "warn" }));
    match log_file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path).map_err(|err| {
                Failure::Operation(format!(
                    "cannot open the log file '{}': {err}; name a file that can be written with --log-file",
                    path.display()
                ))
            })?;
            builder.target(Target::Pipe(Box::new(file)));
        }
        None if !debug => {
            // What an engine shows to its user reads like the rest of the program's messages.
            builder.format(|buffer, record| {
                let level = record.level().as_str().to_ascii_lowercase();
                let message = record.args().to_string();
                writeln!(buffer, "unionmount: {level}: {}", visible::line(&message))
            });
        }
        None => {}
    }
    builder.try_init().map_err(|err| {
        Failure::Operation(format!(
            "cannot start logging: {err}; report this, it is a mistake in unionmount"
        ))
    })
}
