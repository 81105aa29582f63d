//! The bytes of files: reading, writing, space, sync.
//!
//! Everything is addressed by inode. The backing descriptor is opened when it is first needed and
//! stays in the bounded cache: the kernel does not say when a file is opened or closed.

use crate::union::copyup::copydata::write_all;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::layer::object::{SetTime, timestamps};
use crate::layer::stat::{BirthTime, Kind, Stat};
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{FileNode, FileState, Inode, Real};

/// Modes of fallocate(2) are passed on as they are.
fn fallocate_flags(mode: u32) -> FallocateFlags {
    FallocateFlags::from_bits_retain(mode)
}

/// Flags to open the data of an upper file for reading and writing.
const READ_WRITE: OFlags = OFlags::RDWR;

/// Runs a change of a file's data and puts its mtime back.
fn keeping_mtime<T>(
    fd: &OwnedFd,
    change: impl FnOnce() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    let before = Stat::of_fd(fd)?;
    let outcome = change()?;
    let times = timestamps(SetTime::Keep, SetTime::At(before.mtime));
    rustix::fs::futimens(fd, &times)?;
    Ok(outcome)
}

impl Union {
    /// The backing descriptor of a regular file: for reading, or for reading and writing once it is
    /// in the upper. `write` demands the latter and fails on a lower file (copy it up first).
    pub(in crate::union) fn data_fd(&self, inode: &Inode, write: bool) -> Result<Arc<OwnedFd>> {
        let Some(file) = inode.file() else {
            return fail(Errno::ISDIR);
        };
        if inode.kind != Kind::File {
            return fail(Errno::INVAL);
        }
        let state = lock(&file.state);
        let opened = match &state.real {
            _ if state.bytes.is_some() => {
                if write {
                    return fail(Errno::BADF);
                }
                file.data.get_or_open(|| Self::open_bytes(&state))
            }
            Real::Lower { dir, name } => {
                if write {
                    return fail(Errno::BADF);
                }
                file.data.get_or_open(|| {
                    let fd = dir.open_entry(name)?;
                    let known = inode.birth != BirthTime::UNKNOWN;
                    if known && !Stat::of_fd(&fd)?.birth().agrees(inode.birth) {
                        // Another file was put in its place.
                        return Err(Errno::STALE);
                    }
                    Ok(fd)
                })
            }
            Real::Upper { .. } | Real::Orphan(_) if inode.is_shared() => {
                self.open_in_volume(inode, file, &state, write)
            }
            Real::Upper { .. } | Real::Orphan(_) => {
                let open = || open_upper(&state, READ_WRITE).inspect(|fd| self.keep_atime(fd));
                match file.data.get_or_open(open) {
                    // A file that is being executed, that is immutable or append-only, or on a disk
                    // that became read-only, can still be read.
                    Err(Errno::TXTBSY | Errno::ROFS | Errno::ACCESS | Errno::PERM) if !write => {
                        open_upper(&state, OFlags::RDONLY).map(Arc::new)
                    }
                    other => other,
                }
            }
        };
        match opened {
            // Immutable or append-only: an answer for the caller, nothing is wrong with the disk.
            Err(Errno::PERM) => fail(Errno::PERM),
            other => other.context("open", b"."),
        }
    }

    /// The descriptor of a file of a volume, for everything that its disk allows: the modes there
    /// are not ours to change, not even for a moment. Errors: ESTALE for another file that took its
    /// place, and those of open(2).
    fn open_in_volume(
        &self,
        inode: &Inode,
        file: &FileNode,
        state: &FileState,
        write: bool,
    ) -> rustix::io::Result<Arc<OwnedFd>> {
        let read_only = self.volume_of(inode).is_some_and(|v| v.read_only);
        let open = |flags| {
            let object = self
                .object_of(inode, state)
                .map_err(|error| error.errno())?;
            object.open(flags).inspect(|fd| self.keep_atime(fd))
        };
        if read_only {
            return file.data.get_or_open(|| open(OFlags::RDONLY));
        }
        match file.data.get_or_open(|| open(READ_WRITE)) {
            Err(Errno::TXTBSY | Errno::ROFS | Errno::ACCESS | Errno::PERM) if !write => {
                open(OFlags::RDONLY).map(Arc::new)
            }
            other => other,
        }
    }

    /// A descriptor of an upper file that is not shared.
    pub(in crate::union) fn open_upper_data(
        &self,
        inode: &Inode,
        flags: OFlags,
    ) -> Result<OwnedFd> {
        let Some(state) = inode.lock_file() else {
            return fail(Errno::ISDIR);
        };
        if inode.is_shared() {
            let object = self.object_of(inode, &state)?;
            return object.open(flags).context("open", b".");
        }
        open_upper(&state, flags).context("open", b".")
    }

    /// The descriptor for a change of the data: copies the file up before.
    pub(super) fn writable_fd(&self, inode: &Arc<Inode>) -> Result<Arc<OwnedFd>> {
        self.copy_up_file(inode, None)?;
        self.drop_capability(inode)?;
        self.data_fd(inode, true)
    }

    /// As [`Union::read`].
    pub(in crate::union) fn inode_read(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let fd = self.data_fd(inode, false)?;
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&fd, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("pread", b"."),
            }
        }
        Ok(done)
    }

    /// As [`Union::copies_more_than`].
    pub(in crate::union) fn inode_copies_more_than(&self, inode: &Inode, limit: u64) -> bool {
        let Some(state) = inode.lock_file() else {
            return false;
        };
        match &state.real {
            Real::Lower { dir, name } if inode.kind == Kind::File => {
                dir.stat_entry(name).is_ok_and(|stat| stat.size > limit)
            }
            _ => false,
        }
    }

    /// As [`Union::write`].
    pub(in crate::union) fn inode_write(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let fd = match self.writable_fd(inode) {
            Err(error) if error.errno() == Errno::PERM => {
                return self.write_append_only(inode, offset, data, error);
            }
            other => other?,
        };
        write_all(&fd, data, offset).context("pwrite", b".")
    }

    /// As [`Union::write_mapped`].
    pub(in crate::union) fn inode_write_mapped(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let Some(capability) = self.capability(inode) else {
            return self.inode_write(inode, offset, data);
        };
        self.inode_write(inode, offset, data)?;
        self.restore_capability(inode, &capability)
    }

    /// As [`Union::write_back`].
    pub(in crate::union) fn inode_write_back(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        let fd = match self.writable_fd(inode) {
            // The disk does not let the times of such a file be set, so its mtime is that of the
            // write.
            Err(error) if error.errno() == Errno::PERM => {
                return self.write_append_only(inode, offset, data, error);
            }
            other => other?,
        };
        let Some(file) = inode.file() else {
            return fail(Errno::ISDIR);
        };
        // The kernel may say the mtime at the same time: one after the other.
        let _times = lock(&file.copy_up);
        keeping_mtime(&fd, || write_all(&fd, data, offset)).context("pwrite", b".")
    }

    /// From here on the transport's kernel keeps the mtime of files, and sets it itself.
    pub fn leave_mtime_to_kernel(&self) {
        self.kernel_keeps_mtime.store(true, Ordering::Relaxed);
    }

    /// Runs a change of the data after which mtime is the present, or what the kernel says.
    fn changing<T>(
        &self,
        fd: &OwnedFd,
        change: impl FnOnce() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        if self.kernel_keeps_mtime.load(Ordering::Relaxed) {
            keeping_mtime(fd, change)
        } else {
            change()
        }
    }

    /// As [`Union::fsync`].
    pub(in crate::union) fn inode_fsync(&self, inode: &Arc<Inode>, data_only: bool) -> Result<()> {
        if self.rules.volatile && !inode.is_shared() {
            return Ok(());
        }
        if inode.kind == Kind::Dir {
            let upper = match inode.lock_dir() {
                Some(state) if state.removed.is_none() => state.upper.clone(),
                _ => None,
            };
            return match upper {
                Some(dir) => dir.fd().and_then(rustix::fs::fsync).context("fsync", b"."),
                None => Ok(()),
            };
        }
        if !inode.lock_file().is_some_and(|state| state.is_upper()) {
            return Ok(());
        }
        let fd = self.data_fd(inode, false)?;
        let synced = if data_only {
            rustix::fs::fdatasync(&fd)
        } else {
            rustix::fs::fsync(&fd)
        };
        synced.context("fsync", b".")
    }

    /// As [`Union::fallocate`].
    pub(in crate::union) fn inode_fallocate(
        &self,
        inode: &Arc<Inode>,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let fd = self.writable_fd(inode)?;
        let flags = fallocate_flags(mode);
        self.changing(&fd, || rustix::fs::fallocate(&fd, flags, offset, length))
            .context("fallocate", b".")
    }

    /// As [`Union::seek`].
    pub(in crate::union) fn inode_seek(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        hole: bool,
    ) -> Result<u64> {
        let fd = self.data_fd(inode, false)?;
        let position = if hole {
            SeekFrom::Hole(offset)
        } else {
            SeekFrom::Data(offset)
        };
        rustix::fs::seek(&fd, position).context("lseek", b".")
    }

    /// As [`Union::copy_file_range`].
    pub(in crate::union) fn inode_copy_file_range(
        &self,
        source: &Arc<Inode>,
        mut source_offset: u64,
        target: &Arc<Inode>,
        mut target_offset: u64,
        length: usize,
    ) -> Result<usize> {
        let target = self.writable_fd(target)?;
        let source = self.data_fd(source, false)?;
        let mut copy = || {
            let (from, to) = (Some(&mut source_offset), Some(&mut target_offset));
            rustix::fs::copy_file_range(&source, from, &target, to, length)
        };
        self.changing(&target, &mut copy)
            .context("copy_file_range", b".")
    }

    pub(in crate::union) fn read_link_of(&self, inode: &Inode) -> Result<Vec<u8>> {
        let Some(state) = inode.lock_file() else {
            return fail(Errno::INVAL);
        };
        if inode.is_shared() {
            let object = self.object_of(inode, &state)?;
            return rustix::fs::readlinkat(object.fd(), "", Vec::with_capacity(256))
                .map(std::ffi::CString::into_bytes)
                .context("readlink", b".");
        }
        match &state.real {
            Real::Lower { dir, name } => dir.read_link(name),
            Real::Upper { dir, name } => dir.read_link(name),
            Real::Orphan(object) => {
                rustix::fs::readlinkat(object.fd(), "", Vec::with_capacity(256))
                    .map(std::ffi::CString::into_bytes)
            }
        }
        .context("readlink", b".")
    }
}

fn open_upper(state: &FileState, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match &state.real {
        Real::Upper { dir, name } => match dir.open_file(name, flags) {
            // The kernel has checked the caller's permission; a daemon without root's rights must
            // pass its own owner's mode bits too, which may forbid what the caller's open
            // descriptor allows.
            Err(Errno::ACCESS) => {
                let object = dir.object(name)?;
                let mode = dir.stat_on_disk(name)?.perm();
                object.chmod_on_disk(mode | 0o600)?;
                let opened = dir.open_file(name, flags);
                object.chmod_on_disk(mode)?;
                opened
            }
            other => other,
        },
        Real::Orphan(object) => match object.open(flags) {
            Err(Errno::ACCESS) => {
                let mode = Stat::of_fd(object.fd())?.perm();
                object.chmod_on_disk(mode | 0o600)?;
                let opened = object.open(flags);
                object.chmod_on_disk(mode)?;
                opened
            }
            other => other,
        },
        Real::Lower { .. } => Err(Errno::BADF),
    }
}

#[cfg(test)]
mod tests;
