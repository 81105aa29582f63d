//! The real file behind a regular file, for a transport whose kernel reads and writes it by itself
//! (FUSE_PASSTHROUGH, `fuse-passthrough.rst`).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::union::Union;
use crate::union::error::Result;
use crate::union::node::inode::Inode;

impl Union {
    /// As [`Union::backing`].
    pub(in crate::union) fn inode_backing(
        &self,
        inode: &Arc<Inode>,
    ) -> Result<Option<Arc<OwnedFd>>> {
        if inode.kind != Kind::File || inode.is_shared() {
            return Ok(None);
        }
        if self.is_read_only() {
            // Another mount, or another process, may put another file in its place.
            if self.may_change_below() {
                return Ok(None);
            }
            return self.data_fd(inode, false).map(Some);
        }
        if !inode
            .lock_file()
            .is_some_and(|state| state.is_upper() && state.bytes.is_none())
        {
            return Ok(None);
        }
        match self.data_fd(inode, true) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) => match error.errno() {
                Errno::TXTBSY | Errno::ROFS | Errno::ACCESS | Errno::PERM => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// As [`Union::prepare_write`].
    pub(in crate::union) fn inode_prepare_write(&self, inode: &Arc<Inode>) -> Result<()> {
        self.check_writable(inode)?;
        self.copy_up_file(inode, None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::config::{CacheMode, Config};
    use crate::union::tests::testing::{Stack, content, errno, find, mkdir};

    #[test]
    fn a_lower_file_has_a_backing_once_it_is_in_the_upper() {
        let stack = Stack::new();
        let lower = stack.file("old/d/f", "old");
        let union = stack.open();
        let node = find(&union, "d/f").node;
        assert!(union.backing(node).unwrap().is_none());
        assert!(!stack.at("upper/d/f").exists());
        union.prepare_write(node).unwrap();
        union.prepare_write(node).unwrap();
        let fd = union.backing(node).unwrap().unwrap();
        rustix::io::pwrite(&fd, b"new", 0).unwrap();
        assert_eq!(content(&union, node), "new");
        assert_eq!(std::fs::read(stack.at("upper/d/f")).unwrap(), b"new");
        assert_eq!(std::fs::read(lower).unwrap(), b"old");
    }

    #[test]
    fn a_read_only_union_backs_by_its_layers_unless_they_may_change() {
        let stack = Stack::new();
        stack.file("old/f", "old");
        let union = stack.open_read_only();
        let node = find(&union, "f").node;
        let fd = union.backing(node).unwrap().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::pread(&fd, &mut buffer, 0), Ok(3));
        assert_eq!(rustix::io::pwrite(&fd, b"new", 0), Err(Errno::BADF));
        assert_eq!(errno(union.prepare_write(node)), Errno::ROFS);
        // The upper of a read-only union belongs to another mount.
        stack.file("upper/g", "new");
        for config in [
            Config {
                cache: CacheMode::Auto,
                upper: None,
                ..stack.config()
            },
            Config {
                read_only: true,
                ..stack.config()
            },
        ] {
            let union = Union::open(&config).unwrap();
            let node = find(&union, "f").node;
            assert!(union.backing(node).unwrap().is_none());
            if config.upper.is_some() {
                let node = find(&union, "g").node;
                assert!(union.backing(node).unwrap().is_none());
            }
        }
    }

    #[test]
    fn only_regular_files_have_a_backing() {
        let stack = Stack::new();
        std::os::unix::fs::symlink("x", stack.at("upper/s")).unwrap();
        let union = stack.open();
        let dir = mkdir(&union, "d", 0o755);
        let link = find(&union, "s").node;
        assert!(union.backing(dir).unwrap().is_none());
        assert!(union.backing(link).unwrap().is_none());
        assert_eq!(errno(union.prepare_write(dir)), Errno::ISDIR);
        assert_eq!(
            errno(union.backing(crate::union::NodeId(4711))),
            Errno::STALE
        );
    }
}
