//! From a request to its reply, for the transports that speak the protocol themselves.
//!
//! [`Server::handle`] takes a request's bytes and writes the reply's; who carries them is none of its concern. Nothing
//! is kept per open file, unless files are opened for passthrough (`opens.rs`).

mod attrs;
mod data;
mod end;
mod entries;
mod ioctl;
pub(in crate::fuse) mod notifier;
mod opens;
mod predictor;
pub(in crate::fuse) mod privilege;
mod readdir;
pub(in crate::fuse) mod report;
mod trace;

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustix::io::Errno;

use crate::fuse::init::Agreed;

use crate::fuse::proto::reply::Body;
use crate::fuse::proto::request::fixed_size;
use crate::fuse::proto::wire::InHeader;
use crate::fuse::proto::{Opcode, Operation, Request};
use crate::union::{NodeId, Result, Union};
use end::Ending;
pub(super) use end::sync_at_end;
use opens::Opens;
use predictor::Foresight;
use report::report;

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

/// What serves requests.
#[derive(Debug)]
pub struct Server {
    union: Arc<Union>,
    agreed: Agreed,
    /// Where the kernel is told what it should not believe any more.
    connection: Option<Arc<OwnedFd>>,
    opens: Opens,
    foresight: Foresight,
    ending: Ending,
}

impl Server {
    /// Serves `union` as was agreed on with the kernel; `device` is the connection, which passthrough and notices need.
    #[must_use]
    pub fn new(union: Arc<Union>, agreed: Agreed, device: Option<OwnedFd>) -> Self {
        trace::session(&agreed);
        let writable = !union.is_read_only();
        let connection = device.map(Arc::new);
        if let Some(connection) = &connection {
            // The union outlives a server that could not be started, whose connection must not stay open.
            let connection = Arc::downgrade(connection);
            union.tell_attributes_to(move |node| {
                if let Some(connection) = connection.upgrade() {
                    notifier::forget_attributes(connection, node.0);
                }
            });
        }
        Self {
            union,
            agreed,
            opens: Opens::new(connection.clone().filter(|_| agreed.passthrough), writable),
            connection,
            foresight: Foresight::default(),
            ending: Ending::default(),
        }
    }

    /// Whether SETXATTR comes in its long form.
    #[must_use]
    pub fn long_setxattr(&self) -> bool {
        self.agreed.long_setxattr
    }

    /// The tree that is served.
    #[must_use]
    pub fn union(&self) -> &Union {
        &self.union
    }

    /// Does what a request asks for and writes the reply's body to `out`.
    ///
    /// `arg` is the fixed structure, maybe with rubbish behind it, `rest` what follows. Any bytes are allowed: an odd
    /// request gets an errno. A panic answers EIO for this request, and the mount lives on. What a disk refused is logged.
    ///
    /// With the log level trace for the target `unionmount::fuse::wire` each request and each reply is logged in hex, in
    /// lines that `trace.rs` describes (`= ..` what was agreed on, `> header structure rest`, `< number reply body`), and
    /// that `tests/protocol.rs` can play again; without it that costs one look at the level.
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

    /// The fixed structure alone. io_uring hands over 128 bytes, of which those behind the structure are left over from
    /// other requests; where SETXATTR has its short form they must not be taken for the rest of the long one.
    fn without_rubbish<'a>(&self, header: &InHeader, arg: &'a [u8]) -> &'a [u8] {
        let size = fixed_size(header.opcode, self.agreed.long_setxattr);
        arg.get(..size).unwrap_or(arg)
    }

    fn outcome(&self, header: &InHeader, arg: &[u8], rest: &[u8], out: &mut [u8]) -> Outcome {
        let opcode = Opcode::from_number(header.opcode);
        let call = opcode.map_or("unknown request", Opcode::call);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let request = Request::parse(*header, arg, rest)?;
            let mut body = Body::new(out);
            self.dispatch(&request, &mut body)?;
            Ok(body.len())
        }));
        let outcome = match outcome {
            Ok(Ok(len)) => Outcome::Reply(len),
            Ok(Err(error)) => {
                report(call, &error);
                Outcome::Error(error.errno().raw_os_error())
            }
            Err(_) => {
                log::error!("{call}: panicked; answered EIO");
                Outcome::Error(Errno::IO.raw_os_error())
            }
        };
        // An open file may be written to without a message where the kernel has its backing file, also after a sync.
        let changes = |opcode: Opcode| {
            let opens = matches!(opcode, Opcode::Open | Opcode::Release);
            opcode.changes() || (self.agreed.passthrough && opens)
        };
        if opcode.is_some_and(changes) {
            self.ending.note_change();
        }
        if opcode.is_some_and(Opcode::is_silent) {
            return Outcome::Silent;
        }
        outcome
    }

    fn dispatch(&self, request: &Request<'_>, body: &mut Body<'_>) -> Result<()> {
        let header = &request.header;
        let node = NodeId(header.nodeid);
        match request.operation {
            Operation::Lookup { name } => self.lookup(node, name, body),
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
            } => self.rename(header, name, (NodeId(newdir), newname), flags),
            Operation::Link { arg, name } => self.link(NodeId(arg.oldnodeid), node, name, body),
            Operation::Open(_) => self.open(node, body),
            Operation::Create { arg, name, context } => {
                self.create(header, &arg, name, &context, body)
            }
            Operation::Tmpfile { arg, context } => self.tmpfile(header, &arg, &context, body),
            Operation::Release(_) => {
                self.opens.released(node);
                Ok(())
            }
            Operation::Read(arg) => self.read(node, &arg, body),
            Operation::Write { arg, data } => self.write(header, &arg, data, body),
            // The kernel has written everything back before it asks, and nothing is kept here: ENOSYS ends the asking.
            Operation::Flush => refuse(Errno::NOSYS),
            Operation::Fsync(arg) | Operation::Fsyncdir(arg) => self.fsync(node, &arg),
            Operation::Opendir(_) => self.opendir(body),
            Operation::Readdir(arg) => self.readdir(node, &arg, body),
            Operation::Readdirplus(arg) => self.readdirplus(node, &arg, body),
            Operation::Releasedir(_) => Ok(()),
            Operation::Statfs => self.statfs(node, body),
            Operation::Syncfs => self.union.syncfs(),
            Operation::Setxattr { arg, name, value } => self.setxattr(node, &arg, name, value),
            Operation::Getxattr { size, name } => {
                xattr_reply(&self.union.getxattr(node, name)?, size, body)
            }
            Operation::Listxattr { size } => xattr_reply(&self.union.listxattr(node)?, size, body),
            Operation::Removexattr { name } => self.union.removexattr(node, name),
            // The kernel checks permissions (default_permissions).
            Operation::Access(_) => refuse(Errno::NOSYS),
            // Nothing here waits for anything that could be called off.
            Operation::Interrupt(_) | Operation::Destroy => Ok(()),
            Operation::Ioctl { arg, data } => self.ioctl(node, &arg, data, body),
            Operation::Fallocate(arg) => self.fallocate(header, &arg),
            Operation::Lseek(arg) => self.lseek(node, &arg, body),
            Operation::CopyFileRange { arg, wide } => {
                self.copy_file_range(header, &arg, wide, body)
            }
            Operation::Other(_) => refuse(Errno::NOSYS),
        }
    }
}

/// A value, or its length when that is what was asked for (size 0). Errors: ERANGE for a value that is longer.
fn xattr_reply(value: &[u8], size: u32, body: &mut Body<'_>) -> Result<()> {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        body.put(&crate::fuse::proto::wire::GetxattrOut {
            size: length,
            padding: 0,
        })?;
    } else if length > size {
        return refuse(Errno::RANGE);
    } else {
        body.bytes(value)?;
    }
    Ok(())
}

fn refuse<T>(errno: Errno) -> Result<T> {
    Err(errno.into())
}
