//! Operations by ordinary system calls: on the oracle, and on a mount.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode as Bits, OFlags, RawDir, RenameFlags,
    ResolveFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags, chmod, chown,
    fallocate, fchmod, fsync, ftruncate, futimens, linkat, mkdirat, mknodat, openat, openat2,
    removexattr, renameat_with, setxattr, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::driver::{Driver, Piece};
use super::ops::{Do, Mode, Op, Space};
use super::stack::{Name, Time, bytes, split};
use super::tree::{Look, Object, Tree, kind_of, read_held, read_tree};

/// A directory tree that is worked on by path.
pub struct Plain {
    root: OwnedFd,
    held: Vec<OwnedFd>,
    listing: Option<OwnedFd>,
    absent: Vec<Name>,
}

/// Bytes for one getdents(2): a few entries, or one with a long name.
const PIECE: usize = 300;

impl Plain {
    /// `absent`: see [`Look`].
    pub fn open(root: &Path, absent: &[Name]) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self {
            root: openat(CWD, root, flags, Bits::empty()).unwrap(),
            held: Vec::new(),
            listing: None,
            absent: absent.to_vec(),
        }
    }

    /// A directory, found without leaving the tree and without following a symlink.
    fn dir(&self, at: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let at: &[u8] = if at.is_empty() { b"." } else { at };
        openat2(
            &self.root,
            at,
            flags | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Bits::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// The directory and the name of a path; the root is `.` in itself.
    fn entry<'a>(&self, at: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let (dir, name) = split(at).unwrap_or((b"", b"."));
        Ok((self.dir(dir, OFlags::PATH)?, name))
    }

    /// An object of any type.
    fn object(&self, at: &[u8]) -> Result<OwnedFd, Errno> {
        let (dir, name) = self.entry(at)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Bits::empty())
    }

    /// A regular file; EINVAL for anything else, without opening it.
    fn file(&self, at: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (dir, name) = self.entry(at)?;
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind_of(stat.st_mode) != '-' {
            return Err(Errno::INVAL);
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Bits::empty())
    }

    pub fn unnamed(&self, at: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
        let at: &[u8] = if at.is_empty() { b"." } else { at };
        openat2(
            &self.root,
            at,
            OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC,
            Bits::from_raw_mode(mode),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }

    fn held_fd(&self, which: usize) -> Result<&OwnedFd, Errno> {
        match self.held.len() {
            0 => Err(Errno::BADF),
            len => Ok(&self.held[which % len]),
        }
    }

    fn held_file(&self, which: usize) -> Result<&OwnedFd, Errno> {
        let fd = self.held_fd(which)?;
        match kind_of(rustix::fs::fstat(fd)?.st_mode) {
            '-' => Ok(fd),
            _ => Err(Errno::INVAL),
        }
    }

    fn rename(&self, op: &Op, mode: Mode) -> Result<(), Errno> {
        let (from, old) = self.entry(&op.at)?;
        let (to, new) = self.entry(&op.to)?;
        let flags = match mode {
            Mode::Replace => RenameFlags::empty(),
            Mode::NoReplace => RenameFlags::NOREPLACE,
            Mode::Exchange => RenameFlags::EXCHANGE,
        };
        renameat_with(from, old, to, new, flags)
    }

    fn do_held(&mut self, op: &Op) -> Result<(), Errno> {
        match &op.what {
            Do::HeldWrite(which, offset, len, seed) => {
                write_all(self.held_file(*which)?, &bytes(*len, *seed), *offset)
            }
            Do::HeldTruncate(which, size) => ftruncate(self.held_file(*which)?, *size),
            Do::HeldChmod(which, mode) => fchmod(self.held_fd(*which)?, Bits::from_raw_mode(*mode)),
            Do::HeldSetTime(which, time) => {
                futimens(self.held_fd(*which)?, &only_mtime(Some(*time)))
            }
            Do::HeldLink(which) => {
                let from = magic(self.held_fd(*which)?);
                let (to, name) = self.entry(&op.to)?;
                linkat(CWD, from, to, name, AtFlags::SYMLINK_FOLLOW)
            }
            Do::HeldMkdir(which, name) => {
                mkdirat(self.held_fd(*which)?, &name[..], Bits::from_raw_mode(0o755))
            }
            Do::Release(which) => {
                self.held_fd(*which)?;
                self.held.remove(*which % self.held.len());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn only_mtime(time: Option<Time>) -> Timestamps {
    let stamp = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    Timestamps {
        last_access: stamp(0, UTIME_OMIT),
        last_modification: match time {
            Some((secs, nanos)) => stamp(secs, nanos.into()),
            None => stamp(0, UTIME_NOW),
        },
    }
}

pub fn write_all(fd: impl AsFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        let written = rustix::io::pwrite(&fd, data, offset)?;
        data = &data[written..];
        offset += written as u64;
    }
    Ok(())
}

/// The magic link of a descriptor, which `O_PATH` ones need for what changes the object.
fn magic(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Driver for Plain {
    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        let mode = |mode: &u32| Bits::from_raw_mode(*mode);
        match &op.what {
            Do::Create(bits) => {
                let (dir, name) = self.entry(&op.at)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                openat(dir, name, flags, mode(bits)).map(drop)
            }
            Do::Mkdir(bits) => {
                let (dir, name) = self.entry(&op.at)?;
                mkdirat(dir, name, mode(bits))
            }
            Do::Fifo(bits) => {
                let (dir, name) = self.entry(&op.at)?;
                mknodat(dir, name, FileType::Fifo, mode(bits), 0)
            }
            Do::Symlink(target) => {
                let (dir, name) = self.entry(&op.at)?;
                symlinkat(&target[..], dir, name)
            }
            Do::Link => {
                let (from, old) = self.entry(&op.at)?;
                let (to, new) = self.entry(&op.to)?;
                linkat(from, old, to, new, AtFlags::empty())
            }
            Do::Unlink => {
                let (dir, name) = self.entry(&op.at)?;
                unlinkat(dir, name, AtFlags::empty())
            }
            Do::Rmdir => {
                let (dir, name) = self.entry(&op.at)?;
                unlinkat(dir, name, AtFlags::REMOVEDIR)
            }
            Do::Rename(how) => self.rename(op, *how),
            Do::Write(offset, len, seed) => {
                let fd = self.file(&op.at, OFlags::WRONLY)?;
                write_all(&fd, &bytes(*len, *seed), *offset)
            }
            Do::Append(len, seed) => {
                let fd = self.file(&op.at, OFlags::WRONLY | OFlags::APPEND)?;
                rustix::io::write(&fd, &bytes(*len, *seed)).map(drop)
            }
            Do::Truncate(size) => ftruncate(self.file(&op.at, OFlags::WRONLY)?, *size),
            Do::Fallocate(space, offset, len) => {
                let fd = self.file(&op.at, OFlags::WRONLY)?;
                fallocate(&fd, fallocate_flags(*space), *offset, *len)
            }
            Do::Fsync => fsync(self.file(&op.at, OFlags::RDONLY)?),
            Do::Chmod(bits) => chmod(magic(&self.object(&op.at)?), mode(bits)),
            Do::Chown(uid, gid) => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                chown(magic(&self.object(&op.at)?), uid, gid)
            }
            Do::SetTime(time) => {
                let (dir, name) = self.entry(&op.at)?;
                utimensat(dir, name, &only_mtime(*time), AtFlags::SYMLINK_NOFOLLOW)
            }
            Do::SetXattr(name, value) => {
                let object = self.object(&op.at)?;
                setxattr(magic(&object), &name[..], value, XattrFlags::empty())
            }
            Do::RemoveXattr(name) => removexattr(magic(&self.object(&op.at)?), &name[..]),
            Do::Hold => {
                let (dir, name) = self.entry(&op.at)?;
                let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let flags = match kind_of(stat.st_mode) {
                    '-' => OFlags::RDWR,
                    'd' => OFlags::RDONLY | OFlags::DIRECTORY,
                    _ => return Err(Errno::INVAL),
                };
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.held.push(openat(dir, name, flags, Bits::empty())?);
                Ok(())
            }
            Do::Unnamed(bits) => {
                self.held.push(self.unnamed(&op.at, *bits)?);
                Ok(())
            }
            Do::List => {
                self.listing = Some(self.dir(&op.at, OFlags::RDONLY)?);
                Ok(())
            }
            _ => self.do_held(op),
        }
    }

    fn more(&mut self, _count: usize) -> Result<Vec<Piece>, Errno> {
        let mut pieces = Vec::new();
        let Some(listing) = &self.listing else {
            return Ok(pieces);
        };
        let mut buffer = [MaybeUninit::uninit(); PIECE];
        let mut entries = RawDir::new(listing, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            pieces.push(Piece {
                name: entry.file_name().to_bytes().to_vec(),
                kind: kind_of(entry.file_type().as_raw_mode()),
            });
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(pieces)
    }

    fn snapshot(&mut self) -> Result<Tree, String> {
        read_tree(
            &self.root,
            Look {
                absent: &self.absent,
            },
        )
    }

    fn held(&mut self) -> Result<Vec<Object>, String> {
        self.held.iter().map(read_held).collect()
    }

    fn release_all(&mut self) {
        self.held.clear();
        self.listing = None;
    }
}

pub fn fallocate_flags(space: Space) -> FallocateFlags {
    match space {
        Space::Allocate => FallocateFlags::empty(),
        Space::KeepSize => FallocateFlags::KEEP_SIZE,
        Space::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Space::Zero => FallocateFlags::ZERO_RANGE,
    }
}
