//! A layer in an area, from an empty directory to what can be published: `diff`, its tree, beside
//! the archive that it came in.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::archive::Unpacked;
use crate::store::base::{Area, Context, PRIVATE, Result, measure};
use crate::store::catalog::layers::{Blob, blob_file};

/// The mode of a layer's root directory, unless its archive has an entry for it.
const ROOT_MODE: u32 = 0o755;

/// A layer, or another archive of a stored layer, that is complete in the area.
#[derive(Clone, Debug)]
pub(in crate::store) struct StagedLayer {
    /// The directory with the archive, and with the tree as `diff` unless the layer is stored
    /// already.
    pub(in crate::store) dir: PathBuf,
    /// It has a tree.
    pub(in crate::store) has_tree: bool,
    /// Docker's size of the tree.
    pub(in crate::store) size: u64,
    /// Bytes of the uncompressed tar.
    pub(in crate::store) tar_size: u64,
    /// The archive has an entry for the root directory.
    pub(in crate::store) has_root: bool,
    /// Directories of the tree that no entry of the archive describes, as paths from the root.
    pub(in crate::store) implied: Vec<Vec<u8>>,
    /// The archive.
    pub(in crate::store) blob: Blob,
}

/// A layer that is being made.
#[derive(Debug)]
pub(in crate::store) struct LayerBuilder {
    dir: PathBuf,
    tree: Option<PathBuf>,
    kept: PathBuf,
    file: File,
}

impl LayerBuilder {
    /// Makes its directory, with a file for the archive, and with an empty tree if it is to have
    /// one.
    ///
    /// # Errors
    /// Those of the disk.
    pub(in crate::store) fn begin(area: &Area, name: &str, has_tree: bool) -> Result<Self> {
        let dir = area.join(name);
        // An earlier attempt may have had the name.
        crate::store::base::remove_tree(&dir)?;
        DirBuilder::new()
            .mode(PRIVATE)
            .create(&dir)
            .context("mkdir", &dir)?;
        let mut tree = None;
        if has_tree {
            let made = dir.join("diff");
            fs::create_dir(&made).context("mkdir", &made)?;
            fs::set_permissions(&made, fs::Permissions::from_mode(ROOT_MODE))
                .context("chmod", &made)?;
            tree = Some(made);
        }
        let kept = dir.join("archive");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&kept)
            .context("create", &kept)?;
        Ok(Self {
            dir,
            tree,
            kept,
            file,
        })
    }

    /// Its directory.
    pub(in crate::store) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the tree is made.
    pub(in crate::store) fn tree(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    /// The file that the archive is written to.
    pub(in crate::store) fn archive(&self) -> &File {
        &self.file
    }

    /// It is complete: the archive gets the name of its digest.
    ///
    /// # Errors
    /// Those of the disk.
    pub(in crate::store) fn end(self, got: &Unpacked) -> Result<StagedLayer> {
        let stored_size = self.file.metadata().context("fstat", &self.kept)?.len();
        let digest = got.digest;
        let place = self.dir.join(blob_file(&digest));
        fs::rename(&self.kept, &place).context("rename", &self.kept)?;
        let size = match &self.tree {
            Some(tree) => measure(tree)?.size,
            None => 0,
        };
        Ok(StagedLayer {
            has_tree: self.tree.is_some(),
            size,
            tar_size: got.size,
            has_root: got.has_root,
            implied: got.implied.clone(),
            blob: Blob {
                digest,
                diff_id: got.diff_id.into(),
                size: got.compressed_size,
                compression: got.compression,
                stored_size,
            },
            dir: self.dir,
        })
    }
}
