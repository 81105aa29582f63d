//! The `-o` option language: text in, [`Config`] and [`Settings`] out. Pure: no path is looked at
//! here.
//!
//! Rules, where the compatible form differs from `unionmount mount`, are the mount-program contract
//! of containers/storage: an unknown option is a warning there and an error here.

mod effect;
mod lex;
pub(in crate::cli) mod nearest;
pub(crate) mod table;
pub(crate) mod value;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::fuse::settings::Settings;
use crate::union::config::Config;
use table::Spec;

/// Longest part of a value that an error message repeats, in bytes: a `lowerdir=` may have 128 KiB.
const SHOWN_VALUE: usize = 60;

/// Who calls, and so what an unknown option means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `unionmount mount`: an unknown option is an error.
    #[default]
    Strict,
    /// The form that engines and mount(8) use: an unknown option is collected for a warning.
    Compatible,
}

/// An option that cannot be used: a message of one line that names it, what is wrong and what is
/// accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError(String);

impl std::fmt::Display for OptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OptionError {}

/// What the options said. Later options win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The directories and rules of the union.
    pub config: Config,
    /// The settings of the session. `fsname` and `subtype` are empty unless they were given.
    pub settings: Settings,
    /// Log at debug level.
    pub debug: bool,
    /// Compatible form only: other flags for a mount that is there.
    pub remount: bool,
    /// Compatible form only: warnings about unknown options, one line each.
    pub warnings: Vec<String>,
    /// Options that were given and change nothing here.
    pub without_effect: Vec<&'static Spec>,
    dialect: Dialect,
}

impl Options {
    /// No options yet.
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            ..Self::default()
        }
    }

    /// Reads one argument of `-o`; may be called several times.
    ///
    /// # Errors
    /// A value that is wrong, an option that is not supported, and an unknown option in the strict
    /// dialect.
    pub fn add(&mut self, text: &OsStr) -> Result<(), OptionError> {
        let words = lex::split_options(text.as_bytes()).map_err(|open| {
            OptionError(format!(
                "option '{}': a double quote is not closed",
                shown(open.name)
            ))
        })?;
        for word in words {
            self.apply(&word)?;
        }
        Ok(())
    }

    fn apply(&mut self, word: &lex::Word<'_>) -> Result<(), OptionError> {
        let name = String::from_utf8_lossy(word.name);
        match table::find(&name) {
            Some(spec) => self
                .set(spec, word.value)
                .map_err(|problem| problem.into_error(spec, word)),
            None if table::is_comment(&name) => Ok(()),
            None => self.unknown(&shown(word.name)),
        }
    }

    fn unknown(&mut self, name: &str) -> Result<(), OptionError> {
        let hint = table::nearest(name).map_or_else(
            || "see 'unionmount mount --help' for the valid ones".to_owned(),
            |nearest| format!("did you mean '{nearest}'?"),
        );
        match self.dialect {
            Dialect::Strict => Err(OptionError(format!("unknown option '{name}'; {hint}"))),
            Dialect::Compatible => {
                self.warnings
                    .push(format!("unknown option '{name}' is ignored; {hint}"));
                Ok(())
            }
        }
    }
}

/// Bytes as they appear in a message: cut where they are long.
fn shown(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_VALUE) {
        Some(start) if bytes.len() > SHOWN_VALUE => format!("{}..", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests;
