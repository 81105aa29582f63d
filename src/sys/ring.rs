//! One entry of FUSE over io_uring: a ring of its own, its buffers, and whose turn it is to use
//! them.
//!
//! An entry is a pair of buffers in which the kernel puts a request and from which it takes the
//! reply. They are the kernel's from [`Ring::register`] or [`Arrived::commit`] until [`Ring::wait`]
//! returns. In between they are ours, and exactly then an [`Arrived`] exists: references to the
//! buffers live no longer than that.
//!
//! Request and reply use the same payload buffer. A short payload of a request (names) is moved out
//! of the way of the reply; for a long one (data to write) the reply, which is short then, is
//! written aside and moved in afterwards. So large data is never copied in either direction.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry128;
use io_uring::{EnterFlags, IoUring, cqueue, opcode, types};

use super::mapping::Mapping;
pub(crate) use super::ring_layout::Parts;
use super::ring_layout::{
    COMMIT_AND_FETCH, COPIED, Control, OutHeader, PAYLOAD_AT, REGISTER, ReqHeader, SIDE, SIDE_AT,
    command,
};

/// What the kernel says of the entry.
const ENTRY: u64 = 1;
/// What it says of the descriptor that makes the thread stop.
const STOP: u64 = 2;
/// The smallest payload buffer that the kernel takes (`FUSE_MIN_READ_BUFFER`).
const LEAST_PAYLOAD: usize = 8192;
const _: () = assert!(SIDE <= LEAST_PAYLOAD);
/// Errnos below this one may go into a reply; the kernel refuses others and keeps the caller
/// waiting for nothing.
const ERRNO_END: i32 = 512;

/// A ring with one entry, for the thread that made it.
pub(crate) struct Ring {
    uring: IoUring<Entry128, cqueue::Entry>,
    /// A [`Control`], the side area and the payload. An option so that `drop` can leak it.
    memory: Option<Mapping>,
    /// Its first byte.
    base: NonNull<u8>,
    /// Bytes of the payload.
    payload: usize,
    /// The queue it was registered on.
    queue: u16,
    /// Whether the kernel knows the device as registered file 0.
    has_device: bool,
    /// Whether the kernel may use the memory.
    lent: bool,
    /// A completion that was read but not yet acted upon.
    taken: Option<(u64, i32)>,
    /// The argument of io_uring_enter(2) when it waits.
    flags: EnterFlags,
    /// Kept open for as long as the kernel looks at it.
    stop: Option<Arc<OwnedFd>>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("queue", &self.queue)
            .field("lent", &self.lent)
            .finish_non_exhaustive()
    }
}

/// Why no request came.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The connection has ended: unmounted or aborted.
    Ended,
    /// The descriptor given to [`Ring::watch`] became readable.
    Stopped,
    /// The kernel refused the last reply and dropped the entry, which can be registered again.
    Refused(io::Error),
    /// The ring itself does not work any more.
    Broken(io::Error),
}

impl Ring {
    /// A ring with a payload buffer of `payload` bytes, and no less than the kernel's least, 8 KiB.
    /// It must have room for the connection's `max_write` and `max_pages` pages, else registering
    /// it fails. Only the calling thread can use it.
    ///
    /// # Errors
    /// EPERM (`kernel.io_uring_disabled`, seccomp), ENOSYS, ENOMEM, EMFILE.
    pub(crate) fn new(payload: usize) -> io::Result<Self> {
        let payload = payload.max(LEAST_PAYLOAD);
        let len = payload
            .checked_add(PAYLOAD_AT)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let memory = Mapping::new(len)?;
        let uring = new_uring()?;
        let mut flags = EnterFlags::GETEVENTS;
        if uring.params().is_feature_no_iowait() {
            // An idle mount is not a disk that a process waits for (top(1), "wa").
            flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Self {
            uring,
            base: memory.start(),
            memory: Some(memory),
            payload,
            queue: 0,
            has_device: false,
            lent: false,
            taken: None,
            flags,
            stop: None,
        })
    }

    /// Lends the entry to queue `queue` of the connection behind `device`, whose INIT has been
    /// answered. The ring keeps the device open until it is dropped.
    ///
    /// # Errors
    /// EOPNOTSUPP (`enable_uring` is off), EINVAL (no such queue, or the payload is too small),
    /// ENOTCONN, ECONNABORTED, ENOMEM; EBUSY when it is lent already. Unless the connection uses
    /// io_uring already, the kernel then sends its requests to the device.
    pub(crate) fn register(&mut self, device: BorrowedFd<'_>, queue: u16) -> io::Result<()> {
        if self.lent {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        if !self.has_device {
            self.uring
                .submitter()
                .register_files(&[device.as_raw_fd()])?;
            self.has_device = true;
        }
        self.queue = queue;
        let control = self.control();
        // SAFETY: the control page is ours while it is not lent; both parts lie in the same
        // mapping.
        let parts = unsafe {
            let parts = &raw mut (*control).parts;
            parts.write([
                libc::iovec {
                    iov_base: control.cast(),
                    iov_len: size_of::<ReqHeader>(),
                },
                libc::iovec {
                    iov_base: self.base.as_ptr().add(PAYLOAD_AT).cast(),
                    iov_len: self.payload,
                },
            ]);
            parts.cast_const().cast()
        };
        self.lend(command(REGISTER, 0, queue, parts))?;
        self.submit()?;
        // A refusal is found while submitting.
        self.taken = self.completion();
        if let Some((ENTRY, result)) = self.taken
            && result < 0
        {
            self.taken = None;
            self.lent = false;
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(())
    }

    /// From now on [`Ring::wait`] ends with [`Lost::Stopped`] when `stop` becomes readable.
    ///
    /// # Errors
    /// Those of io_uring_enter(2).
    pub(crate) fn watch(&mut self, stop: Arc<OwnedFd>) -> io::Result<()> {
        let readable = u32::from(libc::POLLIN.unsigned_abs());
        let poll = opcode::PollAdd::new(types::Fd(stop.as_fd().as_raw_fd()), readable).build();
        self.stop = Some(stop);
        self.push(Entry128::from(poll).user_data(STOP))?;
        self.submit()
    }

    /// Sends the reply that was committed, if any, and waits for a request.
    ///
    /// # Errors
    /// Why there will be none.
    pub(crate) fn wait(&mut self) -> Result<Arrived<'_>, Lost> {
        loop {
            match self.taken.take().or_else(|| self.completion()) {
                Some((ENTRY, result)) => {
                    self.lent = false;
                    return match -result {
                        0 => Ok(Arrived::new(self)),
                        libc::ENOTCONN | libc::ECONNABORTED | libc::ENODEV => Err(Lost::Ended),
                        errno => Err(Lost::Refused(io::Error::from_raw_os_error(errno))),
                    };
                }
                Some(_) => return Err(Lost::Stopped),
                None if !self.lent => {
                    return Err(Lost::Broken(io::Error::from_raw_os_error(libc::EINVAL)));
                }
                None => {
                    self.enter(1, self.flags).map_err(Lost::Broken)?;
                    self.taken = self.completion();
                    if self.taken.is_none() {
                        self.release();
                        super::idle::release_own_memory();
                    }
                }
            }
        }
    }

    /// Releases the payload's memory when the wait was interrupted: there is nothing to do. The
    /// kernel copies a request only while this thread is inside io_uring_enter(2)
    /// (`setup_defer_taskrun`), and has taken the last reply when its command was submitted.
    fn release(&mut self) {
        if self.uring.submission().is_empty()
            && let Some(memory) = &mut self.memory
        {
            memory.release(PAYLOAD_AT);
        }
    }

    /// The first page. Only to be used while it is not lent.
    fn control(&self) -> *mut Control {
        self.base.as_ptr().cast()
    }

    /// Queues a command after which the memory is the kernel's.
    fn lend(&mut self, command: Entry128) -> io::Result<()> {
        self.lent = true;
        self.push(command.user_data(ENTRY))
    }

    fn push(&mut self, entry: Entry128) -> io::Result<()> {
        // SAFETY: what the entry points to lies in `memory`, which is unmapped only while it is not
        // lent, or is the descriptor in `stop`.
        unsafe { self.uring.submission().push(&entry) }
            .map_err(|_full| io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Submits to the kernel what was pushed, without waiting for anything to happen.
    fn submit(&mut self) -> io::Result<()> {
        while !self.uring.submission().is_empty() {
            self.enter(0, EnterFlags::empty())?;
        }
        Ok(())
    }

    /// io_uring_enter(2) with what was pushed, until `completions` are there or a signal came.
    fn enter(&mut self, completions: u32, flags: EnterFlags) -> io::Result<()> {
        let pushed = u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX);
        // SAFETY: what was pushed is valid, see `push`; there is no further argument.
        let entered = unsafe {
            self.uring
                .submitter()
                .enter::<libc::sigset_t>(pushed, completions, flags.bits(), None)
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => Ok(()),
                // No memory for the moment; what was pushed is still there.
                Some(libc::EAGAIN | libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn completion(&mut self) -> Option<(u64, i32)> {
        let entry = self.uring.completion().next()?;
        Some((entry.user_data(), entry.result()))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring takes back what was lent, but not before it returns.
        if self.lent
            && let Some(memory) = self.memory.take()
        {
            memory.leak();
        }
    }
}

fn new_uring() -> io::Result<IoUring<Entry128, cqueue::Entry>> {
    // The entry and the stop descriptor.
    const SUBMISSIONS: u32 = 2;
    let mut builder = IoUring::<Entry128, cqueue::Entry>::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun();
    builder.build(SUBMISSIONS)
}

/// A request in an entry's buffers.
#[derive(Debug)]
pub(crate) struct Arrived<'r> {
    ring: &'r mut Ring,
    /// Bytes of its payload.
    len: usize,
}

impl<'r> Arrived<'r> {
    fn new(ring: &'r mut Ring) -> Self {
        // SAFETY: the entry is not lent, so the kernel does not write to it; any bits are a valid
        // header.
        let entry = unsafe { (&raw const (*ring.control()).header.entry).read() };
        let len = usize::try_from(entry.payload_size).unwrap_or(usize::MAX);
        let len = len.min(ring.payload);
        let arrived = Self { ring, len };
        if arrived.is_moved() {
            let base = arrived.ring.base.as_ptr();
            // SAFETY: both ranges lie in the mapping, do not overlap, and no other thread uses
            // them.
            unsafe {
                std::ptr::copy_nonoverlapping(base.add(PAYLOAD_AT), base.add(SIDE_AT), len);
            }
        }
        arrived
    }

    /// Whether the request's payload is in the side area and the reply goes to the payload, or the
    /// other way round.
    fn is_moved(&self) -> bool {
        self.len <= COPIED
    }

    /// The request, and where its reply goes.
    pub(crate) fn parts(&mut self) -> Parts<'_> {
        let base = self.ring.base;
        let payload = (PAYLOAD_AT, self.ring.payload);
        let (rest, out) = if self.is_moved() {
            ((SIDE_AT, self.len), payload)
        } else {
            ((PAYLOAD_AT, self.len), (SIDE_AT, SIDE))
        };
        // SAFETY: the four ranges lie in the mapping and do not overlap; it is initialised (zeroed
        // by mmap), and neither the kernel (the entry is not lent) nor another thread (we hold the
        // ring) changes them meanwhile.
        unsafe {
            Parts {
                header: base.cast().as_ref(),
                fixed: base
                    .add(std::mem::offset_of!(ReqHeader, op_in))
                    .cast()
                    .as_ref(),
                rest: std::slice::from_raw_parts(base.add(rest.0).as_ptr(), rest.1),
                out: std::slice::from_raw_parts_mut(base.add(out.0).as_ptr(), out.1),
            }
        }
    }

    /// Makes the first `len` bytes of [`Parts::out`] the reply, or the errno `error` unless it
    /// is 0. The next [`Ring::wait`] sends it. An impossible reply is sent as EIO.
    ///
    /// # Errors
    /// None that could happen while a ring has one entry.
    pub(crate) fn commit(self, error: i32, len: usize) -> io::Result<()> {
        let room = if self.is_moved() {
            self.ring.payload
        } else {
            SIDE
        };
        let (error, len) = match error {
            0 if len <= room => (0, len),
            1..ERRNO_END => (error, 0),
            _ => (libc::EIO, 0),
        };
        let base = self.ring.base.as_ptr();
        if !self.is_moved() {
            // SAFETY: both ranges lie in the mapping (`len` is at most SIDE, and the request was
            // longer), do not overlap, and no other thread uses them.
            unsafe {
                std::ptr::copy_nonoverlapping(base.add(SIDE_AT), base.add(PAYLOAD_AT), len);
            }
        }
        let size = u32::try_from(len).unwrap_or(0);
        let header = size_of::<OutHeader>();
        let control = self.ring.control();
        // SAFETY: the control page is ours until the command below is submitted; `unique` is read
        // from where the kernel put it before the reply's header overwrites it.
        let commit_id = unsafe {
            let unique = base.add(8).cast::<u64>().read();
            base.cast::<OutHeader>().write(OutHeader {
                len: size.saturating_add(u32::try_from(header).unwrap_or(0)),
                error: -error,
                unique,
            });
            (&raw mut (*control).header.entry.payload_size).write(size);
            (&raw const (*control).header.entry.commit_id).read()
        };
        let queue = self.ring.queue;
        self.ring.lend(command(
            COMMIT_AND_FETCH,
            commit_id,
            queue,
            std::ptr::null(),
        ))
    }
}
