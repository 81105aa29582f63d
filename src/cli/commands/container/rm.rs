//! `unionmount container rm`.

use std::path::Path;

use clap::Args;

use crate::cli::commands::store_args::{StoreArgs, for_each};
use crate::cli::mounting::unmount::{Unmount, take_away};
use crate::cli::ui::exit::{Failure, print};
use crate::store::{Status, Store, in_use, mounts};

/// `container rm`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct RmArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,

    /// Unmount it first
    #[arg(short, long)]
    pub force: bool,

    /// Remove its volumes without a name, too
    #[arg(short, long)]
    pub volumes: bool,
}

/// Removes containers.
///
/// # Errors
/// The first that could not be removed; all are tried.
pub(super) fn run(store: &StoreArgs, args: &RmArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    for_each(&args.containers, |word| remove(&mut store, word, args))
}

fn remove(store: &mut Store, word: &str, args: &RmArgs) -> Result<(), Failure> {
    let container = store.container(word)?;
    match store.status(&container, &mounts()?)? {
        Status::Mounted(path) | Status::Dead(path) if args.force => unmount_by_force(&path)?,
        Status::Dead(_) | Status::Mounted(_) => return Err(in_use(&container).into()),
        _ => {}
    }
    let container = store.remove_container(&container.id, args.volumes)?;
    print(format!("{}\n", container.name).as_bytes())
}

/// Unmounts as `umount` does, and if that does not help as `umount --force`.
fn unmount_by_force(mountpoint: &Path) -> Result<(), Failure> {
    let request = |force| Unmount {
        lazy: false,
        force,
        mountpoint: mountpoint.to_owned(),
    };
    if take_away(&request(false)).is_ok() {
        return Ok(());
    }
    take_away(&request(true)).map(drop)
}
