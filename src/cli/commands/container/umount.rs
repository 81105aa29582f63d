//! `unionmount container umount`, and what becomes of a container that was unmounted.

use std::time::Duration;

use clap::Args;

use crate::cli::commands::store_args::{StoreArgs, for_each};
use crate::cli::mounting::unmount::{Unmount, take_away};
use crate::cli::ui::exit::{Failure, print};
use crate::store::{Container, Paths, Status, Store, container_of_source, mounts, status_word};

/// `container umount`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct UmountArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,

    /// Detach now, even when it is in use
    #[arg(long, conflicts_with = "force")]
    pub lazy: bool,

    /// Remove a mount whose daemon was killed or hangs
    #[arg(long)]
    pub force: bool,
}

/// Unmounts containers.
///
/// # Errors
/// The first that could not be unmounted; all are tried.
pub(super) fn run(store: &StoreArgs, args: &UmountArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    for_each(&args.containers, |word| umount_one(&mut store, word, args))
}

fn umount_one(store: &mut Store, word: &str, args: &UmountArgs) -> Result<(), Failure> {
    let container = store.container(word)?;
    let mountpoint = match settled(store, &container, |status| *status != Status::Elsewhere)? {
        (Status::Mounted(path) | Status::Dead(path), _) => path,
        // Another command was just unmounting it.
        (Status::Idle, true) => return print(format!("{word}\n").as_bytes()),
        (status, _) => {
            return Err(Failure::Operation(format!(
                "container {} is not mounted here ({}); see 'unionmount container ls'",
                container.name,
                status_word(&status)
            )));
        }
    };
    let taken = take_away(&Unmount {
        lazy: args.lazy,
        force: args.force,
        mountpoint,
    });
    match taken {
        Ok(_) => ended(store, &container, args.lazy)?,
        // Another command may have been faster, which then also does the rest.
        Err(failure) => {
            let (status, _) = settled(store, &container, |status| *status == Status::Idle)?;
            if matches!(status, Status::Mounted(_) | Status::Dead(_)) {
                return Err(failure);
            }
        }
    }
    print(format!("{word}\n").as_bytes())
}

/// The status of a container when it is one that is `expected`, or after a while; and whether it
/// was another before.
fn settled(
    store: &Store,
    container: &Container,
    expected: impl Fn(&Status) -> bool,
) -> Result<(Status, bool), Failure> {
    const LOOKS: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(20);
    let mut waited = false;
    for _ in 0..LOOKS {
        let status = store.status(container, &mounts()?)?;
        if expected(&status) {
            return Ok((status, waited));
        }
        waited = true;
        std::thread::sleep(PAUSE);
    }
    Ok((store.status(container, &mounts()?)?, waited))
}

/// What becomes of a container that was unmounted.
fn ended(store: &mut Store, container: &Container, lazy: bool) -> Result<(), Failure> {
    if !container.temporary {
        store.forget_mountpoint(&container.id)?;
    } else if !lazy {
        store.remove_container(&container.id, true)?;
    }
    Ok(())
}

/// After `unionmount umount` of something that may have been a container: a temporary one is
/// removed.
///
/// # Errors
/// The store cannot be opened, or the container cannot be removed.
pub(in crate::cli::commands) fn after_umount(source: &str) -> Result<(), Failure> {
    let Some((root, id)) = container_of_source(source) else {
        return Ok(());
    };
    // What is mounted there may be another user's, whose catalog is not opened.
    if !Paths::new(root.clone()).is_ours() {
        return Ok(());
    }
    let mut store = Store::open(Some(&root))?;
    let Some(container) = store.find_container(&id)? else {
        return Ok(());
    };
    let in_use = store.status(&container, &mounts()?)? != Status::Idle;
    ended(&mut store, &container, in_use)
}
