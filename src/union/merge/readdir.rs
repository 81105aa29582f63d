//! Directory listings for a transport.

use crate::union::types::DirEntry;
use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::union::error::{Result, refuse};
use crate::union::merge::lookup::Child;
use crate::union::node::inode::NodeId;
use crate::union::{Entry, Union};

/// How many names are taken from a listing at a time: its directory is locked for no longer than that.
const BATCH: usize = 128;
/// Cookies behind `.` and `..`, and before all others.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

impl Union {
    /// Calls `each` for the entries behind `cookie` (0: from the start, `.` and `..` first) until it returns
    /// `false`. Cookies stay valid while entries come and go, and what comes while somebody reads is not shown before it
    /// begins anew: each reading ends (see `listing.rs`).
    /// Errors: ENOTDIR, ESTALE, EACCES for a directory that a layer does not let the daemon read, what the disk answers.
    pub fn readdir(
        &self,
        node: NodeId,
        cookie: u64,
        mut each: impl FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        self.walk(node, cookie, |entry| Ok(each(entry)))
    }

    /// As [`Union::readdir`], with the attributes of each entry that is `wanted`. A lookup is counted on those that
    /// `each` takes; `.` and `..` come without, entries that vanished meanwhile not at all.
    pub fn readdirplus(
        &self,
        node: NodeId,
        cookie: u64,
        wanted: impl Fn(&DirEntry) -> bool,
        mut each: impl FnMut(&DirEntry, Option<Entry>) -> bool,
    ) -> Result<()> {
        let parent = self.nodes.table.get(node)?;
        self.walk(node, cookie, |entry| {
            if matches!(&*entry.name, b"." | b"..") || !wanted(entry) {
                return Ok(each(entry, None));
            }
            // Other threads may have removed it: then there is nothing to show any more.
            let found: Option<Child> = match self.child(&parent, &entry.name) {
                Err(error) if error.errno() == Errno::NOENT => None,
                other => other?,
            };
            let Some(child) = found else { return Ok(true) };
            let entry_reply = match self.entry(&child) {
                Ok(reply) => reply,
                Err(error) if error.errno() == Errno::NOENT => return Ok(true),
                Err(error) => return Err(error),
            };
            let taken = each(entry, Some(entry_reply));
            if !taken {
                self.forget(entry_reply.node, 1);
            }
            Ok(taken)
        })
    }

    fn walk(
        &self,
        node: NodeId,
        mut cookie: u64,
        mut each: impl FnMut(&DirEntry) -> Result<bool>,
    ) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        if inode.kind != Kind::Dir {
            return refuse(Errno::NOTDIR);
        }
        if inode.volume.is_some() {
            return self.walk_volume(&inode, cookie, each);
        }
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
                    return refuse(Errno::NOTDIR);
                };
                self.load(&mut state)?;
                if state.is_unlisted() {
                    return refuse(Errno::ACCESS);
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
