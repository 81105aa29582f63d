//! `unionmount container mount`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::mounting::container::{Wanted, await_turn, print_path, serve};
use crate::cli::mounting::request::close_inherited;
use crate::cli::ui::exit::Failure;
use crate::store::{Status, Store, status_word};

/// `container mount`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct MountArgs {
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

/// Mounts a container, and prints where.
///
/// # Errors
/// There is no such container, it is mounted elsewhere, and those of mounting.
pub(super) fn run(store: &StoreArgs, args: &MountArgs) -> Result<(), Failure> {
    close_inherited(None)?;
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
