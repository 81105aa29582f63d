//! Mounting what is in a store: `container mount`, and `mount` with `--image`, `--overlay2` and
//! `--podman`.
//!
//! The daemon inherits locks on the container's directory and its volumes and keeps them until it
//! ends, so that nobody removes the container under it. The catalog is closed before: a process
//! that forks must not hold it open.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::args::MountArgs;
use super::bind;
use super::container::DriverArg;
use super::exit::{Failure, print};
use super::mount::{self, Request};
use super::options::{Dialect, Options};
use super::store_args::StoreArgs;
use crate::fuse::settings::Held;
use crate::store::{
    BindSource, Container, Driver, NewContainer, Status, Store, foreign, in_use, lock, mounts,
    source_of, status_word,
};
use crate::sys::daemon;

/// How long a command waits for another one that is mounting the same container.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to look whether a container is in use.
const A_LOOK: Duration = Duration::from_millis(300);
/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// `container mount`.
#[derive(Debug, Args)]
pub(crate) struct MountContainerArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// Refuse every change
    #[arg(long)]
    pub read_only: bool,

    /// Mount options, separated by commas; 'unionmount mount --help' lists them all
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<OsString>,

    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,

    /// Append the daemon's log to this file
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// What `mount` takes besides directories.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MountSourceArgs {
    /// Mount an image of the store, in a container that `umount` removes
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["lowers", "upper", "work", "overlay2", "podman"])]
    pub image: Option<String>,

    /// With --image: the container stays when it is unmounted
    #[arg(long, requires = "image")]
    pub keep: bool,

    /// Mount a layer of docker's overlay2 directory with all below it, read-only
    #[arg(long, value_name = "DIR", conflicts_with_all = ["lowers", "upper", "work", "podman"])]
    pub overlay2: Option<PathBuf>,

    /// Mount a container, image or layer of a podman store, read-only
    #[arg(long, value_name = "ID", conflicts_with_all = ["lowers", "upper", "work"])]
    pub podman: Option<String>,

    /// With --podman: the store [default: graphroot of storage.conf]
    #[arg(long = "store", value_name = "DIR", requires = "podman")]
    pub podman_store: Option<PathBuf>,

    /// With --image: which store.
    #[command(flatten)]
    pub root: StoreArgs,
}

impl MountSourceArgs {
    /// Whether the layers come from a store.
    #[must_use]
    pub(crate) fn is_given(&self) -> bool {
        self.image.is_some() || self.overlay2.is_some() || self.podman.is_some()
    }
}

/// Carries out `mount` with a store.
///
/// # Errors
/// There is no such image or layer, and those of mounting.
pub(crate) fn mount(mut args: MountArgs) -> Result<(), Failure> {
    let from = std::mem::take(&mut args.from);
    if let Some(image) = &from.image {
        return image_at(&from, image, args);
    }
    let union = match (&from.overlay2, &from.podman) {
        (Some(dir), _) => foreign::overlay2(dir)?,
        (None, Some(word)) => foreign::podman(word, from.podman_store.as_deref())?,
        (None, None) => return mount::run(Request::from_args(args)?),
    };
    args.lowers = union.lowers;
    args.read_only = true;
    mount::run(Request::from_args(args)?)
}

fn image_at(from: &MountSourceArgs, image: &str, args: MountArgs) -> Result<(), Failure> {
    close_inherited()?;
    // FUSE or nothing: a copy has no place of its own that could be chosen.
    let driver = DriverArg::Fuse.choose()?;
    let mountpoint = args.mountpoint.canonicalize().map_err(|error| {
        Failure::Operation(format!(
            "mountpoint '{}': {error}; name a directory that exists",
            args.mountpoint.display()
        ))
    })?;
    let mut binds = Vec::new();
    for text in &args.volumes {
        binds.push(bind::from_volume(&text.to_string_lossy())?);
    }
    let mut store = Store::open(from.root.root.as_deref())?;
    let container = store.create_container(&NewContainer {
        image: image.to_owned(),
        name: None,
        binds,
        driver,
        temporary: !from.keep,
        mountpoint: Some(mountpoint.clone()),
    })?;
    let wanted = Wanted {
        options: &args.options,
        read_only: args.read_only,
        foreground: args.foreground || (args.debug && args.log_file.is_none()),
        debug: args.debug,
        log_file: args.log_file.clone(),
        mountpoint: Some(mountpoint),
        announce: false,
    };
    let root = store.paths().root().to_owned();
    let mounted = serve(store, &container, &wanted);
    // Only a mount that could not be made comes back.
    if mounted.is_err() && !from.keep {
        let mut store = Store::open(Some(&root))?;
        store.remove_container(&container.id, true)?;
    }
    mounted
}

/// Carries out `container mount`.
///
/// # Errors
/// There is no such container, it is mounted elsewhere, and those of mounting.
pub(crate) fn run(store: &StoreArgs, args: &MountContainerArgs) -> Result<(), Failure> {
    close_inherited()?;
    let store = Store::open(store.root.as_deref())?;
    let container = store.container(&args.container)?;
    let (status, turn) = await_turn(&store, &container)?;
    match status {
        Status::Idle => {}
        Status::Mounted(path) | Status::Copied(path) => return print_path(&path),
        Status::Dead(path) => {
            return Err(Failure::Operation(format!(
                "the daemon of container {} was killed; run 'unionmount container umount --force {}' first (mounted on '{}')",
                container.name,
                container.name,
                path.display()
            )));
        }
        status @ Status::Elsewhere => {
            return Err(Failure::Operation(format!(
                "container {} is {}; it may be mounted in another mount namespace: unmount it there",
                container.name,
                status_word(&status)
            )));
        }
    }
    let wanted = Wanted {
        options: &args.options,
        read_only: args.read_only,
        foreground: args.foreground,
        debug: false,
        log_file: args.log_file.clone(),
        mountpoint: None,
        announce: true,
    };
    let mounted = serve(store, &container, &wanted);
    // Here the daemon is ready, or the mount has ended.
    drop(turn);
    mounted
}

/// The status of a container that nobody else is just mounting: with the right to do it, unless it
/// is mounted already.
fn await_turn(
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
            // Somebody who only looks has it for a moment.
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
struct Wanted<'a> {
    options: &'a [OsString],
    read_only: bool,
    foreground: bool,
    debug: bool,
    log_file: Option<PathBuf>,
    /// `None`: in its own directory.
    mountpoint: Option<PathBuf>,
    /// Print where.
    announce: bool,
}

/// Mounts a container. Returns as [`mount::run`] does.
fn serve(mut store: Store, container: &Container, wanted: &Wanted<'_>) -> Result<(), Failure> {
    if container.driver == Driver::Vfs {
        return print_path(&store.paths().merged(&container.id));
    }
    let mut options = Options::new(Dialect::Strict);
    for text in wanted.options {
        options.add(text)?;
    }
    if !options.config.lowers.is_empty()
        || options.config.upper.is_some()
        || options.config.work.is_some()
    {
        return Err(Failure::Usage(
            "lowerdir, upperdir and workdir are the container's own; leave these options out"
                .to_owned(),
        ));
    }
    let dir = store.paths().container(&container.id);
    let share = |dir: &Path| lock::share(dir)?.ok_or_else(|| Failure::from(in_use(container)));
    // The daemon has them until it changes nothing any more.
    let used = Held::default();
    used.keep(share(&dir)?.into());
    let union = store.union_of(container)?;
    for (bind, source) in store.binds_of(&container.id)? {
        if matches!(bind.source, BindSource::Volume(_)) {
            used.keep(share(&source)?.into());
        }
    }
    let mountpoint = match &wanted.mountpoint {
        Some(path) => path.clone(),
        None => store.paths().merged(&container.id),
    };
    match &wanted.mountpoint {
        Some(path) => store.note_mountpoint(&container.id, path)?,
        None if container.mountpoint.is_none() => {}
        None => store.forget_mountpoint(&container.id)?,
    }
    let source = source_of(store.paths(), &container.id);
    drop(store);
    let mut config = options.config;
    config.lowers = union.lowers;
    config.upper = union.upper;
    config.work = union.work;
    config.volumes.extend(union.volumes);

    config.xattr_permissions = config.xattr_permissions.or(union.xattr_permissions);
    config.read_only |= wanted.read_only;
    let mut settings = options.settings;
    if settings.subtype.is_empty() {
        "unionmount".clone_into(&mut settings.subtype);
    }
    if settings.fsname.is_empty() {
        settings.fsname = source;
    }
    settings.announce = wanted
        .announce
        .then(|| mountpoint.to_string_lossy().into_owned());
    settings.mountpoint = mountpoint;
    settings.foreground = wanted.foreground;
    settings.log_file.clone_from(&wanted.log_file);
    settings.held = used;
    mount::serve(Request {
        config,
        settings,
        debug: options.debug || wanted.debug,
        fake: false,
        warnings: options.warnings,
        without_effect: options.without_effect,
    })
}

fn print_path(path: &Path) -> Result<(), Failure> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut line = path.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    print(&line)
}

fn close_inherited() -> Result<(), Failure> {
    daemon::close_inherited(None).map_err(|error| {
        Failure::Operation(format!(
            "cannot close inherited descriptors: {error}; let the sandbox permit close_range(2)"
        ))
    })
}
