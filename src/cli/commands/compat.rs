//! The compatible form: `unionmount -o OPTIONS [SOURCE] MOUNTPOINT`, as container engines, mount(8)
//! and users of fuse-overlayfs call it. The rules are those of containers/storage, `mount_program`;
//! mount(8) says how a helper `mount.TYPE` is called.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::nearest_subcommand;
use crate::cli::mounting::request::Request;
use crate::cli::options::{Dialect, Options};
use crate::cli::ui::exit::Failure;
use crate::fuse::settings::MountFlags;

/// The version of fuse-overlayfs whose options and behaviour are offered; others compare it
/// (benchexec refuses anything below 1.10).
const FUSE_OVERLAYFS_VERSION: &str = "1.13";

/// Help of the compatible form.
pub(super) const HELP: &str = "\
Usage: unionmount [-f] [-d] -o lowerdir=NEW:OLD[,upperdir=DIR,workdir=DIR][,OPTION..] [SOURCE] MOUNTPOINT

  -o OPTIONS       mount options, separated by commas; 'unionmount mount --help' lists them
  -f, --foreground stay in the foreground
  -d, --debug      log at debug level, in the foreground
  -s               one thread
  --log-file FILE  append the daemon's log to this file
  -h, --help       this text
  -V, --version    the version

Without upperdir the mount is read-only. MOUNTPOINT may be /dev/fd/N, an opened FUSE device.
";

/// Under which name the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CalledAs {
    /// Any name that means nothing special: subcommands, or the compatible form when there is none.
    Unionmount,
    /// `fuse-overlayfs`: in its place; always the compatible form.
    FuseOverlayfs,
    /// `mount.unionmount` or `mount.fuse.unionmount`: by mount(8), whose `-f` and `-s` mean other
    /// things.
    MountHelper,
}

impl CalledAs {
    /// Reads the name from `argv[0]`.
    #[must_use]
    pub(super) fn from_argv0(argv0: &OsStr) -> Self {
        match Path::new(argv0).file_name().map(OsStr::as_bytes) {
            Some(b"fuse-overlayfs") => Self::FuseOverlayfs,
            Some(b"mount.unionmount" | b"mount.fuse.unionmount") => Self::MountHelper,
            _ => Self::Unionmount,
        }
    }

    /// The part behind `fuse.` of the file system type.
    #[must_use]
    pub(super) fn subtype(self) -> &'static str {
        match self {
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Unionmount | Self::MountHelper => "unionmount",
        }
    }

    /// What `--version` prints. Engines and test harnesses look for `fuse-overlayfs: version X.Y`
    /// first.
    #[must_use]
    pub(super) fn version(self) -> String {
        let own = concat!("unionmount ", env!("CARGO_PKG_VERSION"), "\n");
        match self {
            Self::FuseOverlayfs => {
                format!("fuse-overlayfs: version {FUSE_OVERLAYFS_VERSION}\n{own}")
            }
            Self::Unionmount | Self::MountHelper => own.to_owned(),
        }
    }
}

/// What the arguments ask for.
#[derive(Debug)]
pub(super) enum Asked {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A mount.
    Mount(Box<Request>),
    /// Other flags for a mount that is there.
    Remount {
        /// Where it is.
        mountpoint: PathBuf,
        /// Whether it is to refuse changes.
        read_only: bool,
        /// The generic flags.
        flags: MountFlags,
    },
}

/// Everything that stood on the command line, before it is put together.
struct Line {
    options: Options,
    positionals: Vec<OsString>,
    foreground: bool,
    debug: bool,
    single: bool,
    fake: bool,
    log_file: Option<PathBuf>,
}

/// Reads the arguments behind `argv[0]`.
///
/// # Errors
/// [`Failure::Usage`], with one line.
pub(super) fn parse(called_as: CalledAs, arguments: Vec<OsString>) -> Result<Asked, Failure> {
    let first = arguments.first().cloned().unwrap_or_default();
    let mut line = Line {
        options: Options::new(Dialect::Compatible),
        positionals: Vec::new(),
        foreground: false,
        debug: false,
        single: false,
        fake: false,
        log_file: None,
    };
    let asked = match line.read(called_as, arguments) {
        Ok(Some(asked)) => return Ok(asked),
        Ok(None) if line.options.remount => return line.into_remount(),
        Ok(None) if line.options.config.lowers.is_empty() => Err(no_lower()),
        Ok(None) => return Ok(Asked::Mount(Box::new(line.into_request(called_as)?))),
        Err(failure) => Err(failure),
    };
    // Without layers it may have been meant for the other form.
    if called_as == CalledAs::Unionmount && line.options.config.lowers.is_empty() {
        let first = first.to_string_lossy();
        if let Some(nearest) = nearest_subcommand(&first) {
            return Err(Failure::Usage(format!(
                "unknown command '{first}'; did you mean '{nearest}'?"
            )));
        }
    }
    asked
}

impl Line {
    /// Reads all arguments; returns something when help or version end the reading.
    fn read(
        &mut self,
        called_as: CalledAs,
        arguments: Vec<OsString>,
    ) -> Result<Option<Asked>, Failure> {
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let bytes = argument.as_bytes();
            match bytes {
                b"--" => self.positionals.extend(rest.by_ref()),
                b"--help" => return Ok(Some(Asked::Help)),
                b"--version" => return Ok(Some(Asked::Version)),
                b"--foreground" => self.foreground = true,
                b"--debug" => self.debug = true,
                b"--log-file" => self.log_file = Some(following("--log-file", &mut rest)?.into()),
                _ if bytes.starts_with(b"--log-file=") => {
                    let file = bytes.strip_prefix(b"--log-file=");
                    self.log_file = file.map(|file| OsStr::from_bytes(file).into());
                }
                _ if bytes.starts_with(b"--") => return Err(unknown(&argument)),
                [b'-', letters @ ..] if !letters.is_empty() => {
                    if let Some(asked) = self.letters(called_as, &argument, letters, &mut rest)? {
                        return Ok(Some(asked));
                    }
                }
                _ => self.positionals.push(argument),
            }
        }
        Ok(None)
    }

    /// Reads `-fd`, `-o OPTIONS` or `-oOPTIONS`.
    fn letters(
        &mut self,
        called_as: CalledAs,
        argument: &OsStr,
        letters: &[u8],
        rest: &mut impl Iterator<Item = OsString>,
    ) -> Result<Option<Asked>, Failure> {
        let helper = called_as == CalledAs::MountHelper;
        for (at, letter) in letters.iter().enumerate() {
            let joined = letters.get(at + 1..).filter(|joined| !joined.is_empty());
            let mut value = |name: &str| match joined {
                Some(joined) => Ok(OsString::from_vec(joined.to_vec())),
                None => following(name, rest),
            };
            match letter {
                b'o' => {
                    self.options.add(&value("-o")?)?;
                    return Ok(None);
                }
                // mount(8) names the type, which is known here.
                b't' if helper => {
                    value("-t")?;
                    return Ok(None);
                }
                b'f' if helper => self.fake = true,
                // Sloppy (unknown options are only warned about, always), no mtab, verbose.
                b's' | b'n' | b'v' if helper => {}
                b'r' if helper => self.options.config.read_only = true,
                b'w' if helper => self.options.config.read_only = false,
                b'f' => self.foreground = true,
                b'd' => self.debug = true,
                b's' => self.single = true,
                b'h' => return Ok(Some(Asked::Help)),
                b'V' => return Ok(Some(Asked::Version)),
                _ => return Err(unknown(argument)),
            }
        }
        Ok(None)
    }

    /// Unknown options are no cause for a warning here: mount(8) adds those that the mount has.
    fn into_remount(self) -> Result<Asked, Failure> {
        let Some(mountpoint) = self.positionals.into_iter().next_back() else {
            return Err(no_mountpoint());
        };
        Ok(Asked::Remount {
            mountpoint: mountpoint.into(),
            read_only: self.options.config.read_only,
            flags: self.options.settings.flags,
        })
    }

    fn into_request(self, called_as: CalledAs) -> Result<Request, Failure> {
        let Options {
            mut config,
            mut settings,
            debug,
            warnings,
            without_effect,
            ..
        } = self.options;
        let count = self.positionals.len();
        let mut positionals = self.positionals.into_iter();
        let (source, target) = match (count, positionals.next(), positionals.next()) {
            (1, Some(target), _) => (None, target),
            (2, Some(source), Some(target)) => (Some(source), target),
            (0, ..) => return Err(no_mountpoint()),
            _ => {
                return Err(Failure::Usage(format!(
                    "{count} arguments are given besides options; give [SOURCE] MOUNTPOINT"
                )));
            }
        };
        match (&config.upper, &config.work, config.read_only) {
            (Some(_), None, false) => {
                return Err(Failure::Usage(
                    "option 'upperdir' needs a work directory; add workdir=DIR on the same file system".to_owned(),
                ));
            }
            // A read-only mount has no use for one.
            (None, Some(_), _) => config.work = None,
            _ => {}
        }
        if settings.subtype.is_empty() {
            called_as.subtype().clone_into(&mut settings.subtype);
        }
        if settings.fsname.is_empty() {
            settings.fsname = match source {
                Some(source) if !source.is_empty() => source.to_string_lossy().into_owned(),
                _ => settings.subtype.clone(),
            };
        }
        if self.single {
            settings.threads = Some(1);
        }
        settings.mountpoint = target.into();
        // As in libfuse: who asks for debug output wants to read it.
        settings.foreground = self.foreground || self.debug;
        settings.log_file = self.log_file;
        Ok(Request {
            config,
            settings,
            debug: debug || self.debug,
            fake: self.fake,
            warnings,
            without_effect,
        })
    }
}

fn following(name: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<OsString, Failure> {
    rest.next().ok_or_else(|| {
        Failure::Usage(format!(
            "'{name}' is the last argument; a value must follow it"
        ))
    })
}

fn unknown(argument: &OsStr) -> Failure {
    Failure::Usage(format!(
        "unknown argument '{}'; this is the form without a subcommand, see 'unionmount --help'",
        argument.to_string_lossy()
    ))
}

fn no_mountpoint() -> Failure {
    Failure::Usage(
        "no mountpoint is given; it is the last argument, see 'unionmount --help'".to_owned(),
    )
}

fn no_lower() -> Failure {
    Failure::Usage("option 'lowerdir' is missing; add -o lowerdir=DIR[:DIR..]".to_owned())
}

#[cfg(test)]
mod tests;
