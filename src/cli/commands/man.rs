//! `unionmount man`: the manual, made from the definition of the command line.

use std::path::{Path, PathBuf};

use clap::Args;

use super::command;
use crate::cli::ui::exit::{Failure, print};

/// `unionmount man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Directory to write unionmount.1, unionmount-mount.1, .. into; printed when missing
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Prints the manual page, or writes all pages into a directory that exists.
///
/// # Errors
/// [`Failure::Operation`] when a page cannot be written.
pub(super) fn run(args: &ManArgs) -> Result<(), Failure> {
    match &args.dir {
        Some(dir) => {
            clap_mangen::generate_to(command(), dir).map_err(|err| cannot_write(dir, &err))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command())
                .render(&mut page)
                .map_err(|err| cannot_write(Path::new("the manual page"), &err))?;
            print(&page)
        }
    }
}

fn cannot_write(place: &Path, err: &std::io::Error) -> Failure {
    Failure::Operation(format!(
        "cannot write into '{}': {err}; name a directory that exists and can be written",
        place.display()
    ))
}
