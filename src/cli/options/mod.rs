//! The `-o` option language: text in, [`Config`] and [`Settings`] out. Pure: no path is looked at
//! here.
//!
//! Rules, where the compatible form differs from `unionmount mount`, are the mount-program contract
//! of containers/storage: an unknown option is a warning there and an error here.

pub(crate) mod lex;
pub(crate) mod table;
pub(crate) mod value;

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::fuse::settings::{AllowOther, Io, Settings, Transport};
use crate::union::config::{CacheMode, Config, StatOverrideForm, WhiteoutForm};
use table::{Accepts, Effect, Spec};

/// Longest part of a value that an error message repeats, in bytes: a `lowerdir=` may have 128 KiB.
const SHOWN_VALUE: usize = 60;

/// Smallest write request that the FUSE protocol allows, in bytes.
const MIN_MAX_WRITE: u32 = 4096;

/// Most threads that can be asked for.
const MAX_THREADS: u32 = 512;

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

    fn set(&mut self, spec: &'static Spec, given: Option<&[u8]>) -> Result<(), Problem> {
        let config = &mut self.config;
        let settings = &mut self.settings;
        match spec.effect {
            Effect::Lowers => (config.lowers, config.data_only) = layers(given)?,
            Effect::AddLower => config.lowers.push(path(given)?),
            Effect::AddDataOnly => config.data_only.push(path(given)?),
            Effect::Upper => config.upper = Some(path(given)?),
            Effect::Work => config.work = Some(path(given)?),
            Effect::Volume => config.volumes.push(value::volume(some(given)?)?),
            Effect::ReadOnly(read_only) => {
                none(given)?;
                config.read_only = read_only;
            }
            Effect::UidMap => config.uid_map = value::id_ranges(some(given)?)?,
            Effect::GidMap => config.gid_map = value::id_ranges(some(given)?)?,
            Effect::SquashToRoot => {
                let root = value::switch(given)?.then_some(0);
                config.squash_uid = root;
                config.squash_gid = root;
            }
            Effect::SquashUid => config.squash_uid = Some(value::id(some(given)?)?),
            Effect::SquashGid => config.squash_gid = Some(value::id(some(given)?)?),
            Effect::XattrPermissions => {
                config.xattr_permissions = match some(given)? {
                    b"0" => None,
                    b"1" => Some(StatOverrideForm::Privileged),
                    b"2" => Some(StatOverrideForm::User),
                    _ => return Err(Problem::expected("0, 1 or 2")),
                }
            }
            Effect::Volatile => config.volatile = value::switch(given)?,
            Effect::Fsync => config.volatile = !value::switch(Some(some(given)?))?,
            Effect::NoAcl => config.no_acl = value::switch(given)?,
            Effect::NoXattrs => config.no_xattrs = value::switch(given)?,
            Effect::Whiteout => {
                config.whiteout = match some(given)? {
                    b"wh" => WhiteoutForm::Wh,
                    b"char" => WhiteoutForm::Char,
                    b"auto" => WhiteoutForm::Auto,
                    _ => return Err(Problem::expected("wh, char or auto")),
                }
            }
            Effect::Cache => {
                config.cache = match some(given)? {
                    b"static" => CacheMode::Static,
                    b"auto" => CacheMode::Auto,
                    _ => return Err(Problem::expected("static or auto")),
                }
            }
            Effect::ShortInos => config.short_inos = value::switch(given)?,
            Effect::StaticNlink => config.static_nlink = value::switch(given)?,
            Effect::NfsExport => {
                config.nfs_export = match some(given)? {
                    b"on" => true,
                    b"off" => false,
                    _ => return Err(Problem::expected("on or off")),
                }
            }
            Effect::RedirectDir => {
                config.redirect_dir = match (some(given)?, self.dialect) {
                    (b"on", _) => true,
                    (b"off", _) => false,
                    // Kernel overlayfs knows two ways of being off; which redirects are followed is
                    // no choice here.
                    (b"follow" | b"nofollow", Dialect::Compatible) => false,
                    _ => return Err(Problem::expected("on or off")),
                }
            }
            Effect::Timeout => settings.timeout = Some(value::seconds(some(given)?)?),
            Effect::Threaded => match (value::switch(Some(some(given)?))?, settings.threads) {
                (false, _) => settings.threads = Some(1),
                (true, Some(1)) => settings.threads = None,
                (true, _) => {}
            },
            Effect::Threads => {
                let threads = value::number(some(given)?, 1, MAX_THREADS)?;
                settings.threads = usize::try_from(threads).ok();
            }
            Effect::Writeback => settings.writeback = value::switch(given)?,
            Effect::MaxWrite => {
                // libfuse reads 0 as "not given", so engines may pass it.
                settings.max_write = match some(given)? {
                    b"0" => None,
                    bytes => Some(value::number(bytes, MIN_MAX_WRITE, u32::MAX)?),
                }
            }
            Effect::Transport => {
                settings.transport = match some(given)? {
                    b"auto" => Transport::Auto,
                    b"uring" => Transport::Uring,
                    b"dev" => Transport::Dev,
                    b"fuser" => Transport::Fuser,
                    _ => return Err(Problem::expected("auto, uring, dev or fuser")),
                }
            }
            Effect::Io => {
                settings.io = match some(given)? {
                    b"auto" => Io::Auto,
                    b"cached" => Io::Cached,
                    b"passthrough" => Io::Passthrough,
                    _ => return Err(Problem::expected("auto, cached or passthrough")),
                }
            }
            Effect::Without => settings.without = value::capabilities(some(given)?)?,
            Effect::SecurityCtx => settings.security_ctx = value::switch(given)?,
            // No label is what engines give where SELinux is off.
            Effect::Label if some(given)?.is_empty() => {}
            Effect::Label => settings.selinux.push((spec.name, text(given)?)),
            Effect::AllowOther => {
                none(given)?;
                settings.allow_other = AllowOther::Yes;
            }
            Effect::DefaultPermissions => settings.no_default_permissions = !value::switch(given)?,
            Effect::FsName => settings.fsname = text(given)?,
            Effect::SubType => settings.subtype = text(given)?,
            Effect::Debug => self.debug = value::switch(given)?,
            Effect::Flag(set) => {
                none(given)?;
                set(&mut settings.flags);
            }
            Effect::Ignored(accepts) => {
                accepts.check(given)?;
                self.without_effect.push(spec);
            }
            Effect::Remount => {
                none(given)?;
                if self.dialect == Dialect::Strict {
                    return Err(Problem::Unsupported);
                }
                self.remount = true;
            }
            Effect::Unsupported => {
                if given.is_none() || value::switch(given) != Ok(false) {
                    return Err(Problem::Unsupported);
                }
            }
        }
        Ok(())
    }
}

/// Why a value is not taken.
enum Problem {
    /// What would have been.
    Expected(String),
    /// No value is, in this version.
    Unsupported,
}

impl Problem {
    fn expected(what: &str) -> Self {
        Self::Expected(what.to_owned())
    }

    fn into_error(self, spec: &Spec, word: &lex::Word<'_>) -> OptionError {
        let option = match word.value {
            Some(value) => format!("{}={}", spec.name, shown(value)),
            None => spec.name.to_owned(),
        };
        OptionError(match self {
            Self::Expected(what) => format!("option '{option}' is wrong; it takes {what}"),
            Self::Unsupported => format!(
                "option '{option}' is not supported in this version; {}",
                spec.help
            ),
        })
    }
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self::Expected(what)
    }
}

impl Accepts {
    fn check(self, given: Option<&[u8]>) -> Result<(), Problem> {
        match self {
            Self::Nothing => none(given),
            Self::Anything => Ok(()),
            Self::OneOf(words) => {
                let value = some(given)?;
                if words.iter().any(|word| word.as_bytes() == value) {
                    Ok(())
                } else {
                    Err(Problem::Expected(words.join(" or ")))
                }
            }
            Self::Number => value::number(some(given)?, 0, u32::MAX)
                .map(drop)
                .map_err(Problem::from),
        }
    }
}

fn none(given: Option<&[u8]>) -> Result<(), Problem> {
    match given {
        None => Ok(()),
        Some(_) => Err(Problem::expected("no value")),
    }
}

fn some(given: Option<&[u8]>) -> Result<&[u8], Problem> {
    given.ok_or_else(|| Problem::expected("a value"))
}

fn path(given: Option<&[u8]>) -> Result<PathBuf, Problem> {
    into_path(lex::unescape(some(given)?))
}

/// `A:B::C::D`: layers, and behind double colons layers of which only the bytes of files are used
/// (`overlayfs.rst`, "Data-only lower layers").
fn layers(given: Option<&[u8]>) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Problem> {
    let mut paths = lex::split_paths(some(given)?);
    let shown_ones = paths.iter().position(Vec::is_empty).unwrap_or(paths.len());
    let data = paths.split_off(shown_ones);
    let mut data_only = Vec::new();
    for pair in data.chunks(2) {
        match pair {
            [gap, path] if gap.is_empty() && !path.is_empty() => {
                data_only.push(into_path(path.clone())?);
            }
            _ => return Err(Problem::expected("paths that are not empty")),
        }
    }
    let lowers: Result<Vec<_>, _> = paths.into_iter().map(into_path).collect();
    let lowers = lowers?;
    if lowers.is_empty() {
        return Err(Problem::expected("paths that are not empty"));
    }
    Ok((lowers, data_only))
}

fn into_path(bytes: Vec<u8>) -> Result<PathBuf, Problem> {
    if bytes.is_empty() {
        return Err(Problem::expected("paths that are not empty"));
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// A name for `/proc/mounts`. That file is text, so bytes that are none are replaced.
fn text(given: Option<&[u8]>) -> Result<String, Problem> {
    let bytes = lex::unescape(some(given)?);
    if bytes.is_empty() {
        return Err(Problem::expected("a name"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
