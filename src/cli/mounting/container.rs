//! Mounting a container of a store, for `container mount` and `mount --image`.
//!
//! The daemon inherits locks on the container's directory and its volumes and keeps them until it
//! ends, so that the container is not removed under it. The catalog is closed before: a process
//! that forks must not hold it open.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::request::{Request, serve as serve_request};
use crate::cli::options::{Dialect, Options};
use crate::cli::ui::exit::{Failure, print};
use crate::fuse::settings::Held;
use crate::store::{BindSource, Container, Driver, Status, Store, in_use, lock, mounts, source_of};
use crate::union::config::Config;

/// How long a command waits for another one that is mounting the same container.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to look whether a container is in use.
const A_LOOK: Duration = Duration::from_millis(300);

/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The status of a container that no other command is just mounting: with the right to do it,
/// unless it is mounted already.
///
/// # Errors
/// The store or the mount table cannot be read.
pub(in crate::cli) fn await_turn(
    store: &Store,
    container: &Container,
) -> Result<(Status, Option<lock::MountLock>), Failure> {
    let place = store.paths().turn(&container.id);
    let began = Instant::now();
    let mut turn = None;
    let mut mine_since = None;
    loop {
        let status = store.status(container, &mounts()?)?;
        let has_turn = turn.is_some();
        match status {
            Status::Idle if has_turn => return Ok((status, turn)),
            Status::Idle => {}
            // A command that only looks has it for a moment.
            Status::Elsewhere
                if mine_since.is_none_or(|since: Instant| since.elapsed() < A_LOOK) => {}
            status => return Ok((status, turn)),
        }
        if !has_turn {
            turn = lock::MountLock::take(&place)?;
            if turn.is_some() {
                mine_since = Some(Instant::now());
                // It may have been mounted between the two looks.
                continue;
            }
            if began.elapsed() > PATIENCE {
                return Ok((Status::Elsewhere, None));
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// How a container is to be mounted.
pub(in crate::cli) struct Wanted<'a> {
    /// Each `-o`.
    pub options: &'a [OsString],
    /// Refuse every change.
    pub read_only: bool,
    /// Become no daemon.
    pub foreground: bool,
    /// Log at debug level.
    pub debug: bool,
    /// Where the daemon logs.
    pub log_file: Option<PathBuf>,
    /// `None`: in its own directory.
    pub mountpoint: Option<PathBuf>,
    /// Print where.
    pub announce: bool,
}

/// Mounts a container. Returns as [`super::request::run`] does.
///
/// # Errors
/// A wrong option, a container in use, and those of mounting.
pub(in crate::cli) fn serve(
    mut store: Store,
    container: &Container,
    wanted: &Wanted<'_>,
) -> Result<(), Failure> {
    if container.driver == Driver::Vfs {
        return print_path(&store.paths().merged(&container.id));
    }
    let options = wanted.options()?;
    let held = hold(&store, container)?;
    let config = store.union_of(container)?;
    let mountpoint = note_mountpoint(&mut store, container, wanted)?;
    let source = source_of(store.paths(), &container.id);
    drop(store);
    serve_request(wanted.request(options, config, mountpoint, source, held))
}

/// Locks the container and its volumes; the daemon has the locks until it changes nothing any more.
fn hold(store: &Store, container: &Container) -> Result<Held, Failure> {
    let share = |dir: &Path| lock::share(dir)?.ok_or_else(|| Failure::from(in_use(container)));
    let held = Held::default();
    held.keep(share(&store.paths().container(&container.id))?.into());
    for (bind, source) in store.binds_of(&container.id)? {
        if matches!(bind.source, BindSource::Volume(_)) {
            held.keep(share(&source)?.into());
        }
    }
    Ok(held)
}

/// Where it will be mounted, which the catalog then knows.
fn note_mountpoint(
    store: &mut Store,
    container: &Container,
    wanted: &Wanted<'_>,
) -> Result<PathBuf, Failure> {
    match &wanted.mountpoint {
        Some(path) => {
            store.note_mountpoint(&container.id, path)?;
            Ok(path.clone())
        }
        None => {
            if container.mountpoint.is_some() {
                store.forget_mountpoint(&container.id)?;
            }
            Ok(store.paths().merged(&container.id))
        }
    }
}

impl Wanted<'_> {
    fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::new(Dialect::Strict);
        for text in self.options {
            options.add(text)?;
        }
        let config = &options.config;
        if !config.lowers.is_empty() || config.upper.is_some() || config.work.is_some() {
            return Err(Failure::Usage(
                "lowerdir, upperdir and workdir are the container's own; leave these options out"
                    .to_owned(),
            ));
        }
        Ok(options)
    }

    fn request(
        &self,
        options: Options,
        union: Config,
        mountpoint: PathBuf,
        source: String,
        held: Held,
    ) -> Request {
        let mut config = options.config;
        config.lowers = union.lowers;
        config.upper = union.upper;
        config.work = union.work;
        config.volumes.extend(union.volumes);
        config.xattr_permissions = config.xattr_permissions.or(union.xattr_permissions);
        config.read_only |= self.read_only;
        let mut settings = options.settings;
        if settings.subtype.is_empty() {
            "unionmount".clone_into(&mut settings.subtype);
        }
        if settings.fsname.is_empty() {
            settings.fsname = source;
        }
        settings.announce = self
            .announce
            .then(|| mountpoint.to_string_lossy().into_owned());
        settings.mountpoint = mountpoint;
        settings.foreground = self.foreground;
        settings.log_file.clone_from(&self.log_file);
        settings.held = held;
        Request {
            config,
            settings,
            debug: options.debug || self.debug,
            fake: false,
            warnings: options.warnings,
            without_effect: options.without_effect,
        }
    }
}

/// Prints where something is mounted.
///
/// # Errors
/// As [`print()`].
pub(in crate::cli) fn print_path(path: &Path) -> Result<(), Failure> {
    let mut line = path.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    print(&line)
}
