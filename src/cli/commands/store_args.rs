//! What all commands on the store have in common.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;

use crate::cli::ui::exit::{Failure, complain, print};
use crate::cli::ui::logging;
use crate::store::Store;

/// Which store.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct StoreArgs {
    /// The store [default: $UNIONMOUNT_ROOT, else /var/lib/unionmount as root, else
    /// ~/.local/share/unionmount]
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
}

impl StoreArgs {
    /// Starts logging and opens the store.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub(super) fn open(&self) -> Result<Store, Failure> {
        logging::init(false, None)?;
        Ok(Store::open(self.root.as_deref())?)
    }
}

/// Asks on the terminal whether `what` may be removed.
///
/// # Errors
/// There is no terminal, or it cannot be read.
pub(super) fn confirm(what: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask whether it may be removed; add --force".to_owned(),
        ));
    }
    print(
        format!("This will remove {what}.\nAre you sure you want to continue? [y/N] ").as_bytes(),
    )?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| {
        Failure::Operation(format!("cannot read the answer: {error}; use --force"))
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Does something for each of several words; the first failure is told at the end, after all were
/// tried.
///
/// # Errors
/// The first failure; the others are printed.
pub(super) fn for_each<T>(
    words: &[T],
    mut each: impl FnMut(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut first = None;
    for word in words {
        if let Err(failure) = each(word) {
            match first {
                None => first = Some(failure),
                Some(_) => complain(&failure.to_string()),
            }
        }
    }
    first.map_or(Ok(()), Err)
}
