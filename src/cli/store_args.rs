//! What all commands on the store have in common.

use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use super::logging;
use crate::archive::Limits;
use crate::store::{Store, StoreError};

/// Which store.
#[derive(Clone, Debug, Default, Args)]
pub struct StoreArgs {
    /// The store [default: $UNIONMOUNT_ROOT, else /var/lib/unionmount as root, else ~/.local/share/unionmount]
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
}

/// How much an archive may ask for.
#[derive(Clone, Debug, Default, Args)]
pub struct LimitArgs {
    /// Most bytes of a layer after decompression [default: 64 GiB]
    #[arg(long, value_name = "BYTES")]
    pub max_size: Option<u64>,

    /// Most entries of a layer [default: 10000000]
    #[arg(long, value_name = "COUNT")]
    pub max_entries: Option<u64>,

    /// Most bytes of a JSON document [default: 8 MiB]
    #[arg(long, value_name = "BYTES")]
    pub max_json: Option<usize>,
}

impl LimitArgs {
    /// The limits, with the defaults for those not given.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            bytes: self.max_size.unwrap_or(default.bytes),
            entries: self.max_entries.unwrap_or(default.entries),
            json: self.max_json.unwrap_or(default.json),
            ..default
        }
    }
}

impl StoreArgs {
    /// Starts logging and opens the store.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open(&self) -> Result<Store, Failure> {
        logging::init(false, None)?;
        Ok(Store::open(self.root.as_deref())?)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Operation(error.to_string())
    }
}

/// Does something for each of several words; the first failure is told at the end, after all were tried.
///
/// # Errors
/// The first failure; the others are printed.
pub fn for_each<T>(
    words: &[T],
    mut each: impl FnMut(&T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut first = None;
    for word in words {
        if let Err(failure) = each(word) {
            match first {
                None => first = Some(failure),
                Some(_) => super::exit::complain(&failure.to_string()),
            }
        }
    }
    first.map_or(Ok(()), Err)
}
