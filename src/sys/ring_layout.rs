//! What FUSE over io_uring puts where: include/uapi/linux/fuse.h of Linux 6.14 and later.

use io_uring::squeue::Entry128;
use io_uring::{opcode, types};

/// Bytes in front of every request (`fuse_in_header`).
pub(super) const HEADER: usize = 40;
/// Room for the fixed part of a request, which is shorter for most operations; what follows it is
/// left over from other requests.
pub(super) const FIXED: usize = 128;

/// Registers an entry's buffers with the kernel, and lends it them.
pub(super) const REGISTER: u32 = 1;
/// Sends the reply that lies in an entry's buffers, and lends it them for the next request.
pub(super) const COMMIT_AND_FETCH: u32 = 2;

/// `fuse_uring_req_header`.
#[repr(C)]
pub(super) struct ReqHeader {
    /// `fuse_in_header` of a request, then `fuse_out_header` of its reply.
    pub(super) in_out: [u8; 128],
    /// The fixed part of a request.
    pub(super) op_in: [u8; FIXED],
    /// About the payload.
    pub(super) entry: EntryHeader,
}

/// `fuse_uring_ent_in_out`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct EntryHeader {
    pub(super) flags: u64,
    /// By which the kernel finds the request that a reply is for.
    pub(super) commit_id: u64,
    /// Bytes of the request, then of the reply, in the payload buffer.
    pub(super) payload_size: u32,
    pub(super) padding: u32,
    pub(super) reserved: u64,
}

/// `fuse_out_header`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct OutHeader {
    /// Bytes of the reply with this header.
    pub(super) len: u32,
    /// 0 or an errno, negative.
    pub(super) error: i32,
    /// The number of the request.
    pub(super) unique: u64,
}

/// `fuse_uring_cmd_req`, padded to the room that a large submission has.
#[repr(C)]
struct CommandArea {
    flags: u64,
    commit_id: u64,
    qid: u16,
    padding: [u8; 62],
}

/// The control page of an entry, in front of its payload.
#[repr(C)]
pub(super) struct Control {
    pub(super) header: ReqHeader,
    /// What [`REGISTER`] is shown: the header and the payload.
    pub(super) parts: [libc::iovec; 2],
}

/// Where the side area begins.
pub(super) const SIDE_AT: usize = 4096;
/// Bytes of the side area: room for the small replies of requests with a large payload, which is in
/// the way of the reply. The kernel has none that is large both ways.
pub(super) const SIDE: usize = 4096;
/// Where the payload begins.
pub(super) const PAYLOAD_AT: usize = SIDE_AT + SIDE;
/// Up to this many bytes of a request's payload are moved to the side area, so that the reply can
/// use the payload: two names.
pub(super) const COPIED: usize = 1024;

const _: () = assert!(size_of::<Control>() <= SIDE_AT && COPIED <= SIDE);
const _: () = assert!(size_of::<Entry128>() == 128 && size_of::<CommandArea>() == 80);

/// Index of `/dev/fuse` among the ring's registered files.
const DEVICE: types::Fixed = types::Fixed(0);

/// A submission of one of the two commands. `parts` is the address of the two iovecs and only
/// looked at by [`REGISTER`].
pub(super) fn command(
    operation: u32,
    commit_id: u64,
    queue: u16,
    parts: *const libc::iovec,
) -> Entry128 {
    /// Offset of `len` in `struct io_uring_sqe`.
    const SQE_LEN: usize = 24;
    let mut area = [0; 80];
    area[8..16].copy_from_slice(&commit_id.to_ne_bytes());
    area[16..18].copy_from_slice(&queue.to_ne_bytes());
    let mut entry = opcode::UringCmd80::new(DEVICE, operation)
        .cmd(area)
        .addr(Some(parts.addr() as u64))
        .build();
    // How many iovecs there are; the crate has no setter for it. SAFETY: an Entry128 is a `struct
    // io_uring_sqe` of 128 bytes (asserted above), in which `len` is the aligned u32 at this
    // offset, valid with any value.
    unsafe {
        (&raw mut entry)
            .cast::<u8>()
            .add(SQE_LEN)
            .cast::<u32>()
            .write(2);
    }
    entry
}

/// A request, and room for its reply.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// `fuse_in_header`. Its `len` has nothing to do with the lengths below.
    pub header: &'a [u8; HEADER],
    /// The fixed part. The kernel says nowhere how long it is; what follows it is left over from
    /// other requests.
    pub fixed: &'a [u8; FIXED],
    /// What follows the fixed part: names, values, data.
    pub rest: &'a [u8],
    /// Where the reply goes, without its header: the whole payload buffer, or at least 4 KiB when
    /// `rest` is longer than 1 KiB.
    pub out: &'a mut [u8],
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<ReqHeader>(), 288);
        assert_eq!(offset_of!(ReqHeader, op_in), 128);
        assert_eq!(offset_of!(ReqHeader, entry), 256);
        assert_eq!(size_of::<EntryHeader>(), 32);
        assert_eq!(offset_of!(EntryHeader, commit_id), 8);
        assert_eq!(offset_of!(EntryHeader, payload_size), 16);
        assert_eq!(offset_of!(EntryHeader, reserved), 24);
        assert_eq!(size_of::<OutHeader>(), 16);
        assert_eq!(offset_of!(OutHeader, error), 4);
        assert_eq!(offset_of!(OutHeader, unique), 8);
        assert_eq!(offset_of!(CommandArea, commit_id), 8);
        assert_eq!(offset_of!(CommandArea, qid), 16);
        assert_eq!(offset_of!(Control, header), 0);
    }

    #[test]
    fn a_command_has_its_parts_where_the_kernel_looks() {
        let parts: *const libc::iovec = std::ptr::without_provenance(0x1122_3344_5566);
        let entry = command(COMMIT_AND_FETCH, 0x0102_0304_0506_0708, 0x0a0b, parts).user_data(7);
        // SAFETY: an Entry128 is 128 initialised bytes, its second half an array of them.
        let bytes: [u8; 128] = unsafe { std::mem::transmute(entry) };
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(bytes[0], 46, "IORING_OP_URING_CMD");
        assert_eq!(bytes[1], 1, "IOSQE_FIXED_FILE");
        assert_eq!(u32_at(4), 0, "the index of the file");
        assert_eq!(u32_at(8), COMMIT_AND_FETCH);
        assert_eq!(u64_at(16), 0x1122_3344_5566);
        assert_eq!(u32_at(24), 2);
        assert_eq!(u64_at(32), 7);
        assert_eq!(u64_at(48), 0, "flags");
        assert_eq!(u64_at(56), 0x0102_0304_0506_0708);
        assert_eq!(u64_at(64) & 0xffff, 0x0a0b);
    }
}
