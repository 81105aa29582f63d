//! What each option of the table does with its value.

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::table::{Accepts, Effect, LayersEffect, SessionEffect, Spec, UnionEffect};
use super::{Dialect, OptionError, Options, lex, shown, value};
use crate::fuse::settings::{AllowOther, Io, Transport};
use crate::union::config::{CacheMode, StatOverrideForm, WhiteoutForm};

/// Smallest write request that the FUSE protocol allows, in bytes.
const MIN_MAX_WRITE: u32 = 4096;

/// Most threads that can be asked for.
const MAX_THREADS: u32 = 512;

impl Options {
    pub(super) fn set(&mut self, spec: &'static Spec, given: Option<&[u8]>) -> Result<(), Problem> {
        match spec.effect {
            Effect::Layers(effect) => self.set_layers(effect, given)?,
            Effect::Union(effect) => self.set_union(effect, given)?,
            Effect::Session(effect) => self.set_session(effect, spec, given)?,
            Effect::Debug => self.debug = value::switch(given)?,
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

    fn set_layers(&mut self, effect: LayersEffect, given: Option<&[u8]>) -> Result<(), Problem> {
        let config = &mut self.config;
        match effect {
            LayersEffect::Lowers => (config.lowers, config.data_only) = layers(given)?,
            LayersEffect::AddLower => config.lowers.push(path(given)?),
            LayersEffect::AddDataOnly => config.data_only.push(path(given)?),
            LayersEffect::Upper => config.upper = Some(path(given)?),
            LayersEffect::Work => config.work = Some(path(given)?),
            LayersEffect::Volume => config.volumes.push(value::volume(some(given)?)?),
            LayersEffect::ReadOnly(read_only) => {
                none(given)?;
                config.read_only = read_only;
            }
        }
        Ok(())
    }

    fn set_union(&mut self, effect: UnionEffect, given: Option<&[u8]>) -> Result<(), Problem> {
        let config = &mut self.config;
        match effect {
            UnionEffect::UidMap => config.uid_map = value::id_ranges(some(given)?)?,
            UnionEffect::GidMap => config.gid_map = value::id_ranges(some(given)?)?,
            UnionEffect::SquashToRoot => {
                let root = value::switch(given)?.then_some(0);
                config.squash_uid = root;
                config.squash_gid = root;
            }
            UnionEffect::SquashUid => config.squash_uid = Some(value::id(some(given)?)?),
            UnionEffect::SquashGid => config.squash_gid = Some(value::id(some(given)?)?),
            UnionEffect::XattrPermissions => {
                let forms: [(&str, _); 3] = [
                    ("0", None),
                    ("1", Some(StatOverrideForm::Privileged)),
                    ("2", Some(StatOverrideForm::User)),
                ];
                config.xattr_permissions = word(given, &forms)?;
            }
            UnionEffect::Volatile => config.volatile = value::switch(given)?,
            UnionEffect::Fsync => config.volatile = !value::switch(Some(some(given)?))?,
            UnionEffect::NoAcl => config.no_acl = value::switch(given)?,
            UnionEffect::NoXattrs => config.no_xattrs = value::switch(given)?,
            UnionEffect::Whiteout => {
                let forms = [
                    ("wh", WhiteoutForm::Wh),
                    ("char", WhiteoutForm::Char),
                    ("auto", WhiteoutForm::Auto),
                ];
                config.whiteout = word(given, &forms)?;
            }
            UnionEffect::Cache => {
                let modes = [("static", CacheMode::Static), ("auto", CacheMode::Auto)];
                config.cache = word(given, &modes)?;
            }
            UnionEffect::ShortInos => config.short_inos = value::switch(given)?,
            UnionEffect::StaticNlink => config.static_nlink = value::switch(given)?,
            UnionEffect::NfsExport => config.nfs_export = word(given, &ON_OFF)?,
            // Kernel overlayfs knows two ways of being off; which redirects are followed is no
            // choice here.
            UnionEffect::RedirectDir => {
                config.redirect_dir = match (given, self.dialect) {
                    (Some(b"follow" | b"nofollow"), Dialect::Compatible) => false,
                    _ => word(given, &ON_OFF)?,
                }
            }
        }
        Ok(())
    }

    fn set_session(
        &mut self,
        effect: SessionEffect,
        spec: &'static Spec,
        given: Option<&[u8]>,
    ) -> Result<(), Problem> {
        let settings = &mut self.settings;
        match effect {
            SessionEffect::Timeout => settings.timeout = Some(value::seconds(some(given)?)?),
            SessionEffect::Threaded => {
                match (value::switch(Some(some(given)?))?, settings.threads) {
                    (false, _) => settings.threads = Some(1),
                    (true, Some(1)) => settings.threads = None,
                    (true, _) => {}
                }
            }
            SessionEffect::Threads => {
                let threads = value::number(some(given)?, 1, MAX_THREADS)?;
                settings.threads = usize::try_from(threads).ok();
            }
            SessionEffect::Writeback => settings.writeback = value::switch(given)?,
            SessionEffect::MaxWrite => {
                // libfuse reads 0 as "not given", so engines may pass it.
                settings.max_write = match some(given)? {
                    b"0" => None,
                    bytes => Some(value::number(bytes, MIN_MAX_WRITE, u32::MAX)?),
                }
            }
            SessionEffect::Transport => settings.transport = word(given, &TRANSPORTS)?,
            SessionEffect::Io => {
                let ways = [
                    ("auto", Io::Auto),
                    ("cached", Io::Cached),
                    ("passthrough", Io::Passthrough),
                ];
                settings.io = word(given, &ways)?;
            }
            SessionEffect::Without => settings.without = value::capabilities(some(given)?)?,
            SessionEffect::SecurityCtx => settings.security_ctx = value::switch(given)?,
            // No label is what engines give where SELinux is off.
            SessionEffect::Label if some(given)?.is_empty() => {}
            SessionEffect::Label => settings.selinux.push((spec.name, text(given)?)),
            SessionEffect::AllowOther => {
                none(given)?;
                settings.allow_other = AllowOther::Yes;
            }
            SessionEffect::DefaultPermissions => {
                settings.no_default_permissions = !value::switch(given)?;
            }
            SessionEffect::FsName => settings.fsname = text(given)?,
            SessionEffect::SubType => settings.subtype = text(given)?,
            SessionEffect::Flag(set) => {
                none(given)?;
                set(&mut settings.flags);
            }
        }
        Ok(())
    }
}

const ON_OFF: [(&str, bool); 2] = [("on", true), ("off", false)];

const TRANSPORTS: [(&str, Transport); 4] = [
    ("auto", Transport::Auto),
    ("uring", Transport::Uring),
    ("dev", Transport::Dev),
    ("fuser", Transport::Fuser),
];

/// What one of several words stands for.
fn word<T: Copy>(given: Option<&[u8]>, words: &[(&str, T)]) -> Result<T, Problem> {
    let value = some(given)?;
    let found = words.iter().find(|(word, _)| word.as_bytes() == value);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let mut accepted = String::new();
        for (number, (word, _)) in words.iter().enumerate() {
            accepted.push_str(match number {
                0 => "",
                _ if number + 1 == words.len() => " or ",
                _ => ", ",
            });
            accepted.push_str(word);
        }
        Problem::Expected(accepted)
    })
}

/// Why a value is not taken.
pub(super) enum Problem {
    /// What would have been.
    Expected(String),
    /// No value is, in this version.
    Unsupported,
}

impl Problem {
    fn expected(what: &str) -> Self {
        Self::Expected(what.to_owned())
    }

    pub(super) fn into_error(self, spec: &Spec, word: &lex::Word<'_>) -> OptionError {
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
