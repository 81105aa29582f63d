//! The portable transport: fuser's requests over the union's operations.
//!
//! This only decodes, calls and replies. What fuser 0.18 cannot carry is made up for beside it: node ids and
//! `st_ino` in [`super::node_ids`], times before 1970 in [`super::convert`].

mod answer;
mod convert;
mod list;
mod node_ids;
mod shared;
mod workers;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::XattrFlags;

use crate::fuse::control;
use crate::fuse::init::{Agreed, Road, negotiate};
use crate::fuse::proto::reply::device;
use crate::fuse::serve::privilege::lacks_fsetid;
use crate::fuse::serve::sync_at_end;
use crate::fuse::settings::Settings;
use crate::layer::stat::Kind;
use crate::layer::upper::SetTime;
use crate::union::{Belief, Caller, Entry, New, NodeId, RenameMode, Result, SetAttr, Union};
use answer::{absent, answer, send_xattr};
use convert::{attr, set_time};
use node_ids::{NodeIds, Wire};
use shared::Shared;
use workers::Workers;

/// A copy-up of more bytes than this is done by a thread of its own.
const QUICK_COPY: u64 = 256 * 1024;
/// Largest reply to a read; the kernel asks for no more than was agreed at INIT.
const MAX_READ: usize = 1 << 20;

thread_local! {
    /// Each thread reads file data into one buffer, again and again.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system that fuser serves.
#[derive(Debug)]
pub(in crate::fuse) struct Adapter {
    pub(super) shared: Arc<Shared>,
    settings: Settings,
    agreed: Agreed,
    workers: Workers,
    /// The session has begun; before that, a failure to mount drops the adapter too.
    serving: Arc<AtomicBool>,
}

impl Adapter {
    pub(in crate::fuse) fn new(union: Arc<Union>, settings: Settings, threads: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                union,
                ids: NodeIds::new(),
                writeback: AtomicBool::new(false),
                connection: OnceLock::new(),
            }),
            settings,
            agreed: Agreed::default(),
            workers: Workers::new(threads),
            serving: Arc::default(),
        }
    }

    /// To be set when the session begins.
    pub(in crate::fuse) fn serving(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.serving)
    }

    /// What requests work on.
    pub(in crate::fuse) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) fn union(&self) -> &Union {
        &self.shared.union
    }

    pub(super) fn node(&self, wire: INodeNo) -> Result<NodeId> {
        self.shared.node(wire)
    }

    fn send_entry(&self, reply: ReplyEntry, entry: &Entry) {
        send_entry(&self.shared, self.agreed, reply, entry);
    }

    pub(super) fn attr_lifetime(&self, wire: Wire, belief: Belief) -> Duration {
        attr_lifetime(self.agreed, wire, belief)
    }

    /// How long an entry of a listing holds: fuser has one lifetime for its name and its attributes.
    pub(super) fn listed_lifetime(&self, wire: Wire, belief: Belief) -> Duration {
        self.attr_lifetime(wire, belief)
            .min(self.agreed.name_lifetime(belief))
    }

    fn make(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        umask: u32,
        new: &New<'_>,
    ) -> Result<Entry> {
        let caller = Caller {
            uid: req.uid(),
            gid: req.gid(),
            umask,
            security: &[],
        };
        self.union()
            .make(self.node(parent)?, name.as_bytes(), new, &caller)
    }

    /// Does what copies the node up: here, or in another thread when that takes long.
    fn run(&self, ino: INodeNo, work: impl FnOnce() + Send + 'static) {
        if self.takes_long(ino) {
            self.workers.run(work);
        } else {
            work();
        }
    }

    /// Whether a change of this node copies so much up that it must not keep this thread.
    fn takes_long(&self, wire: INodeNo) -> bool {
        self.node(wire)
            .is_ok_and(|node| self.union().copies_more_than(node, QUICK_COPY))
    }
}

fn send_entry(shared: &Shared, agreed: Agreed, reply: ReplyEntry, entry: &Entry) {
    let wire = shared.ids.tell(entry);
    reply.entry_with_ttls(
        &attr_lifetime(agreed, wire, entry.attr.belief),
        &agreed.name_lifetime(entry.attr.belief),
        &attr(&entry.attr, wire.id),
        generation(entry),
    );
}

/// How long attributes hold that are sent with a node id.
fn attr_lifetime(agreed: Agreed, wire: Wire, belief: Belief) -> Duration {
    if wire.is_st_ino {
        agreed.attr_lifetime(belief)
    } else {
        Duration::ZERO
    }
}

/// Whether a change of content by this caller clears setuid and setgid. The kernel says so for writes; for the
/// rest its process is asked.
fn loses_setid(req: &Request) -> bool {
    req.uid() != 0 || lacks_fsetid(req.pid())
}

/// Tells nodes apart that go by one number one after the other.
pub(super) fn generation(entry: &Entry) -> Generation {
    Generation(entry.node.0)
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.agreed = negotiate(config, &self.shared.union, &self.settings, Road::Fuser);
        log::debug!("agreed: {:?}", self.agreed);
        let writeback = &self.shared.writeback;
        writeback.store(self.agreed.writeback, Ordering::Relaxed);
        if self.agreed.writeback {
            self.shared.union.leave_mtime_to_kernel();
        }
        Ok(())
    }

    fn destroy(&mut self) {
        let (open, limit) = self.shared.union.descriptors();
        log::debug!(
            "unmounted: {} inodes known, {open} of {limit} descriptors cached",
            self.shared.union.inodes()
        );
        // fuser 0.18 unmounts whatever is at the mount point when its session is dropped, once the session is
        // over: by then that may be somebody else's mount (its `is_mounted` reads POLLERR the wrong way round).
        // The mount is gone and every request answered, so the process ends here.
        if self.serving.load(Ordering::Acquire) {
            self.union().let_go_of_lowers();
            self.union().let_go_of_work();
            self.settings.held.release();
            sync_at_end(self.union());
            crate::sys::daemon::exit_now(0);
        }
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer(
            "lookup",
            reply,
            || {
                let parent = match (self.node(parent), name.as_bytes()) {
                    // By a handle: the kernel may have forgotten it.
                    (Err(stale), b".") => self.union().forgotten(parent.0).ok_or(stale)?,
                    (known, _) => known?,
                };
                let found = self.union().lookup(parent, name.as_bytes())?;
                Ok(found.ok_or_else(|| self.union().belief_in_names(parent)))
            },
            |reply, found| match found {
                Ok(entry) => self.send_entry(reply, &entry),
                // Node 0 with a lifetime: the kernel remembers that there is nothing.
                Err(belief) => {
                    let lifetime = self.agreed.name_lifetime(belief);
                    reply.entry(&lifetime, &absent(), Generation(0));
                }
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
        answer(
            "getattr",
            reply,
            || self.union().getattr(self.node(ino)?),
            |reply, value| {
                let lifetime = self.agreed.attr_lifetime(value.belief);
                reply.attr(&lifetime, &attr(&value, value.ino));
            },
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
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: set_time(atime),
            mtime: set_time(mtime),
            drop_setid: size.is_some() && loses_setid(req),
        };
        let pid = req.pid();
        let agreed = self.agreed;
        let shared = Arc::clone(&self.shared);
        let work = move || {
            answer(
                "setattr",
                reply,
                || {
                    let node = shared.node(ino)?;
                    if set.mode.or(set.uid).or(set.gid).is_none()
                        && set.size.is_none()
                        && (set.atime, set.mtime) == (SetTime::Keep, SetTime::Keep)
                    {
                        return shared.union.getattr(node);
                    }
                    shared.setattr(node, &set, pid)
                },
                |reply, value| {
                    let lifetime = agreed.attr_lifetime(value.belief);
                    reply.attr(&lifetime, &attr(&value, value.ino));
                },
            );
        };
        if size != Some(0) && self.takes_long(ino) {
            self.workers.run(work);
        } else {
            work();
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        answer(
            "readlink",
            reply,
            || self.union().readlink(self.node(ino)?),
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
        answer(
            "mknod",
            reply,
            || self.make(req, parent, name, umask, &new),
            |reply, entry| self.send_entry(reply, &entry),
        );
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
        answer(
            "mkdir",
            reply,
            || self.make(req, parent, name, umask, &New::Dir { mode }),
            |reply, entry| self.send_entry(reply, &entry),
        );
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(
            "unlink",
            reply,
            || self.union().unlink(self.node(parent)?, name.as_bytes()),
            |reply, ()| reply.ok(),
        );
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(
            "rmdir",
            reply,
            || self.union().rmdir(self.node(parent)?, name.as_bytes()),
            |reply, ()| reply.ok(),
        );
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
        answer(
            "symlink",
            reply,
            || self.make(req, parent, link_name, 0, &new),
            |reply, entry| self.send_entry(reply, &entry),
        );
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
        let leaves_device = flags.contains(RenameFlags::RENAME_WHITEOUT);
        let mode = match flags & !RenameFlags::RENAME_WHITEOUT {
            f if f.is_empty() => RenameMode::Replace,
            f if f == RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            f if f == RenameFlags::RENAME_EXCHANGE && !leaves_device => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let caller = Caller {
            uid: req.uid(),
            gid: req.gid(),
            umask: 0,
            security: &[],
        };
        let shared = Arc::clone(&self.shared);
        let (name, newname) = (name.to_owned(), newname.to_owned());
        let work = move || {
            answer(
                "rename",
                reply,
                || {
                    let from = (shared.node(parent)?, name.as_bytes());
                    let to = (shared.node(newparent)?, newname.as_bytes());
                    if leaves_device {
                        return shared.union.rename_leaving_device(from, to, mode, &caller);
                    }
                    shared.union.rename(from.0, from.1, to.0, to.1, mode)
                },
                |reply, ()| reply.ok(),
            );
        };
        self.workers.run(work);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (shared, agreed, newname) = (Arc::clone(&self.shared), self.agreed, newname.to_owned());
        self.run(ino, move || {
            answer(
                "link",
                reply,
                || {
                    let (node, parent) = (shared.node(ino)?, shared.node(newparent)?);
                    shared.union.link(node, parent, newname.as_bytes())
                },
                |reply, entry| send_entry(&shared, agreed, reply, &entry),
            );
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.agreed.zero_message_open {
            reply.error(Errno::ENOSYS);
            return;
        }
        answer(
            "open",
            reply,
            || {
                let node = self.node(ino)?;
                if self.union().may_change_below() {
                    // ESTALE for a file that was replaced in its layer: the kernel then looks its name up again.
                    self.union().getattr(node)?;
                }
                Ok(self.agreed.keeps_cache && !self.union().is_shared(node))
            },
            |reply, keeps| {
                let cached = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                let none = FopenFlags::empty();
                reply.opened(FileHandle(0), if keeps { cached } else { none });
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
            let buffer = &mut buffer[..size];
            // Both halves need the buffer, one after the other.
            let buffer = RefCell::new(buffer);
            answer(
                "read",
                reply,
                || {
                    let node = self.node(ino)?;
                    self.union().read(node, offset, &mut buffer.borrow_mut())
                },
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
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let pid = req.pid();
        if self.takes_long(ino) {
            let (shared, data) = (Arc::clone(&self.shared), data.to_vec());
            self.workers.run(move || {
                answer(
                    "write",
                    reply,
                    || shared.write(ino, offset, &data, write_flags, flags, pid),
                    |reply, ()| reply.written(written),
                );
            });
            return;
        }
        answer(
            "write",
            reply,
            || {
                self.shared
                    .write(ino, offset, data, write_flags, flags, pid)
            },
            |reply, ()| reply.written(written),
        );
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // The kernel has written everything back before it asks, and nothing is kept here: ENOSYS ends the asking.
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
            answer(
                "fsync",
                reply,
                || shared.union.fsync(shared.node(ino)?, datasync),
                |reply, ()| reply.ok(),
            );
        });
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.agreed.zero_message_opendir {
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
        self.list(ino, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list_with_attributes(ino, offset, reply);
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
        answer(
            "statfs",
            reply,
            || self.union().statfs(self.node(ino)?),
            |reply, disk| {
                let size = |value: u64| u32::try_from(value).unwrap_or(4096);
                reply.statfs(
                    disk.f_blocks,
                    disk.f_bfree,
                    disk.f_bavail,
                    disk.f_files,
                    disk.f_ffree,
                    size(disk.f_bsize),
                    255,
                    size(disk.f_frsize),
                );
            },
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
        let shared = Arc::clone(&self.shared);
        let (name, value) = (name.to_owned(), value.to_vec());
        let pid = req.pid();
        self.run(ino, move || {
            answer(
                "setxattr",
                reply,
                || {
                    let node = shared.node(ino)?;
                    shared.setxattr(node, name.as_bytes(), &value, flags, pid)
                },
                |reply, ()| reply.ok(),
            );
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer(
            "getxattr",
            reply,
            || self.union().getxattr(self.node(ino)?, name.as_bytes()),
            |reply, value| send_xattr(reply, &value, size),
        );
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer(
            "listxattr",
            reply,
            || self.union().listxattr(self.node(ino)?),
            |reply, names| send_xattr(reply, &names, size),
        );
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.run(ino, move || {
            answer(
                "removexattr",
                reply,
                || {
                    let node = shared.node(ino)?;
                    shared.union.removexattr(node, name.as_bytes())
                },
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
        if self.agreed.zero_message_open {
            // The kernel goes on with MKNOD and opens the file by itself.
            return reply.error(Errno::ENOSYS);
        }
        let new = New::Node {
            kind: Kind::File,
            mode,
            rdev: 0,
        };
        answer(
            "create",
            reply,
            || self.make(req, parent, name, umask, &new),
            |reply, entry| {
                let wire = self.shared.ids.tell(&entry);
                reply.created(
                    &self.attr_lifetime(wire, entry.attr.belief),
                    &attr(&entry.attr, wire.id),
                    generation(&entry),
                    FileHandle(0),
                    FopenFlags::empty(),
                );
            },
        );
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
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
                answer(
                    "ioctl",
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
        let shared = Arc::clone(&self.shared);
        let (drop_setid, pid) = (loses_setid(req), req.pid());
        self.workers.run(move || {
            answer(
                "fallocate",
                reply,
                || {
                    let node = shared.node(ino)?;
                    if drop_setid {
                        shared.clear_setid(node, pid)?;
                    }
                    shared
                        .union
                        .fallocate(node, mode.cast_unsigned(), offset, length)
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
        answer(
            "lseek",
            reply,
            || self.union().seek(self.node(ino)?, offset, hole),
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
        let shared = Arc::clone(&self.shared);
        let (drop_setid, pid) = (loses_setid(req), req.pid());
        self.workers.run(move || {
            answer(
                "copy_file_range",
                reply,
                || {
                    let (from, to) = (shared.node(ino_in)?, shared.node(ino_out)?);
                    if drop_setid {
                        shared.clear_setid(to, pid)?;
                    }
                    // The reply has 32 bits for the length.
                    let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
                    shared
                        .union
                        .copy_file_range(from, offset_in, to, offset_out, len)
                },
                |reply, count| reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            );
        });
    }
}
