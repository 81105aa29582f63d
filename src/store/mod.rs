//! The store: layers, images, containers and volumes in one directory, as a container engine's storage driver keeps
//! them. [`paths`] says where what is, [`catalog`] what refers to what and in which order things change.
//!
//! A layer is stored once, under the digest of its uncompressed tar, with its own whiteouts (it is a layer, not a merged tree),
//! so that images share it whatever they put below. The archive it came in is kept, so that an unchanged image leaves the
//! store with the digests it came with. A container is an upper directory over the layers of its image.

pub mod area;
pub mod catalog;
pub mod changes;
pub mod check;
pub mod commit;
pub mod compare;
pub mod container;
pub mod copy;
pub mod documents;
pub mod error;
pub mod foreign;
pub mod gc;
pub mod ids;
pub mod image;
pub mod load;
pub mod lock;
pub mod mount;
pub mod paths;
pub mod platform;
pub mod reference;
pub mod remove;
pub mod save;
pub mod size;
pub mod source;
pub mod time;
pub mod usage;
pub mod vfs;
pub mod volume;

use std::path::Path;

pub use error::{Result, StoreError};

use catalog::Catalog;
use paths::Paths;

/// An opened store.
#[derive(Debug)]
pub struct Store {
    paths: Paths,
    catalog: Catalog,
}

impl Store {
    /// Opens the store that a command works on, and makes it when there is none; see [`paths::locate`].
    ///
    /// # Errors
    /// It cannot be made or opened, it is somebody else's, others may write it, or it has lost its catalog.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let paths = paths::locate(root)?;
        paths.refuse_foreign()?;
        catalog::refuse_lost(&paths)?;
        paths.create()?;
        // Symlinks on the way were not there to be resolved before it was made.
        let paths = paths::locate(Some(paths.root()))?;
        let catalog = Catalog::open(&paths)?;
        Ok(Self { paths, catalog })
    }

    /// Where things are.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The catalog, for reading.
    #[must_use]
    pub fn db(&self) -> &rusqlite::Connection {
        self.catalog.read()
    }
}
