//! Directory listings for a transport.

use crate::union::node::inode::Inode;
use crate::union::types::DirEntry;
use rustix::io::Errno;
use std::sync::Arc;

use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::union::Union;
use crate::union::error::{Result, fail};

/// How many names are taken from a listing at a time: its directory is locked for no longer than
/// that.
const BATCH: usize = 128;
/// Cookies behind `.` and `..`, and before all others.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

impl Union {
    /// [`Union::readdir`] of a directory of the merged tree; what `each` fails with ends it.
    pub(in crate::union) fn walk_layers(
        &self,
        inode: &Arc<Inode>,
        mut cookie: u64,
        mut each: impl FnMut(&DirEntry) -> Result<bool>,
    ) -> Result<()> {
        let parent_ino = inode.place().map_or(inode.st_ino, |p| p.parent.st_ino);
        for (dot, ino, at) in [
            (&b"."[..], inode.st_ino, DOT),
            (&b".."[..], parent_ino, DOT_DOT),
        ] {
            if cookie < at {
                let entry = DirEntry {
                    name: Name::from(dot),
                    kind: Kind::Dir,
                    ino,
                    cookie: at,
                };
                if !each(&entry)? {
                    return Ok(());
                }
                cookie = at;
            }
        }
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            batch.clear();
            {
                let Some(mut state) = inode.lock_dir() else {
                    return fail(Errno::NOTDIR);
                };
                self.load(&mut state)?;
                if state.is_unlisted() {
                    return fail(Errno::ACCESS);
                }
                if let Some(listing) = &state.listing {
                    batch.extend(
                        listing
                            .after(cookie)
                            .take(BATCH)
                            .map(|(name, slot)| DirEntry {
                                name: Name::clone(name),
                                kind: slot.kind().unwrap_or(Kind::File),
                                ino: slot.st_ino,
                                cookie: slot.cookie,
                            }),
                    );
                }
            }
            let Some(last) = batch.last() else {
                return Ok(());
            };
            cookie = last.cookie;
            for entry in &batch {
                if !each(entry)? {
                    return Ok(());
                }
            }
        }
    }
}
