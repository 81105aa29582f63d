//! Attributes, xattrs, the disk's numbers.

use super::Server;
use crate::fuse::proto::InHeader;
use crate::fuse::proto::reply::{Body, attr_out, statx_out};
use crate::fuse::proto::wire::{SETXATTR_ACL_KILL_SGID, SetattrIn, SetxattrIn, StatfsOut, fattr};
use crate::fuse::serve::privilege::belongs;
use crate::layer::stat::{Kind, Time};
use crate::layer::upper::SetTime;
use crate::union::{NAME_MAX, NodeId, Result, SetAttr};
use rustix::fs::XattrFlags;

const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;
/// Blocks are counted in units of so many bytes when the disk does not say.
const BLOCK: u32 = 4096;

impl Server {
    pub(super) fn getattr(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        let attr = self.union.getattr(node)?;
        Ok(body.put(&attr_out(&attr, self.attr_lifetime(node, attr.belief)))?)
    }

    pub(super) fn statx(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        let attr = self.union.getattr(node)?;
        Ok(body.put(&statx_out(&attr, self.attr_lifetime(node, attr.belief)))?)
    }

    pub(super) fn setattr(
        &self,
        header: &InHeader,
        arg: &SetattrIn,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let node = NodeId(header.nodeid);
        let has = |bit: u32| arg.valid & bit != 0;
        let when = |bit: u32, value: u32| has(bit).then_some(value);
        let time = |given: u32, now: u32, secs: i64, nanos: u32| match (has(given), has(now)) {
            (false, _) => SetTime::Keep,
            (true, true) => SetTime::Now,
            (true, false) => SetTime::At(Time { secs, nanos }),
        };
        let set = SetAttr {
            mode: when(fattr::MODE, arg.mode),
            uid: when(fattr::UID, arg.uid),
            gid: when(fattr::GID, arg.gid),
            size: has(fattr::SIZE).then_some(arg.size),
            atime: time(fattr::ATIME, fattr::ATIME_NOW, arg.atime, arg.atimensec),
            mtime: time(fattr::MTIME, fattr::MTIME_NOW, arg.mtime, arg.mtimensec),
            drop_setid: has(fattr::KILL_SUIDGID),
        };
        let nothing = set.mode.or(set.uid).or(set.gid).is_none()
            && set.size.is_none()
            && (set.atime, set.mtime) == (SetTime::Keep, SetTime::Keep);
        let attr = if nothing {
            // Only a time that the kernel keeps by itself (ctime with the writeback cache).
            self.union.getattr(node)?
        } else {
            let loses = self.loses_setgid(header, &set)?;
            let attr = self.union.setattr(node, &set)?;
            if loses && self.union.clear_setid(node, &|_| false)? {
                self.union.getattr(node)?
            } else {
                attr
            }
        };
        Ok(body.put(&attr_out(&attr, self.attr_lifetime(node, attr.belief)))?)
    }

    /// Whether a truncation or a change of owner takes setgid from a file that is no program, because whoever asks for it
    /// is not in the file's group. (From programs it is taken by the union and by the upper's disk.)
    fn loses_setgid(&self, header: &InHeader, set: &SetAttr) -> Result<bool> {
        let chown = set.uid.or(set.gid).is_some();
        if set.mode.is_some() || !(chown || (set.size.is_some() && set.drop_setid)) {
            return Ok(false);
        }
        let attr = self.union.getattr(NodeId(header.nodeid))?;
        Ok(attr.kind() != Kind::Dir
            && attr.mode & (S_ISGID | S_IXGRP) == S_ISGID
            && !belongs(header.pid, attr.gid))
    }

    pub(super) fn setxattr(
        &self,
        node: NodeId,
        arg: &SetxattrIn,
        name: &[u8],
        value: &[u8],
    ) -> Result<()> {
        let flags = XattrFlags::from_bits_retain(arg.flags);
        if arg.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0 {
            return self.union.set_acl_of_outsider(node, name, value, flags);
        }
        self.union.setxattr(node, name, value, flags)
    }

    pub(super) fn readlink(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        Ok(body.bytes(&self.union.readlink(node)?)?)
    }

    pub(super) fn statfs(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        let disk = self.union.statfs(node)?;
        let size = |value: u64| u32::try_from(value).unwrap_or(BLOCK);
        Ok(body.put(&StatfsOut {
            blocks: disk.f_blocks,
            bfree: disk.f_bfree,
            bavail: disk.f_bavail,
            files: disk.f_files,
            ffree: disk.f_ffree,
            bsize: size(disk.f_bsize),
            namelen: u32::try_from(NAME_MAX).unwrap_or(255),
            frsize: size(disk.f_frsize),
            ..StatfsOut::default()
        })?)
    }
}
