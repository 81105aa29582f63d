//! Listing directories of volumes: as their disks list them now, with the disks' own positions.
//!
//! The kernel asks piece by piece and says where the last one ended; it does not say which reader
//! is asking. To a disk that is one reader after the other, each new in the middle, and a disk that
//! shows a reader only what was there when it began (btrfs) would show each of them what the one
//! before has just renamed, for ever. So the disk's open directory is kept between the pieces, and
//! found again by where it is. Only by readers who were there when it began: a reader that begins
//! later sees what came meanwhile, so that those of before are closed then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::read_dir::DirStream;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;
use crate::union::types::DirEntry;

/// How many are kept. Nothing says that a listing is over that was not read to its end.
const KEPT: usize = 16;

/// Directories that are being read.
/// Lock order: locked for a few statements; no state is locked under it.
#[derive(Debug, Default)]
pub(in crate::union) struct Streams(Mutex<VecDeque<Stream>>);

#[derive(Debug)]
struct Stream {
    node: NodeId,
    disk: DirStream,
    device: u64,
    /// Where the last piece began, and what it held: its reader goes on behind any of these. A
    /// small buffer takes less than the kernel got, which asks for the rest again.
    began: u64,
    given: Vec<Listed>,
    /// What was read from the disk and not returned.
    ahead: VecDeque<Listed>,
}

/// An entry as the disk lists it.
#[derive(Debug)]
struct Listed {
    name: Name,
    kind: Option<Kind>,
    ino: Option<u64>,
    cookie: u64,
}

impl Stream {
    /// How many entries of the last piece lie before a position; `None` when its reader cannot be
    /// there.
    fn before(&self, position: u64) -> Option<usize> {
        if position == self.began {
            return Some(0);
        }
        let is = |listed: &Listed| listed.cookie == position;
        self.given.iter().position(is).map(|found| found + 1)
    }

    /// Begins a piece behind the first `count` entries of the last one.
    fn begin(&mut self, position: u64, count: usize) {
        while self.given.len() > count
            && let Some(again) = self.given.pop()
        {
            self.ahead.push_front(again);
        }
        self.given.clear();
        self.began = position;
    }

    /// The next entry of the disk.
    fn next(&mut self) -> rustix::io::Result<Option<Listed>> {
        if self.ahead.is_empty() {
            let ahead = &mut self.ahead;
            self.disk.next(|name, kind, ino, cookie| {
                ahead.push_back(Listed {
                    name: Name::from(name),
                    kind,
                    ino,
                    cookie,
                });
            })?;
        }
        Ok(self.ahead.pop_front())
    }
}

impl Streams {
    fn take(&self, node: NodeId, position: u64) -> Option<Stream> {
        let mut kept = lock(&self.0);
        // One that was in use when a later one began may be there as well: the latest shows the
        // most.
        let mut at = kept.iter().enumerate().rev();
        let (found, count) = at.find_map(|(number, stream)| {
            let count = (stream.node == node).then(|| stream.before(position))??;
            Some((number, count))
        })?;
        let mut stream = kept.remove(found)?;
        drop(kept);
        stream.begin(position, count);
        Some(stream)
    }

    fn keep(&self, stream: Stream) {
        let mut kept = lock(&self.0);
        let oldest = (kept.len() >= KEPT).then(|| kept.pop_front());
        kept.push_back(stream);
        drop(kept);
        drop(oldest);
    }

    /// Closes those of a node: it is not known any more, or a reader begins.
    pub(in crate::union) fn forget(&self, node: NodeId) {
        lock(&self.0).retain(|stream| stream.node != node);
    }
}

impl Union {
    /// As [`Union::readdir`], of a directory of a volume.
    pub(in crate::union) fn walk_volume(
        &self,
        inode: &Arc<Inode>,
        position: u64,
        mut each: impl FnMut(&DirEntry) -> Result<bool>,
    ) -> Result<()> {
        let Some(mut stream) = self.stream(inode, position)? else {
            return Ok(());
        };
        while let Some(listed) = stream.next().context("getdents", b".")? {
            let found = self.listed(inode, stream.device, &listed)?;
            let Some((kind, ino)) = found else {
                continue;
            };
            let entry = DirEntry {
                name: Name::clone(&listed.name),
                kind,
                ino,
                cookie: listed.cookie,
            };
            if !each(&entry)? {
                stream.ahead.push_front(listed);
                self.streams.keep(stream);
                return Ok(());
            }
            stream.given.push(listed);
        }
        // Its reader will ask once more, and must get the end from the same one.
        if !stream.given.is_empty() {
            self.streams.keep(stream);
        }
        Ok(())
    }

    /// The one that is there, or a new one; `None` for a directory that was removed.
    fn stream(&self, inode: &Inode, position: u64) -> Result<Option<Stream>> {
        if position == 0 {
            self.streams.forget(inode.id);
        } else if let Some(stream) = self.streams.take(inode.id, position) {
            return Ok(Some(stream));
        }
        let Some(disk) = self.disk_stream(inode, position)? else {
            return Ok(None);
        };
        Ok(Some(Stream {
            device: disk.device().context("stat", b".")?,
            node: inode.id,
            began: position,
            given: Vec::new(),
            disk,
            ahead: VecDeque::new(),
        }))
    }

    /// The disk's directory, open for a reader of its own; `None` when it was removed.
    fn disk_stream(&self, inode: &Inode, position: u64) -> Result<Option<DirStream>> {
        let dir = {
            let Some(mut state) = inode.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            self.load(&mut state)?;
            state.upper.clone()
        };
        let stream = dir.map(|dir| dir.stream(position)).transpose();
        stream.context("open directory", b".")
    }

    /// All names that the disk lists, read beside the listings that are under way.
    pub(in crate::union) fn names_in_volume(
        &self,
        inode: &Inode,
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        let Some(disk) = self.disk_stream(inode, 0)? else {
            return Ok(());
        };
        while disk
            .next(|name, _, _, _| each(name))
            .context("getdents", b".")?
        {}
        Ok(())
    }

    /// Type and `st_ino` of an entry that the disk listed; `None` when it is gone already.
    fn listed(
        &self,
        inode: &Arc<Inode>,
        device: u64,
        listed: &Listed,
    ) -> Result<Option<(Kind, u64)>> {
        let name = &listed.name;
        match &**name {
            b"." => return Ok(Some((Kind::Dir, inode.st_ino))),
            b".." => {
                let above = inode.place().map_or(inode.st_ino, |p| p.parent.st_ino);
                return Ok(Some((Kind::Dir, above)));
            }
            _ => {}
        }
        let Some(state) = inode.lock_dir() else {
            return Ok(None);
        };
        if let Some((_, slot)) = state.listing.as_ref().and_then(|l| l.visible_entry(name))
            && slot.mount.is_some()
        {
            return Ok(slot.kind().map(|kind| (kind, slot.st_ino)));
        }
        let Some(dir) = &state.upper else {
            return Ok(None);
        };
        match (listed.kind, listed.ino) {
            (Some(kind), Some(ino)) => Ok(Some((kind, self.ino_on(device, ino)))),
            _ => match dir.stat_entry(name) {
                Ok(stat) => Ok(Some((stat.kind(), self.volume_ino(&stat)))),
                Err(Errno::NOENT) => Ok(None),
                Err(errno) => Err(errno).context("stat", name),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::tests::testing::find;
    use crate::union::tests::volume::{names, open, stack, volume};

    /// A reader that gives up leaves its place behind, which is no place for one that begins later.
    #[test]
    fn who_begins_later_sees_what_came_meanwhile() {
        let stack = stack();
        for number in 0..1000 {
            stack.file(&format!("vol/old{number}"), "");
        }
        let union = open(&stack, &[volume(&stack, "vol", "/data")]);
        let data = find(&union, "data").node;
        let piece = |position, most: usize| {
            let mut piece = Vec::new();
            let each = |entry: &DirEntry| {
                let takes = piece.len() < most;
                if takes {
                    piece.push((Name::clone(&entry.name), entry.cookie));
                }
                takes
            };
            union.readdir(data, position, each).unwrap();
            piece
        };
        assert_eq!(piece(0, 100).len(), 100);
        for number in 0..1000 {
            stack.file(&format!("vol/new{number}"), "");
        }
        std::fs::remove_file(stack.at("vol/f")).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut position = 0;
        while let Some((name, next)) = piece(position, 1).pop() {
            position = next;
            assert!(seen.insert(name), "once");
        }
        // With `.` and `..`.
        assert_eq!(seen.len(), 2002);
        assert_eq!(names(&union, data).len(), 2000);
    }
}
