//! Content of one union for another, without a mount of either: what a copy of a tree is made with.

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::union::Union;
use crate::union::copyup::copydata::copy_data;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::NodeId;
use crate::union::node::real::real_stat;

impl Union {
    /// Copies to a new, empty regular file of this union the content of a file of another one:
    /// shared with the original where the disk can (FICLONE), holes as holes. Killed meanwhile, the
    /// file has a part of it. Errors: EROFS, ESTALE, EISDIR, EINVAL for special files, ENOSPC and
    /// what the disks answer.
    pub fn copy_content_from(&self, node: NodeId, other: &Self, source: NodeId) -> Result<()> {
        self.writable()?;
        let (to, from) = (self.nodes.table.get(node)?, other.nodes.table.get(source)?);
        let stat = match from.lock_file() {
            Some(state) => real_stat(&state.real)?,
            None => return fail(Errno::ISDIR),
        };
        let source = other.data_fd(&from, false)?;
        let target = self.open_upper_data(&to, OFlags::RDWR)?;
        copy_data(&source, &target, stat.size, &stat).context("copy", b".")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::union::tests::testing::{Stack, content, errno, file, find, mkdir};
    use crate::union::{Caller, NodeId};

    #[test]
    fn a_file_gets_the_content_of_another_unions_file() {
        let (from, to) = (Stack::new(), Stack::new());
        from.file("old/f", "content");
        let (source, target) = (from.open_read_only(), to.open());
        let made = target
            .make(NodeId::ROOT, b"g", &file(0o600), &Caller::default())
            .unwrap();
        let original = find(&source, "f").node;
        target
            .copy_content_from(made.node, &source, original)
            .unwrap();
        assert_eq!(content(&target, made.node), "content");
        let dir = mkdir(&target, "d", 0o755);
        assert!(target.copy_content_from(dir, &source, original).is_err());
        let refused = source.copy_content_from(original, &target, made.node);
        assert_eq!(errno(refused), rustix::io::Errno::ROFS);
    }
}
