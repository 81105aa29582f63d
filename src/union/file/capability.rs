//! `security.capability` of programs: it goes when the content or the owner changes, by the disk or
//! here (capabilities(7)).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::object::WritableObject;
use crate::layer::xattr_name::XattrMapping;
use crate::union::Union;
use crate::union::error::{Context, Result};
use crate::union::file::stored_xattr::{CAPABILITY, remove_kept};
use crate::union::file::xattr::NONE;
use crate::union::node::inode::Inode;

impl Union {
    /// The capabilities of a program, if it has some.
    pub(super) fn capability(&self, inode: &Inode) -> Option<Vec<u8>> {
        if self.rules.no_xattrs || inode.xattrs.load(Ordering::Acquire) & NONE != 0 {
            return None;
        }
        let path = self.xattr_path(inode).ok()??;
        if self.has_plain_names(inode) {
            // Any process may write the names that stand for it in a layer.
            return path.get_opt(CAPABILITY).ok()?;
        }
        self.kept_xattr(&path, CAPABILITY).ok()?
    }

    /// Restores the capabilities of a program, after a write took them; a daemon that may not is on
    /// its own.
    pub(super) fn restore_capability(&self, inode: &Arc<Inode>, value: &[u8]) -> Result<()> {
        let object = self.upper_object(inode)?;
        let stored = match self.keeping_of(inode)? {
            Some(keeping) => keeping.stored(CAPABILITY),
            None => CAPABILITY.into(),
        };
        // What is there now was set by another process meanwhile.
        match object.set_xattr(&stored, value, XattrFlags::CREATE) {
            Err(Errno::EXIST) => Ok(()),
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                log::debug!("a changed program lost its capabilities: no right to set them");
                Ok(())
            }
            other => other.context("setxattr", CAPABILITY),
        }
    }

    /// Takes `security.capability` away from a file whose content changes, where no disk does.
    pub(super) fn drop_capability(&self, inode: &Inode) -> Result<()> {
        if self.disk_drops_capability(inode) {
            return Ok(());
        }
        let object = match inode.lock_file() {
            Some(state) if state.is_upper() => self.object_of(inode, &state)?,
            _ => return Ok(()),
        };
        remove_kept(&object, CAPABILITY)
    }

    /// The same when the owner changes, of an object that is at hand.
    pub(super) fn drop_capability_of(&self, inode: &Inode, object: &WritableObject) -> Result<()> {
        if self.disk_drops_capability(inode) && !object.is_recorded() {
            return Ok(());
        }
        remove_kept(object, CAPABILITY)
    }

    fn disk_drops_capability(&self, inode: &Inode) -> bool {
        let keeping = self.keeping_of(inode);
        let by_disk = !matches!(keeping, Ok(Some(XattrMapping::User { .. })));
        by_disk || inode.xattrs.load(Ordering::Acquire) & NONE != 0
    }
}
