//! How the command ends: exit codes, and the one place that writes to standard error.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | the operation failed |
//! | 2 | the command line is wrong |
//!
//! A command that was interrupted ends by the signal (see `interrupt.rs`), which a shell
//! shows as 130, 143 or 129.

use std::io::Write as _;
use std::process::ExitCode;

use super::visible;
use crate::cli::options::OptionError;
use crate::store::StoreError;
use crate::union::config::SetupError;

/// Exit code of an operation that failed.
const FAILED: u8 = 1;

/// Exit code of a wrong command line.
const WRONG_USAGE: u8 = 2;

/// Why a command did not do what it was asked for; each message names its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The command line is fine, the operation failed.
    Operation(String),
}

impl Failure {
    /// The exit code for it.
    #[must_use]
    pub(in crate::cli) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => WRONG_USAGE,
            Self::Operation(_) => FAILED,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(message) | Self::Operation(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for Failure {}

impl From<OptionError> for Failure {
    fn from(err: OptionError) -> Self {
        Self::Usage(err.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Operation(error.to_string())
    }
}

impl From<SetupError> for Failure {
    fn from(err: SetupError) -> Self {
        Self::Operation(err.to_string())
    }
}

/// Reports the end of a command, and returns its exit code.
#[must_use]
pub(in crate::cli) fn report(result: Result<(), Failure>) -> ExitCode {
    // A command that was interrupted has nothing more to say; one that has ended is not interrupted
    // any more.
    crate::cancel::conclude();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

/// Writes one line `unionmount: MESSAGE` to standard error. Engines show it as it is, so it stays
/// one line whatever a path contains.
pub(in crate::cli) fn complain(message: &str) {
    let line = format!("unionmount: {}\n", visible::line(message));
    if std::io::stderr().write_all(line.as_bytes()).is_err() {
        // Standard error was closed by the caller; the exit code still tells.
        log::debug!("standard error is closed");
    }
}

/// Writes text to standard output: as it is, but on a terminal, where nothing of it acts
/// ([`visible`]). A reader that stops early (`| head`) is no failure.
///
/// # Errors
/// [`Failure::Operation`] when standard output cannot be written, as on a full disk.
pub(in crate::cli) fn print(text: &[u8]) -> Result<(), Failure> {
    let shown = visible::is_for_people().then(|| visible::lines(text));
    let text = shown.as_deref().unwrap_or(text);
    let mut out = std::io::stdout().lock();
    written(out.write_all(text).and_then(|()| out.flush()))
}

/// How writing to standard output ended. A reader that stops early is no failure.
///
/// # Errors
/// As [`print()`].
pub(in crate::cli) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Operation(
            format!("cannot write to standard output: {err}; check where it is redirected to"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn messages_stay_on_one_line() {
        assert_eq!(
            visible::line("no '/a\nb\tc\u{1b}[0m'"),
            r"no '/a\nb\tc\u001b[0m'"
        );
        assert_eq!(visible::line("plain ü"), "plain ü");
    }

    #[test]
    fn codes() {
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::from(SetupError::new("what", "cure")).code(), 1);
        assert_eq!(
            Failure::from(SetupError::new("what", "cure")).to_string(),
            "what; cure"
        );
    }
}
