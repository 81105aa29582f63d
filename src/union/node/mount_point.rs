//! Places of the merged tree that show something else than the layers have there.

use crate::layer::stat::Kind;
use crate::sync::read;
use crate::union::error::Result;
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;
use crate::union::{Union, fail};
use rustix::io::Errno;
use std::sync::{Arc, Weak};

use crate::layer::dir::Name;

/// A place in the merged tree that shows something else than the layers have there.
#[derive(Debug)]
pub(in crate::union) struct MountPoint {
    pub(in crate::union) parent: Arc<Inode>,
    pub(in crate::union) name: Name,
    pub(in crate::union) inode: Arc<Inode>,
}

/// What the slot of such a name remembers.
#[derive(Clone, Debug)]
pub(in crate::union) struct Mounted {
    pub(super) kind: Kind,
    pub(in crate::union) inode: Weak<Inode>,
}

impl MountPoint {
    pub(in crate::union) fn mounted(&self) -> Mounted {
        Mounted {
            kind: self.inode.kind,
            inode: Arc::downgrade(&self.inode),
        }
    }
}

impl Union {
    /// Whether a volume, or a part of one, is shown at this inode.
    pub(in crate::union) fn is_mount(&self, inode: &Arc<Inode>) -> bool {
        self.has_volumes()
            && read(&self.volumes.mounts)
                .iter()
                .any(|mount| Arc::ptr_eq(&mount.inode, inode))
    }

    /// Refuses to take away or move what a volume is shown at, and to move a directory above that.
    /// Errors: EBUSY.
    pub(in crate::union) fn check_no_mount(&self, inode: &Arc<Inode>, moves: bool) -> Result<()> {
        if !self.has_volumes() {
            return Ok(());
        }
        let busy = read(&self.volumes.mounts).iter().any(|mount| {
            Arc::ptr_eq(&mount.inode, inode)
                || (moves && inode.kind == Kind::Dir && inode.is_ancestor_of(&mount.parent))
        });
        if busy {
            return fail(Errno::BUSY);
        }
        Ok(())
    }

    /// Puts volumes into the listing of a directory that was just read.
    pub(in crate::union) fn show_mounts(
        &self,
        id: Option<NodeId>,
        listing: &mut crate::union::node::listing::Listing,
    ) {
        if !self.has_volumes() {
            return;
        }
        for mount in read(&self.volumes.mounts).iter() {
            if Some(mount.parent.id) == id {
                listing.update(&mount.name, |slot| {
                    slot.mount = Some(Box::new(mount.mounted()));
                    slot.st_ino = mount.inode.st_ino;
                });
            }
        }
    }
}
