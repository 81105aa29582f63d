//! The FUSE protocol, ABI 7.45, as Linux speaks it: structures, a total parser, encoders.
//!
//! The specification is the kernel's `include/uapi/linux/fuse.h`. A request is a header
//! ([`InHeader`]), a structure of fixed size that depends on the opcode, and the rest: names, each
//! ended by NUL, data, extensions. A transport hands these three over separately, since io_uring
//! delivers them in separate places. Numbers are in the machine's byte order.

pub(crate) mod notify;
pub(crate) mod opcode;
pub(in crate::fuse) mod operation;
pub(crate) mod reply;
pub(crate) mod request;
pub mod wire;

pub use opcode::Opcode;
pub use operation::{Operation, Request};
pub(crate) use wire::InHeader;
