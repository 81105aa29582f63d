//! `unionmount umount`.

use std::path::PathBuf;

use clap::Args;

use super::container;
use crate::cli::mounting::unmount::{Unmount, take_away};
use crate::cli::ui::exit::Failure;
use crate::cli::ui::logging;

pub(super) const EXAMPLES: &str = "\
Examples:
  unionmount umount /mnt           write everything back, unmount, wait until the daemon has ended
  unionmount umount --lazy /mnt    unmount now, end when the last user has left
  unionmount umount --force /mnt   the daemon was killed or hangs";

/// `unionmount umount`.
#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// Detach now, even when it is in use; the daemon ends when the last user has left
    #[arg(long, conflicts_with = "force")]
    pub lazy: bool,

    /// Remove a mount whose daemon was killed or hangs; what it had not written is lost
    #[arg(long)]
    pub force: bool,

    /// Where the union is mounted
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
}

/// Unmounts, and removes a temporary container.
///
/// # Errors
/// [`Failure::Operation`]: no union is mounted there, it is in use, it is not permitted, or the
/// daemon does not end.
pub(super) fn run(args: UmountArgs) -> Result<(), Failure> {
    logging::init(false, None)?;
    let source = take_away(&Unmount {
        lazy: args.lazy,
        force: args.force,
        mountpoint: args.mountpoint,
    })?;
    container::after_umount(&source)
}
