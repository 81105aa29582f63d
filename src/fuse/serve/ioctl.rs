//! IOCTL: the flags of an inode (ioctl_iflags(2)), its generation, and what commands of ours ask
//! (`control.rs`).

use rustix::io::Errno;

use super::server::{Server, fail};
use crate::fuse::control;
use crate::fuse::proto::reply::Body;
use crate::fuse::proto::wire::{IoctlIn, IoctlOut};
use crate::union::{NodeId, Result};

// Numbers from `include/uapi/linux/fs.h`: direction, size, type and number. The kernel itself asks
// in the 64-bit form, for 4 bytes.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC32_GETFLAGS: u32 = 0x8004_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;
const FS_IOC32_SETFLAGS: u32 = 0x4004_6602;
const FS_IOC_GETVERSION: u32 = 0x8008_7601;
const FS_IOC32_GETVERSION: u32 = 0x8004_7601;
const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

impl Server {
    pub(super) fn ioctl(
        &self,
        node: NodeId,
        arg: &IoctlIn,
        data: &[u8],
        body: &mut Body<'_>,
    ) -> Result<()> {
        match arg.cmd {
            FS_IOC_GETFLAGS | FS_IOC32_GETFLAGS => {
                reply(arg, &self.union.inode_flags(node)?.to_ne_bytes(), body)
            }
            FS_IOC_SETFLAGS | FS_IOC32_SETFLAGS => {
                let Some(flags) = data.first_chunk() else {
                    return fail(Errno::INVAL);
                };
                let flags = u32::from_ne_bytes(*flags);
                self.union.set_inode_flags(node, flags)?;
                self.end.mark_changed();
                reply(arg, &[], body)
            }
            FS_IOC_GETVERSION | FS_IOC32_GETVERSION => {
                reply(arg, &self.union.inode_version(node)?.to_ne_bytes(), body)
            }
            control::SYNC => {
                self.sync()?;
                reply(arg, &[], body)
            }
            control::PING => reply(arg, &[], body),
            FS_IOC_FSGETXATTR => reply(arg, &self.union.fsxattr(node)?, body),
            FS_IOC_FSSETXATTR => {
                let Some(value) = data.first_chunk() else {
                    return fail(Errno::INVAL);
                };
                self.union.set_fsxattr(node, value)?;
                self.end.mark_changed();
                reply(arg, &[], body)
            }
            _ => fail(Errno::NOTTY),
        }
    }
}

/// The result 0 and what the caller's buffer gets, as far as it reaches.
fn reply(arg: &IoctlIn, value: &[u8], body: &mut Body<'_>) -> Result<()> {
    body.put(&IoctlOut::default())?;
    let room = usize::try_from(arg.out_size).unwrap_or(usize::MAX);
    Ok(body.bytes(&value[..value.len().min(room)])?)
}
