//! Attributes, extended attributes and flags.

use rustix::fs::XattrFlags;

use crate::sys::inode_flags::FsXattr;
use crate::union::Union;
use crate::union::error::Result;
use crate::union::file::privileges::{Asker, Privileged};
use crate::union::node::ids::NodeId;
use crate::union::types::{Attr, SetAttr};

impl Union {
    /// The attributes of a node. Errors: ESTALE, and what the disk answers.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        let inode = self.nodes.table.get(node)?;
        self.attr_with(&inode, None)
    }

    /// Changes attributes, copying the object up first if it is in a lower layer (a truncated file
    /// with only the bytes that remain). Returns the attributes after it. Errors: EROFS, ENOSPC and
    /// any errno of the disk.
    pub fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr> {
        self.setattr_by(node, set, &Privileged)
    }

    /// As [`Union::setattr`], for `asker`: a truncation without CAP_FSETID (`drop_setid`) and a
    /// change of owner take setgid from a file that is no program and whose group it does not
    /// belong to. Killed before that last step, the file has the new size or owner, and the bit.
    pub fn setattr_by(&self, node: NodeId, set: &SetAttr, asker: &dyn Asker) -> Result<Attr> {
        let inode = self.nodes.table.get(node)?;
        self.inode_setattr(&inode, set, asker)
    }

    /// Clears setuid and setgid before `asker` changes the content of a file. Returns whether there
    /// was anything to clear: then a cached mode is out of date. Killed afterwards, the file has
    /// lost the bits and kept its content. Errors: as [`Union::write`].
    pub fn clear_setid(&self, node: NodeId, asker: &dyn Asker) -> Result<bool> {
        let inode = self.nodes.table.get(node)?;
        self.inode_clear_setid(&inode, asker)
    }

    /// The value of an xattr. Errors: ENODATA when there is none (also where a layer's disk has
    /// none at all), EOPNOTSUPP when the mount has no xattrs or ACLs, and for namespaces that Linux
    /// does not have.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let inode = self.nodes.table.get(node)?;
        self.inode_getxattr(&inode, name)
    }

    /// The names of all xattrs, each ended by a NUL.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.nodes.table.get(node)?;
        self.inode_listxattr(&inode)
    }

    /// Sets an xattr. Errors: EEXIST and ENODATA by `flags`, ERANGE for a name that is too long,
    /// E2BIG, EOPNOTSUPP where the upper cannot store it.
    ///
    /// Where the layer keeps modes and ACLs in xattrs, an access ACL and the mode that goes with it
    /// are set one after the other: killed between, the mode still says what it said before.
    pub fn setxattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.setxattr_by(node, name, value, flags, &Privileged)
    }

    /// As [`Union::setxattr`], for an access ACL and a process that is not in the object's group:
    /// the kernel has said so.
    pub fn set_acl_outside_group(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.setxattr_by(node, name, value, flags, &|_| false)
    }

    /// As [`Union::setxattr`], for `asker`: an access ACL takes setgid from an object whose group
    /// it does not belong to, as chmod(2) does (`posix_acl_update_mode` in the kernel's
    /// `posix_acl.c`). In a volume, whose modes others change as well, its disk does that;
    /// elsewhere it is a second step: killed between, the bit is still there.
    pub fn setxattr_by(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
        asker: &dyn Asker,
    ) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_setxattr(&inode, name, value, flags, asker)
    }

    /// Removes an xattr. Errors: ENODATA when there is none, EPERM of an object that is immutable
    /// or append-only.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_removexattr(&inode, name)
    }

    /// The inode flags of a file or directory (`FS_IOC_GETFLAGS`). Errors: ENOTTY where the disk
    /// has none, for other types, and for a removed directory; ESTALE.
    pub fn inode_flags(&self, node: NodeId) -> Result<u32> {
        let inode = self.nodes.table.get(node)?;
        self.inode_get_flags(&inode)
    }

    /// Sets the inode flags of a file or directory (`FS_IOC_SETFLAGS`), in the upper. Only what
    /// differs from [`Union::inode_flags`] is changed there: a lower's disk has flags of its own
    /// (extents, compression) that the upper's does not know. Errors: EROFS, ENOTTY where the
    /// upper's disk has none and for other types, EOPNOTSUPP for flags it does not know, EPERM for
    /// those that the daemon may not set, and those of a copy-up.
    pub fn set_inode_flags(&self, node: NodeId, flags: u32) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_set_flags(&inode, flags)
    }

    /// The `struct fsxattr` of a file or directory (`FS_IOC_FSGETXATTR`), in the byte order of the
    /// machine. Errors: as [`Union::inode_flags`].
    pub fn fsxattr(&self, node: NodeId) -> Result<FsXattr> {
        let inode = self.nodes.table.get(node)?;
        self.inode_get_fsxattr(&inode)
    }

    /// Sets the `struct fsxattr` of a file or directory (`FS_IOC_FSSETXATTR`), in the upper: what
    /// differs from [`Union::fsxattr`], as with [`Union::set_inode_flags`]. Errors: as
    /// [`Union::set_inode_flags`], and EINVAL for what the upper's disk does not take.
    pub fn set_fsxattr(&self, node: NodeId, wanted: &FsXattr) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.inode_set_fsxattr(&inode, wanted)
    }

    /// The generation of the inode behind a file or directory (`FS_IOC_GETVERSION`): a copy has
    /// another one. Errors: as [`Union::inode_flags`].
    pub fn inode_version(&self, node: NodeId) -> Result<u32> {
        let inode = self.nodes.table.get(node)?;
        self.inode_get_version(&inode)
    }
}
