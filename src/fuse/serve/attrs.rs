//! Attributes, xattrs, the disk's numbers.

use super::server::Server;
use super::setid::AclChange;
use crate::fuse::proto::InHeader;
use crate::fuse::proto::reply::{Body, attr_out, statx_out};
use crate::fuse::proto::wire::{SETXATTR_ACL_KILL_SGID, SetattrIn, SetxattrIn, StatfsOut, fattr};
use crate::layer::object::SetTime;
use crate::layer::stat::Time;
use crate::union::{NAME_MAX, NodeId, Result, SetAttr};
use rustix::fs::XattrFlags;

/// Blocks are counted in units of so many bytes when the disk does not say.
const BLOCK: u32 = 4096;

impl Server {
    pub(super) fn getattr(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        let attr = self.union.getattr(node)?;
        Ok(body.put(&attr_out(&attr, self.attr_lifetime(node, attr.validity)))?)
    }

    pub(super) fn statx(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        let attr = self.union.getattr(node)?;
        Ok(body.put(&statx_out(&attr, self.attr_lifetime(node, attr.validity)))?)
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
        let attr = self.setid_rules(header).setattr(node, &set)?;
        Ok(body.put(&attr_out(&attr, self.attr_lifetime(node, attr.validity)))?)
    }

    pub(super) fn setxattr(
        &self,
        header: &InHeader,
        arg: &SetxattrIn,
        name: &[u8],
        value: &[u8],
    ) -> Result<()> {
        let acl = AclChange::Decided {
            kill_setgid: arg.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0,
        };
        let flags = XattrFlags::from_bits_retain(arg.flags);
        self.setid_rules(header)
            .setxattr(NodeId(header.nodeid), name, value, flags, acl)
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
