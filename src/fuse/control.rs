//! What commands of ours ask of a mount's daemon: ioctl(2) on the mount's root, without an
//! argument. Who may open it may ask.
//!
//! The kernel passes syncfs(2) on to virtiofs and block devices only (`fuse_sync_fs`), so that
//! there must be another way to have the upper's disk synced, and to hear of what it could not
//! write.

/// Everything that was written is to be on the disks: [`crate::union::Union::syncfs`].
pub(crate) const SYNC: u32 = number(b'S');
/// Nothing: that there is an answer says that the daemon lives.
pub(crate) const PING: u32 = number(b'P');

/// `_IO('U', n)` of `asm-generic/ioctl.h`.
const fn number(n: u8) -> u32 {
    (b'U' as u32) << 8 | n as u32
}
