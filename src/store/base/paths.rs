//! Where everything of a store is.
//!
//! ```text
//! ROOT/                       0700
//!   catalog.sqlite            what refers to what: the truth (catalog/)
//!   layers/SHORT/diff         a layer's tree, with its whiteouts as `.wh.` files
//!   layers/SHORT/blob-DIGEST  the archives it came in, as received; plain tars are kept compressed
//!   images/ID                 an image's configuration, for people; the catalog has it too
//!   containers/ID/upper,work,merged,turn (locked by a process that is about to mount it)
//!   volumes/NAME/_data
//!   tmp/RANDOM                work under way: locked by its living owner (area.rs)
//! ```

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{Context, Result, StoreError};
use super::ids::ImageId;
use crate::archive::disk::sync_names_in;

/// The environment variable that names the root.
pub(crate) const ROOT_VARIABLE: &str = "UNIONMOUNT_ROOT";
/// Where the store of root is.
const SYSTEM_ROOT: &str = "/var/lib/unionmount";
/// Its name among an ordinary user's data.
const NAME: &str = "unionmount";
/// What is mounted in a container's own directory, unless another place is named.
const MERGED: &str = "merged";
/// The file of the catalog.
const CATALOG: &str = "catalog.sqlite";
/// The mode of the root and of every directory that the store makes for itself.
pub(crate) const PRIVATE: u32 = 0o700;
/// The bits of a mode by which other users may change something.
const OTHERS_WRITE: u32 = 0o022;

/// The places in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The places below a root, which need not exist.
    #[must_use]
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The root itself.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The catalog's file.
    #[must_use]
    pub(crate) fn catalog(&self) -> PathBuf {
        self.root.join(CATALOG)
    }

    /// The directory of all layers.
    #[must_use]
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The directory of one layer.
    #[must_use]
    pub(crate) fn layer(&self, short: &str) -> PathBuf {
        self.layers().join(short)
    }

    /// The tree of one layer.
    #[must_use]
    pub(crate) fn layer_tree(&self, short: &str) -> PathBuf {
        self.layer(short).join("diff")
    }

    /// The directory of images' configurations.
    #[must_use]
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The directory of all containers.
    #[must_use]
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// The directory of one container.
    #[must_use]
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// The directory of all volumes.
    #[must_use]
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The content of one volume.
    #[must_use]
    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.volumes().join(name).join("_data")
    }

    /// Where work under way is.
    #[must_use]
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Whether a store is there, and belongs to this user.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        let belongs = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == own);
        belongs(&self.root) && belongs(&self.catalog())
    }

    /// Makes what is missing, all of it private; an empty directory of the caller's becomes
    /// private, too. Killed meanwhile, the next command makes the rest.
    ///
    /// # Errors
    /// A directory cannot be made, or what is there is not this user's alone
    /// ([`Paths::refuse_foreign`]).
    pub(crate) fn create(&self) -> Result<()> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(PRIVATE);
        self.close_empty_root()?;
        let missing: Vec<&Path> = self
            .root
            .ancestors()
            .take_while(|dir| !dir.exists())
            .collect();
        private.create(&self.root).context("mkdir", &self.root)?;
        // Where others may write, they may have been faster.
        self.refuse_foreign()?;
        let mut is_new = !missing.is_empty();
        for dir in self.parts() {
            if !dir.is_dir() {
                private.create(&dir).context("mkdir", &dir)?;
                is_new = true;
            }
        }
        // What is stored in it later is on the disk by its own, but not the names that lead to it.
        if is_new {
            sync_names_in(&self.root).context("fsync", &self.root)?;
        }
        for dir in missing.into_iter().filter_map(Path::parent) {
            match sync_names_in(dir) {
                // It may be written, but not read: that its names are on the disk is left to its
                // owner.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    log::debug!("fsync '{}': {error}", dir.display());
                }
                synced => synced.context("fsync", dir)?,
            }
        }
        Ok(())
    }

    /// Refuses a root, or a part of the store in it, that belongs to another user or that others
    /// may write: what a command finds there could be theirs, and what it makes there could be
    /// changed. An empty directory of the caller's passes, since [`Paths::create`] closes it.
    /// Changes nothing.
    ///
    /// # Errors
    /// It is so, or stat(2) fails.
    pub(crate) fn refuse_foreign(&self) -> Result<()> {
        if !self.refuse_open(&self.root)? || is_empty_dir(&self.root) {
            return Ok(());
        }
        for part in self.parts().into_iter().chain([self.catalog()]) {
            self.refuse_open(&part)?;
        }
        Ok(())
    }
}

impl Paths {
    /// The directories in the root.
    fn parts(&self) -> [PathBuf; 5] {
        [
            self.layers(),
            self.images(),
            self.containers(),
            self.volumes(),
            self.tmp(),
        ]
    }

    /// The rule for one path, and for what a symlink there leads to. Returns whether something is
    /// there.
    fn refuse_open(&self, path: &Path) -> Result<bool> {
        let own = rustix::process::geteuid().as_raw();
        let looks: [fn(&Path) -> std::io::Result<fs::Metadata>; 2] =
            [|path| fs::symlink_metadata(path), |path| fs::metadata(path)];
        for look in looks {
            let meta = match look(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                meta => meta.context("stat", path)?,
            };
            if meta.uid() != own {
                return Err(StoreError::not_private(
                    format!(
                        "the store's '{}' belongs to user {}",
                        path.display(),
                        meta.uid()
                    ),
                    "run as that user, or use a --root of your own",
                ));
            }
            let is_open = !meta.is_symlink() && meta.mode() & OTHERS_WRITE != 0;
            if is_open && !(path == self.root && is_empty_dir(path)) {
                return Err(StoreError::not_private(
                    format!(
                        "others may write in the store's '{}' (mode {:04o})",
                        path.display(),
                        meta.mode() & 0o7777
                    ),
                    "use an empty directory, or make sure that all in it is yours and take their right away (chmod go-w)",
                ));
            }
        }
        Ok(true)
    }

    /// Makes an empty directory private that the user made for a store, with whatever umask: other
    /// users must not read what comes into it, or add anything. What was added before is seen
    /// afterwards, when no other user can add more.
    fn close_empty_root(&self) -> Result<()> {
        let Ok(meta) = fs::metadata(&self.root) else {
            return Ok(());
        };
        let is_own = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
        if is_own && meta.mode() & 0o7777 != PRIVATE && is_empty_dir(&self.root) {
            let private = fs::Permissions::from_mode(PRIVATE);
            fs::set_permissions(&self.root, private).context("chmod", &self.root)?;
        }
        Ok(())
    }
}

/// Whether a directory can be read and has nothing in it.
fn is_empty_dir(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// The root that a command works on: the one given, else `UNIONMOUNT_ROOT`, else the user's own
/// place.
///
/// # Errors
/// None of them is known (no HOME), or the current directory is gone.
pub(crate) fn locate(given: Option<&Path>) -> Result<Paths> {
    let from_variable = std::env::var_os(ROOT_VARIABLE).filter(|value| !value.is_empty());
    let root = match (given, from_variable) {
        (Some(given), _) => given.to_owned(),
        (None, Some(value)) => PathBuf::from(value),
        (None, None) if rustix::process::geteuid().is_root() => PathBuf::from(SYSTEM_ROOT),
        (None, None) => user_data()?.join(NAME),
    };
    let absolute = std::path::absolute(&root).context("resolve", &root)?;
    // Layers are found by the same path from wherever a mount is made.
    Ok(Paths::new(absolute.canonicalize().unwrap_or(absolute)))
}

/// `$XDG_DATA_HOME`, by default `~/.local/share` (XDG Base Directory Specification).
fn user_data() -> Result<PathBuf> {
    let absolute = |name: &str| {
        let value = PathBuf::from(std::env::var_os(name)?);
        value.is_absolute().then_some(value)
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .ok_or_else(|| {
            StoreError::invalid(
                "neither XDG_DATA_HOME nor HOME is set",
                "name the store with --root DIR or UNIONMOUNT_ROOT",
            )
        })
}

/// The file of an image's configuration in `images/`.
#[must_use]
pub(crate) fn config_file(id: &ImageId) -> String {
    format!("{}.json", id.digest().hex())
}

/// Whether there is nothing in a directory, or no directory.
pub(crate) fn is_empty(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        listed => Ok(listed.context("read", dir)?.next().is_none()),
    }
}

/// The content of a volume whose directory this is.
pub(crate) fn data_of(volume: &Path) -> std::path::PathBuf {
    volume.join("_data")
}

impl Paths {
    /// The writable layer of a container.
    #[must_use]
    pub(crate) fn upper(&self, id: &str) -> PathBuf {
        self.container(id).join("upper")
    }

    /// What is locked by a process that is about to mount a container.
    #[must_use]
    pub(crate) fn turn(&self, id: &str) -> PathBuf {
        self.container(id).join("turn")
    }

    /// Where a container is mounted, or where its copy is.
    #[must_use]
    pub(crate) fn merged(&self, id: &str) -> PathBuf {
        self.container(id).join(MERGED)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_store_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let paths = locate(Some(&dir.path().join("a/store"))).unwrap();
        paths.create().unwrap();
        paths.create().unwrap();
        for place in [paths.root(), &paths.layers(), &paths.tmp()] {
            let mode = fs::metadata(place).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, PRIVATE, "{}", place.display());
        }
    }

    #[test]
    fn what_others_may_write_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let paths = Paths::new(root.clone());
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let names = || fs::read_dir(&root).unwrap().count();
        fs::create_dir(&root).unwrap();
        // Empty, it is closed.
        mode(&root, 0o1777);
        paths.refuse_foreign().unwrap();
        fs::write(root.join("theirs"), "").unwrap();
        for open in [0o1777, 0o777, 0o770, 0o720] {
            mode(&root, open);
            let message = paths.create().unwrap_err().to_string();
            assert!(message.contains("chmod go-w"), "{message}");
            assert_eq!(names(), 1, "{open:o}");
        }
        mode(&root, 0o755);
        fs::create_dir(paths.layers()).unwrap();
        mode(&paths.layers(), 0o777);
        let message = paths.create().unwrap_err().to_string();
        assert!(message.contains("layers"), "{message}");
        assert_eq!(names(), 2);
        mode(&paths.layers(), 0o700);
        paths.create().unwrap();
        if rustix::process::geteuid().is_root() {
            for theirs in [paths.images(), root.clone()] {
                std::os::unix::fs::chown(&theirs, Some(1000), None).unwrap();
                let message = paths.create().unwrap_err().to_string();
                assert!(message.contains("belongs to user 1000"), "{message}");
            }
        }
    }
}
