//! One request: read, logged, given to its operation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

use super::failure_log::Subject;
use super::server::{Server, fail};
use super::trace;
use crate::fuse::proto::reply::Body;
use crate::fuse::proto::request::fixed_size;
use crate::fuse::proto::wire::{GetxattrOut, InHeader};
use crate::fuse::proto::{Opcode, Operation, Request};
use crate::union::{Error, NodeId, Result};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes of the body were written.
    Reply(usize),
    /// An errno (positive).
    Error(i32),
    /// The kernel waits for no reply.
    Silent,
}

impl Server {
    /// Does what a request asks for and writes the reply's body to `out`.
    ///
    /// `arg` is the fixed structure, maybe with rubbish behind it, `rest` what follows. Any bytes
    /// are allowed: an odd request gets an errno. A panic answers EIO for this request, and the
    /// mount lives on. What a disk refused is logged.
    ///
    /// With the log level trace for the target `unionmount::fuse::wire` each request and each reply
    /// is logged in hex, in lines that `trace.rs` describes (`= ..` what was agreed on, `> header
    /// structure rest`, `< number reply body`), and that `tests/protocol` can play again;
    /// without it that costs one look at the level.
    pub fn handle(&self, header: &InHeader, arg: &[u8], rest: &[u8], out: &mut [u8]) -> Outcome {
        let arg = self.without_rubbish(header, arg);
        let traced = trace::is_on();
        if traced {
            trace::request(header, arg, rest);
        }
        let outcome = self.outcome(header, arg, rest, out);
        if traced {
            trace::reply(header, outcome, out);
        }
        outcome
    }

    /// The fixed structure alone. io_uring hands over 128 bytes, of which those behind the
    /// structure are left over from other requests; where SETXATTR has its short form they must not
    /// be taken for the rest of the long one.
    fn without_rubbish<'a>(&self, header: &InHeader, arg: &'a [u8]) -> &'a [u8] {
        let size = fixed_size(header.opcode, self.agreed.long_setxattr);
        arg.get(..size).unwrap_or(arg)
    }

    fn outcome(&self, header: &InHeader, arg: &[u8], rest: &[u8], out: &mut [u8]) -> Outcome {
        let opcode = Opcode::from_number(header.opcode);
        let call = opcode.map_or("unknown request", Opcode::call);
        let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<usize> {
            let request = match Request::parse(*header, arg, rest) {
                Ok(request) => request,
                Err(errno) => {
                    log::debug!("{call}: {errno}");
                    return Err(errno.into());
                }
            };
            let mut body = Body::new(out);
            let done = self.dispatch(&request, &mut body);
            if let Err(error) = &done {
                self.report(&request, error);
            }
            done.map(|()| body.len())
        }));
        let outcome = match outcome {
            Ok(Ok(len)) => Outcome::Reply(len),
            Ok(Err(error)) => Outcome::Error(error.errno().raw_os_error()),
            Err(_) => {
                log::error!("{call}: panicked; answered EIO");
                Outcome::Error(Errno::IO.raw_os_error())
            }
        };
        // An open file may be written to without a message where the kernel has its backing file,
        // also after a sync.
        let changes = |opcode: Opcode| {
            let opens = matches!(opcode, Opcode::Open | Opcode::Release);
            opcode.changes() || (self.agreed.passthrough && opens)
        };
        if opcode.is_some_and(changes) {
            self.end.mark_changed();
        }
        if opcode.is_some_and(Opcode::is_silent) {
            return Outcome::Silent;
        }
        outcome
    }

    /// Logs a failure with the file that it is about.
    #[cold]
    fn report(&self, request: &Request<'_>, error: &Error) {
        let header = &request.header;
        let subject = Subject {
            call: Opcode::from_number(header.opcode).map_or("unknown request", Opcode::call),
            node: NodeId(header.nodeid),
            name: request.operation.entry_name(),
        };
        self.failures.report(&self.union, subject, error);
    }

    fn dispatch(&self, request: &Request<'_>, body: &mut Body<'_>) -> Result<()> {
        let header = &request.header;
        let node = NodeId(header.nodeid);
        match request.operation {
            Operation::Forget(arg) => {
                self.union.forget(node, arg.nlookup);
                Ok(())
            }
            Operation::BatchForget(forgets) => {
                for one in forgets.iter() {
                    self.union.forget(NodeId(one.nodeid), one.nlookup);
                }
                Ok(())
            }
            Operation::Getattr => self.getattr(node, body),
            Operation::Statx(_) => self.statx(node, body),
            Operation::Setattr(arg) => self.setattr(header, &arg, body),
            Operation::Readlink => self.readlink(node, body),
            Operation::Open(_) => self.open(node, body),
            Operation::Release(_) => {
                self.opens.released(node);
                Ok(())
            }
            Operation::Read(arg) => self.read(node, &arg, body),
            Operation::Write { arg, data } => self.write(header, &arg, data, body),
            // The kernel has written everything back before it asks, and nothing is kept here:
            // ENOSYS ends the asking.
            Operation::Flush => fail(Errno::NOSYS),
            Operation::Fsync(arg) | Operation::Fsyncdir(arg) => self.fsync(node, &arg),
            Operation::Opendir(_) => self.opendir(body),
            Operation::Readdir(arg) => self.readdir(node, &arg, body),
            Operation::Readdirplus(arg) => self.readdirplus(node, &arg, body),
            Operation::Releasedir(_) => Ok(()),
            Operation::Statfs => self.statfs(node, body),
            Operation::Syncfs => self.union.syncfs(),
            Operation::Setxattr { arg, name, value } => self.setxattr(header, &arg, name, value),
            Operation::Getxattr { size, name } => {
                xattr_reply(&self.union.getxattr(node, name)?, size, body)
            }
            Operation::Listxattr { size } => xattr_reply(&self.union.listxattr(node)?, size, body),
            Operation::Removexattr { name } => self.union.removexattr(node, name),
            // The kernel checks permissions (default_permissions).
            Operation::Access(_) => fail(Errno::NOSYS),
            // Nothing here waits for anything that could be called off.
            Operation::Interrupt(_) | Operation::Destroy => Ok(()),
            Operation::Ioctl { arg, data } => self.ioctl(node, &arg, data, body),
            Operation::Fallocate(arg) => self.fallocate(header, &arg),
            Operation::Lseek(arg) => self.lseek(node, &arg, body),
            Operation::CopyFileRange { arg, wide } => {
                self.copy_file_range(header, &arg, wide, body)
            }
            Operation::Other(_) => fail(Errno::NOSYS),
            _ => self.dispatch_entry(request, body),
        }
    }

    /// Requests about names in a directory.
    fn dispatch_entry(&self, request: &Request<'_>, body: &mut Body<'_>) -> Result<()> {
        let header = &request.header;
        let node = NodeId(header.nodeid);
        match request.operation {
            Operation::Lookup { name } => self.lookup(node, name, body),
            Operation::Symlink {
                name,
                target,
                context,
            } => self.symlink(header, name, target, &context, body),
            Operation::Mknod { arg, name, context } => {
                self.mknod(header, &arg, name, &context, body)
            }
            Operation::Mkdir { arg, name, context } => {
                self.mkdir(header, &arg, name, &context, body)
            }
            Operation::Unlink { name } => self.union.unlink(node, name),
            Operation::Rmdir { name } => self.union.rmdir(node, name),
            Operation::Rename {
                newdir,
                flags,
                name,
                newname,
            } => self.rename(header, name, NodeId(newdir), newname, flags),
            Operation::Link { arg, name } => self.link(NodeId(arg.oldnodeid), node, name, body),
            Operation::Create { arg, name, context } => {
                self.create(header, &arg, name, &context, body)
            }
            Operation::Tmpfile { arg, context } => self.tmpfile(header, &arg, &context, body),
            _ => fail(Errno::NOSYS),
        }
    }
}

/// A value, or its length when that is what was asked for (size 0). Errors: ERANGE for a value that
/// is longer.
fn xattr_reply(value: &[u8], size: u32, body: &mut Body<'_>) -> Result<()> {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        body.put(&GetxattrOut {
            size: length,
            padding: 0,
        })?;
    } else if length > size {
        return fail(Errno::RANGE);
    } else {
        body.bytes(value)?;
    }
    Ok(())
}
