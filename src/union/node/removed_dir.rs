//! A removed directory, for processes that still hold it open: its last attributes and xattrs, in
//! memory.
//!
//! Nothing of it is on the disk any more, so nothing of it outlives the mount.

use std::collections::BTreeMap;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::object::SetTime;
use crate::layer::stat::Kind;
use crate::union::error::{Result, fail};
use crate::union::types::{Attr, SetAttr};

/// A directory without a name.
#[derive(Debug)]
pub(in crate::union) struct RemovedDir {
    pub(in crate::union) attr: Attr,
    /// As they are seen through the mount.
    pub(in crate::union) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl RemovedDir {
    /// The value of an xattr. Errors: ENODATA.
    pub(in crate::union) fn getxattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        match self.xattrs.get(name) {
            Some(value) => Ok(value.clone()),
            None => fail(Errno::NODATA),
        }
    }

    /// Their names, each ended by a NUL.
    pub(in crate::union) fn listxattr(&self) -> Vec<u8> {
        let names = self.xattrs.keys();
        names
            .flat_map(|name| name.iter().chain(b"\0"))
            .copied()
            .collect()
    }

    /// Sets one. Errors: EEXIST and ENODATA by `flags`.
    pub(in crate::union) fn setxattr(
        &mut self,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        match self.xattrs.contains_key(name) {
            true if flags.contains(XattrFlags::CREATE) => fail(Errno::EXIST),
            false if flags.contains(XattrFlags::REPLACE) => fail(Errno::NODATA),
            _ => {
                self.xattrs.insert(name.to_vec(), value.to_vec());
                Ok(())
            }
        }
    }

    /// Removes one. Errors: ENODATA.
    pub(in crate::union) fn removexattr(&mut self, name: &[u8]) -> Result<()> {
        match self.xattrs.remove(name) {
            Some(_) => Ok(()),
            None => fail(Errno::NODATA),
        }
    }

    /// Sets attributes, and returns them.
    pub(in crate::union) fn setattr(&mut self, set: &SetAttr) -> Attr {
        let attr = &mut self.attr;
        if let Some(mode) = set.mode {
            attr.mode = Kind::Dir.mode_bits() | (mode & 0o7777);
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        if let SetTime::At(time) = set.atime {
            attr.atime = time;
        }
        if let SetTime::At(time) = set.mtime {
            attr.mtime = time;
        }
        *attr
    }
}
