//! `unionmount mount` with `--image`, `--overlay2` or `--podman`: layers of a store.

use std::path::PathBuf;

use clap::Args;

use super::{MountArgs, request};
use crate::cli::commands::container::from_volume;
use crate::cli::commands::store_args::StoreArgs;
use crate::cli::mounting::container::{Wanted, serve};
use crate::cli::mounting::privilege;
use crate::cli::mounting::request::{close_inherited, run as mount};
use crate::cli::ui::exit::Failure;
use crate::store::{Driver, NewContainer, Store, foreign};

/// What `mount` takes besides directories.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli::commands) struct MountSourceArgs {
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
    pub(super) fn is_given(&self) -> bool {
        self.image.is_some() || self.overlay2.is_some() || self.podman.is_some()
    }
}

/// Mounts layers of a store.
///
/// # Errors
/// There is no such image or layer, and those of mounting.
pub(super) fn run(mut args: MountArgs) -> Result<(), Failure> {
    let from = std::mem::take(&mut args.from);
    if let Some(image) = &from.image {
        return image_at(&from, image, args);
    }
    let union = match (&from.overlay2, &from.podman) {
        (Some(dir), _) => foreign::overlay2(dir)?,
        (None, Some(word)) => foreign::podman(word, from.podman_store.as_deref())?,
        (None, None) => return mount(request(args)?),
    };
    args.lowers = union.lowers;
    args.read_only = true;
    mount(request(args)?)
}

fn image_at(from: &MountSourceArgs, image: &str, args: MountArgs) -> Result<(), Failure> {
    close_inherited(None)?;
    // FUSE or nothing: a copy has no place of its own that could be chosen.
    privilege::fuse_is_available()?;
    let mountpoint = args.mountpoint.canonicalize().map_err(|error| {
        Failure::Operation(format!(
            "mountpoint '{}': {error}; name a directory that exists",
            args.mountpoint.display()
        ))
    })?;
    let mut binds = Vec::new();
    for text in &args.volumes {
        binds.push(from_volume(&text.to_string_lossy())?);
    }
    let mut store = Store::open(from.root.root.as_deref())?;
    let container = store.create_container(&NewContainer {
        image: image.to_owned(),
        name: None,
        binds,
        driver: Driver::Fuse,
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
