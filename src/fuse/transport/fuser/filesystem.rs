//! What fuser hands over, decoded: one method for each request.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::XattrFlags;

use super::adapter::Adapter;
use super::answer::{send_statfs, send_xattr};
use super::convert::set_time;
use super::shared::{Call, requester};
use crate::fuse::control;
use crate::fuse::proto::reply::device;
use crate::fuse::serve::{AclChange, NARROW_COPY, Rename, Write, WriteKind, open_file};
use crate::layer::stat::Kind;
use crate::union::{Caller, New, NodeId, Result, SetAttr, Union};

/// Largest reply to a read; the kernel asks for no more than was agreed at INIT.
const MAX_READ: usize = 1 << 20;

thread_local! {
    /// Each thread reads file data into one buffer, again and again.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    /// Makes an object and replies with its entry.
    fn make(&self, call: Call<'_>, caller: &Caller<'_>, new: &New<'_>, reply: ReplyEntry) {
        let name = call.entry.unwrap_or_default().as_bytes();
        self.shared.answer_on(
            call,
            reply,
            |union, parent| union.make(parent, name, new, caller),
            |reply, entry| self.shared.send_entry(reply, &entry),
        );
    }

    /// Replies with nothing but that it was done.
    fn answer_empty(
        &self,
        call: Call<'_>,
        reply: ReplyEmpty,
        operation: impl FnOnce(&Union, NodeId) -> Result<()>,
    ) {
        self.shared
            .answer_on(call, reply, operation, |reply, ()| reply.ok());
    }
}

/// For whom something is made.
fn caller(req: &Request, umask: u32) -> Caller<'static> {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
        umask,
        security: &[],
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.negotiate(config);
        Ok(())
    }

    fn destroy(&mut self) {
        self.end();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (shared, union) = (&self.shared, self.union());
        shared.answer(
            Call::in_dir("lookup", parent, name),
            reply,
            || {
                let parent = match (shared.node(parent), name.as_bytes()) {
                    // By a handle: the kernel may have forgotten it.
                    (Err(stale), b".") => union.forgotten(parent.0).ok_or(stale)?,
                    (known, _) => known?,
                };
                let found = union.lookup(parent, name.as_bytes())?;
                Ok(found.ok_or_else(|| union.names_validity(parent)))
            },
            |reply, found| match found {
                Ok(entry) => shared.send_entry(reply, &entry),
                Err(validity) => shared.send_absent(reply, validity),
            },
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let forgotten = catch_unwind(AssertUnwindSafe(|| {
            if let Some(node) = self.shared.ids.forget(ino.0, nlookup) {
                self.union().forget(node, nlookup);
            }
        }));
        if forgotten.is_err() {
            log::error!("forget: panicked");
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.shared.answer_on(
            Call::on("getattr", ino),
            reply,
            Union::getattr,
            |reply, value| self.shared.send_attr(reply, &value),
        );
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let requester = requester(req);
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: set_time(atime),
            mtime: set_time(mtime),
            drop_setid: size.is_some() && !requester.may_keep_setid(),
        };
        let shared = Arc::clone(&self.shared);
        let work = move || {
            shared.answer_on(
                Call::on("setattr", ino),
                reply,
                |_, node| shared.setid_rules(requester).setattr(node, &set),
                |reply, value| shared.send_attr(reply, &value),
            );
        };
        if size == Some(0) {
            work();
        } else {
            self.run_copying(ino, work);
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.shared.answer_on(
            Call::on("readlink", ino),
            reply,
            Union::readlink,
            |reply, target| reply.data(&target),
        );
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = New::Node {
            kind: Kind::from_mode(mode),
            mode,
            rdev: device(rdev),
        };
        let call = Call::in_dir("mknod", parent, name);
        self.make(call, &caller(req, umask), &new, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let call = Call::in_dir("mkdir", parent, name);
        self.make(call, &caller(req, umask), &New::Dir { mode }, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let call = Call::in_dir("unlink", parent, name);
        self.answer_empty(call, reply, |union, parent| {
            union.unlink(parent, name.as_bytes())
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let call = Call::in_dir("rmdir", parent, name);
        self.answer_empty(call, reply, |union, parent| {
            union.rmdir(parent, name.as_bytes())
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let new = New::Symlink {
            target: target.as_os_str().as_bytes(),
        };
        let call = Call::in_dir("symlink", parent, link_name);
        self.make(call, &caller(req, 0), &new, reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(rename) = Rename::from_flags(flags.bits()) else {
            return reply.error(Errno::EINVAL);
        };
        let (shared, caller) = (Arc::clone(&self.shared), caller(req, 0));
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.workers.run(move || {
            shared.answer_on(
                Call::in_dir("rename", parent, &name),
                reply,
                |union, parent| {
                    let from = (parent, name.as_bytes());
                    let to = (shared.node(newparent)?, newname.as_bytes());
                    rename.run(union, from, to, &caller)
                },
                |reply, ()| reply.ok(),
            );
        });
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (shared, newname) = (Arc::clone(&self.shared), newname.to_owned());
        self.run_copying(ino, move || {
            shared.answer_on(
                Call::in_dir("link", newparent, &newname),
                reply,
                |union, parent| union.link(shared.node(ino)?, parent, newname.as_bytes()),
                |reply, entry| shared.send_entry(reply, &entry),
            );
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let agreed = self.shared.agreed();
        if agreed.zero_message_open {
            return reply.error(Errno::ENOSYS);
        }
        self.shared.answer_on(
            Call::on("open", ino),
            reply,
            |union, node| open_file(union, &agreed, node),
            |reply, flags| {
                let flags = FopenFlags::from_bits_retain(flags);
                reply.opened(FileHandle(0), flags);
            },
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                buffer.resize(MAX_READ, 0);
            }
            let size = usize::try_from(size).unwrap_or(MAX_READ).min(MAX_READ);
            // Both halves need the buffer, one after the other.
            let buffer = RefCell::new(&mut buffer[..size]);
            self.shared.answer_on(
                Call::on("read", ino),
                reply,
                |union, node| union.read(node, offset, &mut buffer.borrow_mut()),
                |reply, count| reply.data(&buffer.borrow()[..count]),
            );
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = flags.0 & libc::O_APPEND != 0;
        let writeback = self.shared.agreed().writeback;
        let write = Write {
            offset,
            data,
            kind: WriteKind::of(from_cache, writeback, append),
            kill_setid: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        let requester = requester(req);
        if !self.takes_long(ino) {
            return self.shared.write(ino, requester, &write, reply);
        }
        let (shared, data) = (Arc::clone(&self.shared), data.to_vec());
        let Write {
            kind, kill_setid, ..
        } = write;
        self.workers.run(move || {
            let write = Write {
                offset,
                data: &data,
                kind,
                kill_setid,
            };
            shared.write(ino, requester, &write, reply);
        });
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // The kernel has written everything back before it asks, and nothing is kept here: ENOSYS
        // ends the asking.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let shared = Arc::clone(&self.shared);
        self.workers.run(move || {
            shared.answer_on(
                Call::on("fsync", ino),
                reply,
                |union, node| union.fsync(node, datasync),
                |reply, ()| reply.ok(),
            );
        });
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.shared.agreed().zero_message_opendir {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::empty());
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.shared.list(ino, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.shared.list_with_attributes(ino, offset, reply);
    }

    fn fsyncdir(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.shared.answer_on(
            Call::on("statfs", ino),
            reply,
            Union::statfs,
            |reply, disk| send_statfs(reply, &disk),
        );
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let (shared, requester) = (Arc::clone(&self.shared), requester(req));
        let (name, value) = (name.to_owned(), value.to_vec());
        self.run_copying(ino, move || {
            shared.answer_on(
                Call::on("setxattr", ino),
                reply,
                |_, node| {
                    let (rules, acl) = (shared.setid_rules(requester), AclChange::Undecided);
                    rules.setxattr(node, name.as_bytes(), &value, flags, acl)
                },
                |reply, ()| reply.ok(),
            );
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.shared.answer_on(
            Call::on("getxattr", ino),
            reply,
            |union, node| union.getxattr(node, name.as_bytes()),
            |reply, value| send_xattr(reply, &value, size),
        );
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.shared.answer_on(
            Call::on("listxattr", ino),
            reply,
            Union::listxattr,
            |reply, names| send_xattr(reply, &names, size),
        );
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.run_copying(ino, move || {
            shared.answer_on(
                Call::on("removexattr", ino),
                reply,
                |union, node| union.removexattr(node, name.as_bytes()),
                |reply, ()| reply.ok(),
            );
        });
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions (default_permissions).
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        if self.shared.agreed().zero_message_open {
            // The kernel goes on with MKNOD and opens the file by itself.
            return reply.error(Errno::ENOSYS);
        }
        let new = New::Node {
            kind: Kind::File,
            mode,
            rdev: 0,
        };
        self.shared.answer_on(
            Call::in_dir("create", parent, name),
            reply,
            |union, parent| union.make(parent, name.as_bytes(), &new, &caller(req, umask)),
            |reply, entry| self.shared.send_created(reply, &entry),
        );
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let shared = Arc::clone(&self.shared);
        match cmd {
            control::PING => reply.ioctl(0, &[]),
            control::SYNC => self.workers.run(move || {
                shared.answer(
                    Call::on("ioctl", ino),
                    reply,
                    || shared.union.syncfs(),
                    |reply, ()| reply.ioctl(0, &[]),
                );
            }),
            _ => reply.error(Errno::ENOTTY),
        }
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Regular files are always ready; ENOSYS lets the kernel say so by itself from now on.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (shared, requester) = (Arc::clone(&self.shared), requester(req));
        self.workers.run(move || {
            shared.answer_on(
                Call::on("fallocate", ino),
                reply,
                |union, node| {
                    shared.setid_rules(requester).before_content_changes(node)?;
                    union.fallocate(node, mode.cast_unsigned(), offset, length)
                },
                |reply, ()| reply.ok(),
            );
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let hole = match whence {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        self.shared.answer_on(
            Call::on("lseek", ino),
            reply,
            |union, node| union.seek(node, offset, hole),
            |reply, position| reply.offset(i64::try_from(position).unwrap_or(i64::MAX)),
        );
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (shared, requester) = (Arc::clone(&self.shared), requester(req));
        let len = usize::try_from(len.min(NARROW_COPY)).unwrap_or(usize::MAX);
        self.workers.run(move || {
            shared.answer_on(
                Call::on("copy_file_range", ino_out),
                reply,
                |union, to| {
                    let from = shared.node(ino_in)?;
                    shared.setid_rules(requester).before_content_changes(to)?;
                    union.copy_file_range(from, offset_in, to, offset_out, len)
                },
                |reply, count| reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            );
        });
    }
}
