//! The root directory of what is unpacked: whether it is empty, and its metadata, to be restored
//! when the archive is refused.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, RawDir, openat};

use crate::archive::disk::DIRECTORY;
use crate::archive::error::{Context as _, Result};
use crate::layer::object::{SetTime, WritableObject};
use crate::layer::stat::Stat;
use crate::layer::xattr::XattrPath;

/// Whether there is nothing in a directory.
pub(super) fn is_empty(dir: &OwnedFd) -> Result<bool> {
    let dir = openat(dir, ".", DIRECTORY, Mode::empty()).context("open", b".")?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.context("getdents", b".")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The metadata of a directory, to be restored.
pub(super) struct RootMetadata {
    stat: Stat,
    xattrs: Vec<u8>,
}

impl RootMetadata {
    pub(super) fn of(dir: &Arc<OwnedFd>) -> Result<Self> {
        Ok(Self {
            stat: Stat::of_fd(dir).context("stat", b".")?,
            xattrs: XattrPath::of_fd(Arc::clone(dir))
                .list()
                .context("listxattr", b".")?,
        })
    }

    /// Xattrs that it did not have go; their values are not restored.
    pub(super) fn restore(&self, dir: &Arc<OwnedFd>) -> Result<()> {
        let object = WritableObject::new(Arc::clone(dir), None);
        let had = |name: &[u8]| self.xattrs.split(|byte| *byte == 0).any(|old| old == name);
        let now = object.xattrs().list().context("listxattr", b".")?;
        for name in now.split(|byte| *byte == 0).filter(|name| !had(name)) {
            object.remove_xattr(name).context("removexattr", name)?;
        }
        let now = Stat::of_fd(dir).context("stat", b".")?;
        if (now.uid, now.gid) != (self.stat.uid, self.stat.gid) {
            let owner = (Some(self.stat.uid), Some(self.stat.gid));
            object.chown(owner.0, owner.1).context("chown", b".")?;
        }
        object
            .chmod_on_disk(self.stat.perm())
            .context("chmod", b".")?;
        let mtime = SetTime::At(self.stat.mtime);
        object
            .utimens(SetTime::Keep, mtime)
            .context("utimensat", b".")
    }
}
