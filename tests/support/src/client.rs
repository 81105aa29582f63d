//! Requests to a server as the kernel would make them, without a kernel.

use std::sync::Arc;

use unionmount::internal::fuse::Negotiated;
use unionmount::internal::fuse::proto::split;
use unionmount::internal::fuse::proto::wire::InHeader;
use unionmount::internal::fuse::{Outcome, Server};
use unionmount::union::{Config, Union};
use zerocopy::{FromBytes, IntoBytes};

/// Numbers of opcodes (`enum fuse_opcode`).
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const GETXATTR: u32 = 22;
    pub const READDIR: u32 = 28;
    pub const BATCH_FORGET: u32 = 42;
    pub const READDIRPLUS: u32 = 44;
    pub const STATX: u32 = 52;
}

/// Longest reply.
pub const ROOM: usize = 1 << 20;
/// Bytes in which io_uring hands over a fixed structure.
pub const FIXED: usize = 128;

/// A server, and the buffers that a transport has.
pub struct Client {
    pub server: Server,
    pub out: Vec<u8>,
    pub unique: u64,
}

impl Client {
    pub fn new(config: &Config, agreed: Negotiated) -> Self {
        let union = Union::open(config).unwrap_or_else(|error| panic!("{error}"));
        if agreed.writeback {
            union.leave_mtime_to_kernel();
        }
        Self {
            server: Server::new(Arc::new(union), agreed, None),
            out: vec![0; ROOM],
            unique: 0,
        }
    }

    pub fn union(&self) -> &Union {
        self.server.union()
    }

    /// A request in its parts, from root.
    pub fn ask(&mut self, node: u64, opcode: u32, arg: &[u8], rest: &[u8]) -> Outcome {
        self.unique += 2;
        let header = InHeader {
            len: u32::try_from(size_of::<InHeader>() + arg.len() + rest.len()).unwrap(),
            opcode,
            unique: self.unique,
            nodeid: node,
            pid: 1,
            ..InHeader::default()
        };
        self.server.handle(&header, arg, rest, &mut self.out)
    }

    /// The node of a name.
    pub fn lookup(&mut self, parent: u64, name: &[u8]) -> u64 {
        let outcome = self.ask(parent, op::LOOKUP, &[], &[name, b"\0"].concat());
        assert_eq!(outcome, Outcome::Reply(128), "{}", name.escape_ascii());
        self.number(0)
    }

    /// A number in the last reply.
    pub fn number(&self, at: usize) -> u64 {
        u64::read_from_bytes(&self.out[at..at + 8]).unwrap()
    }

    /// A whole request as /dev/fuse delivers it. A request that cannot be taken apart is answered
    /// as the transport does.
    pub fn whole(&mut self, request: &[u8]) -> Outcome {
        let long = self.server.long_setxattr();
        match split(request, long) {
            Ok((header, arg, rest)) => self.server.handle(&header, arg, rest, &mut self.out),
            Err(errno) => Outcome::Error(errno.raw_os_error()),
        }
    }

    /// The same as io_uring delivers it: the structure in 128 bytes with `rubbish` behind it, the
    /// rest elsewhere.
    pub fn in_parts(&mut self, request: &[u8], rubbish: u8) -> Outcome {
        let long = self.server.long_setxattr();
        let (header, arg, rest) = match split(request, long) {
            Ok(parts) => parts,
            Err(errno) => return Outcome::Error(errno.raw_os_error()),
        };
        let mut fixed = [rubbish; FIXED];
        fixed[..arg.len()].copy_from_slice(arg);
        let rest = rest.to_vec();
        self.server.handle(&header, &fixed, &rest, &mut self.out)
    }
}

/// The structure of READ, READDIR and READDIRPLUS.
pub fn read(offset: u64, size: u32) -> Vec<u8> {
    unionmount::internal::fuse::proto::wire::ReadIn {
        offset,
        size,
        ..Default::default()
    }
    .as_bytes()
    .to_vec()
}

/// The structure of WRITE.
pub fn write(offset: u64, size: u32) -> Vec<u8> {
    read(offset, size)
}
