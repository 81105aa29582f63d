//! What only a writable union has.

use crate::layer::probe::FsFeatures;
use crate::layer::xattr_name::XattrMapping;
use crate::union::error::{Context, Result};
use crate::union::node::inode::Inode;
use crate::union::work::stage::WorkDir;
use crate::union::{Union, fail};
use rustix::fs::syncfs;
use rustix::io::Errno;

/// What only a writable union has.
#[derive(Debug)]
pub(in crate::union) struct Writable {
    pub(in crate::union) stage: WorkDir,
    pub(in crate::union) abilities: FsFeatures,
    /// Whiteouts are 0/0 devices and opaque marks are xattrs, else `.wh.` files.
    pub(in crate::union) char_marks: bool,
    /// How the upper keeps xattrs that mean something to disks.
    pub(in crate::union) keeping: XattrMapping,
}

impl Writable {
    /// syncfs(2) of the upper's disk. It reports each failure to write that there was since the
    /// union was opened, once: the work directory has been open for that long, and it can always be
    /// read.
    pub(in crate::union) fn sync_disk(&self) -> Result<()> {
        let fd = self.stage.dir().fd().context("open", b".")?;
        syncfs(&*fd).context("syncfs of the upper's disk", b"/")
    }
}

impl Union {
    /// The writable side, or EROFS.
    pub(in crate::union) fn writable(&self) -> Result<&Writable> {
        match &self.writable {
            Some(writable) => Ok(writable),
            None => fail(Errno::ROFS),
        }
    }
}

impl Union {
    /// Refuses a change of an object where nothing can be changed. Errors: EROFS.
    pub(in crate::union) fn check_writable(&self, inode: &Inode) -> Result<()> {
        match self.volume_of(inode) {
            Some(volume) if volume.read_only => fail(Errno::ROFS),
            Some(_) => Ok(()),
            None => self.writable().map(drop),
        }
    }

    /// How the disk behind an inode keeps its xattrs; `None` where their names are what they are.
    pub(in crate::union) fn keeping_of(&self, inode: &Inode) -> Result<Option<XattrMapping>> {
        match self.volume_of(inode) {
            Some(_) => Ok(None),
            None => Ok(Some(self.writable()?.keeping)),
        }
    }
}
