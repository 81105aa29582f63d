//! What is kept of a directory that is removed.

use crate::union::Union;
use crate::union::error::Result;
use crate::union::node::inode::{DirState, Inode};
use crate::union::node::removed_dir::RemovedDir;

impl Union {
    /// What will be left of a directory that is about to be removed. What cannot be read of its
    /// xattrs is lost with it.
    pub(in crate::union) fn removed_dir_of(
        &self,
        inode: &Inode,
        state: &mut DirState,
    ) -> Result<RemovedDir> {
        let mut attr = self.dir_attr(inode, state)?;
        attr.nlink = 0;
        let xattrs = self.xattrs_of_dir(inode, state).unwrap_or_else(|error| {
            log::debug!("the xattrs of a removed directory are lost: {error}");
            Vec::new()
        });
        Ok(RemovedDir {
            attr,
            xattrs: xattrs.into_iter().collect(),
        })
    }
}
