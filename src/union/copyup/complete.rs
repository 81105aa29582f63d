//! Bytes for a file of the upper that has its attributes only (see `merge/metacopy.rs`).
//!
//! # Crash
//! Before such a file of the upper is changed, it gets its bytes, in place, as its other names
//! share them. The xattr that says that it has none goes last, when the bytes are on disk (unless
//! the union is volatile): killed before, the bytes are still looked for below.

use crate::layer::marks::write::remove_metacopy;
use crate::layer::object::SetTime;
use crate::sync::lock;
use crate::union::Union;
use crate::union::copyup::copydata::copy_data;
use crate::union::error::{Context, Result};
use crate::union::node::inode::{FileNode, Inode};
use rustix::fs::OFlags;
use std::sync::Arc;

impl Union {
    /// Copies to an upper file the bytes that it lacks, `keep` of them at most. Its copy-up lock is
    /// held.
    pub(in crate::union) fn complete(
        &self,
        inode: &Arc<Inode>,
        file: &FileNode,
        keep: Option<u64>,
    ) -> Result<()> {
        let (object, from) = {
            let state = lock(&file.state);
            if state.bytes.is_none() || !state.is_upper() {
                return Ok(());
            }
            let from = Self::open_bytes(&state).context("open bytes", b".");
            (self.object_of(inode, &state)?, from)
        };
        let stat = object.stat().context("fstat", b".")?;
        let size = keep.unwrap_or(stat.size).min(stat.size);
        if size > 0 {
            let from = from?;
            let to = object.open(OFlags::RDWR).context("open", b".")?;
            copy_data(&from, &to, size, &stat).context("copy", b".")?;
            if size < stat.size {
                rustix::fs::ftruncate(&to, stat.size).context("ftruncate", b".")?;
            }
            object
                .utimens(SetTime::At(stat.atime), SetTime::At(stat.mtime))
                .context("utimensat", b".")?;
            if !self.rules.volatile {
                rustix::fs::fsync(&to).context("fsync", b".")?;
            }
        }
        remove_metacopy(&object).context("removexattr metacopy", b".")?;
        lock(&file.state).bytes = None;
        file.data.clear();
        Ok(())
    }
}
