//! What stat(2) on the mount shows.

use crate::layer::dir::Dir;
use crate::layer::stat::Stat;
use crate::sync::lock;
use crate::union::error::{Context, Result};
use crate::union::merge::renew::ChangedBy;
use crate::union::node::inode::{Bytes, DirState, FileState, Inode, Node, Real};
use crate::union::types::{Attr, Validity};
use crate::union::{Union, fail};
use rustix::io::Errno;

impl Union {
    /// The attributes of an inode; `stat` saves asking the disk when it was asked just now.
    pub(in crate::union) fn attr_with(&self, inode: &Inode, stat: Option<&Stat>) -> Result<Attr> {
        match &inode.node {
            Node::Dir(dir) => {
                let mut state = lock(&dir.state);
                self.look_again(inode, &mut state);
                self.dir_attr(inode, &mut state)
            }
            Node::File(file) => {
                let attr = self.file_attr(inode, &lock(&file.state), stat);
                if matches!(&attr, Err(error) if error.errno() == Errno::STALE) {
                    self.was_replaced(file);
                }
                attr
            }
        }
    }

    pub(in crate::union) fn dir_attr(&self, inode: &Inode, state: &mut DirState) -> Result<Attr> {
        if let Some(removed_dir) = &state.removed {
            return Ok(removed_dir.attr);
        }
        let merged = self.rules.static_nlink || self.is_merged(state);
        let nlink = |stat: &Stat| if merged { 1 } else { stat.nlink };
        let stat = match (&state.upper, state.looks_like()) {
            (Some(dir), _) => {
                let validity = self.dir_validity(inode, true);
                let stat = self.stat_of_dir(inode, dir)?;
                return Ok(self.attr_from(inode, &stat, nlink(&stat), validity));
            }
            (None, Some(dir)) => dir.stat(),
            (None, None) => return fail(Errno::STALE),
        }
        .context("stat", b".")?;
        let validity = self.dir_validity(inode, false);
        Ok(self.attr_from(inode, &stat, nlink(&stat), validity))
    }

    /// Whether several layers have a directory. What an opaque one covers is no part of it: that is
    /// known of one that was read, and of others it is asked for, once.
    fn is_merged(&self, state: &mut DirState) -> bool {
        let newest: &Dir = match (&state.upper, &state.lowers[..]) {
            (Some(upper), [_, ..]) => upper,
            (None, [newest, _, ..]) => newest,
            _ => return false,
        };
        if state.listing.is_some() || state.known_merged {
            return true;
        }
        // Where its marks may not be read nothing in it can be used either.
        if !self.marks_of(newest).is_ok_and(|marks| marks.opaque) {
            state.known_merged = true;
            return true;
        }
        if state.live.is_none() {
            state.lowers.truncate(usize::from(state.upper.is_none()));
        }
        false
    }

    pub(in crate::union) fn file_attr(
        &self,
        inode: &Inode,
        state: &FileState,
        stat: Option<&Stat>,
    ) -> Result<Attr> {
        let stat = match stat {
            Some(stat) => *stat,
            None => self.stat_of(inode, state)?,
        };
        if matches!(state.real, Real::Lower { .. }) && !stat.birth().agrees(inode.birth) {
            // Another process put another file in its place.
            return fail(Errno::STALE);
        }
        // Those of the file that has them.
        let blocks = match &state.bytes {
            Some(Bytes::At(dir, name)) => dir.stat_on_disk(name).map_or(stat.blocks, |s| s.blocks),
            _ => stat.blocks,
        };
        let stat = Stat { blocks, ..stat };
        let nlink = match &state.real {
            Real::Lower { .. } => state.links.len() as u64,
            Real::Upper { .. } | Real::Orphan(_) => stat.nlink,
        };
        let told = match &state.real {
            _ if state.bytes.is_some() => ChangedBy::Elsewhere,
            Real::Lower { .. } => ChangedBy::Lower(&state.links),
            Real::Upper { .. } | Real::Orphan(_) => ChangedBy::Upper,
        };
        let validity = self.file_validity(inode, told, &stat);
        Ok(self.attr_from(inode, &stat, nlink, validity))
    }

    fn attr_from(&self, inode: &Inode, stat: &Stat, nlink: u64, validity: Validity) -> Attr {
        Attr {
            ino: inode.st_ino,
            size: stat.size,
            blocks: stat.blocks,
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
            btime: stat.btime,
            mode: inode.kind.mode_bits() | stat.perm(),
            nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
            uid: self.ids_of(inode).seen_uid(stat.uid),
            gid: self.ids_of(inode).seen_gid(stat.gid),
            rdev: stat.rdev,
            blksize: stat.blksize,
            validity,
        }
    }
}
