//! `unionmount image rm`.

use clap::Args;

use crate::cli::commands::store_args::{StoreArgs, for_each};
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::document;

/// `image rm`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct RmArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,

    /// Also with several names, and with containers, which keep their layers
    #[arg(short, long)]
    pub force: bool,

    /// Print one JSON document about what was removed
    #[arg(long)]
    pub json: bool,
}

/// Takes names from images, and removes those that have no other.
///
/// # Errors
/// The first that could not be removed; all are tried.
pub(super) fn run(store: &StoreArgs, args: &RmArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let mut all = Vec::new();
    let result = for_each(&args.images, |word| {
        let removed = store.remove_image(word, args.force)?;
        if !args.json {
            let mut text = String::new();
            for name in &removed.untagged {
                text.push_str(&format!("Untagged: {name}\n"));
            }
            for id in &removed.deleted {
                text.push_str(&format!("Deleted: {id}\n"));
            }
            print(text.as_bytes())?;
        }
        all.push(removed);
        Ok(())
    });
    if args.json {
        print(document(&all)?.as_bytes())?;
    }
    result
}
