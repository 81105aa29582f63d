//! From bytes to a request. Total: whatever the bytes are, the answer is a request or an errno.

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::opcode::Opcode;
use super::wire::{
    AccessIn, BatchForgetIn, CopyFileRangeIn, CreateIn, EXT_GROUPS, ExtHeader, FallocateIn,
    ForgetIn, ForgetOne, FsyncIn, GetxattrIn, InHeader, InterruptIn, IoctlIn, LinkIn, LseekIn,
    MAX_NR_SECCTX, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn, Secctx,
    SetattrIn, SetxattrIn, StatxIn, WriteIn,
};

/// Most security contexts that are taken with one request; Linux sends one for each security module.
pub const MOST_CONTEXTS: usize = 8;
/// Bytes of the short form of [`SetxattrIn`], without `FUSE_SETXATTR_EXT`.
const SHORT_SETXATTR: usize = 8;

/// A request that was found to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks, of which node.
    pub header: InHeader,
    /// What.
    pub operation: Operation<'a>,
}

/// What is asked. Names hold no NUL and no slash, and are not empty; but for [`Operation::Lookup`] they are not `.` or
/// `..` either.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub enum Operation<'a> {
    Lookup {
        name: &'a [u8],
    },
    Forget(ForgetIn),
    BatchForget(Forgets<'a>),
    Getattr,
    Statx(StatxIn),
    Setattr(SetattrIn),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
        context: Context<'a>,
    },
    Mknod {
        arg: MknodIn,
        name: &'a [u8],
        context: Context<'a>,
    },
    Mkdir {
        arg: MkdirIn,
        name: &'a [u8],
        context: Context<'a>,
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    /// RENAME and RENAME2.
    Rename {
        newdir: u64,
        flags: u32,
        name: &'a [u8],
        newname: &'a [u8],
    },
    Link {
        arg: LinkIn,
        name: &'a [u8],
    },
    Open(OpenIn),
    Create {
        arg: CreateIn,
        name: &'a [u8],
        context: Context<'a>,
    },
    Tmpfile {
        arg: CreateIn,
        context: Context<'a>,
    },
    Release(ReleaseIn),
    Read(ReadIn),
    Write {
        arg: WriteIn,
        data: &'a [u8],
    },
    Flush,
    Fsync(FsyncIn),
    Opendir(OpenIn),
    Readdir(ReadIn),
    Readdirplus(ReadIn),
    Releasedir(ReleaseIn),
    Fsyncdir(FsyncIn),
    Statfs,
    Syncfs,
    Setxattr {
        arg: SetxattrIn,
        name: &'a [u8],
        value: &'a [u8],
    },
    Getxattr {
        size: u32,
        name: &'a [u8],
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Access(AccessIn),
    Interrupt(InterruptIn),
    Ioctl {
        arg: IoctlIn,
        data: &'a [u8],
    },
    Fallocate(FallocateIn),
    Lseek(LseekIn),
    CopyFileRange {
        arg: CopyFileRangeIn,
        wide: bool,
    },
    Destroy,
    /// What a union does not serve: remote locks, block maps, polling, DAX, and what is not for a daemon.
    Other(Opcode),
}

impl<'a> Operation<'a> {
    /// The name, in the directory that the request is addressed to, that it is about.
    #[must_use]
    pub fn entry_name(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Lookup { name }
            | Self::Symlink { name, .. }
            | Self::Mknod { name, .. }
            | Self::Mkdir { name, .. }
            | Self::Unlink { name }
            | Self::Rmdir { name }
            | Self::Rename { name, .. }
            | Self::Link { name, .. }
            | Self::Create { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// The nodes of a BATCH_FORGET.
#[derive(Clone, Copy, Debug)]
pub struct Forgets<'a>(&'a [u8]);

impl Forgets<'_> {
    /// Each node, and how many lookups it loses.
    pub fn iter(&self) -> impl Iterator<Item = ForgetOne> {
        self.0
            .chunks_exact(size_of::<ForgetOne>())
            .filter_map(|chunk| ForgetOne::read_from_bytes(chunk).ok())
    }
}

/// Security contexts that a new object is to be born with: xattr names and values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    pairs: [(&'a [u8], &'a [u8]); MOST_CONTEXTS],
    count: usize,
}

impl<'a> Context<'a> {
    /// The xattrs.
    #[must_use]
    pub fn xattrs(&self) -> &[(&'a [u8], &'a [u8])] {
        &self.pairs[..self.count]
    }

    fn push(&mut self, pair: (&'a [u8], &'a [u8])) -> Result<(), Errno> {
        *self.pairs.get_mut(self.count).ok_or(Errno::TOOBIG)? = pair;
        self.count += 1;
        Ok(())
    }
}

/// Reads what lies behind the fixed structure.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The bytes up to the next NUL, which is taken, too. Errors: EINVAL when there is none.
    fn string(&mut self) -> Result<&'a [u8], Errno> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(Errno::INVAL)?;
        let (string, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(string)
    }

    /// The name of an entry that is made, moved or removed.
    fn name(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.component()?;
        if name == b"." || name == b".." {
            return Err(Errno::INVAL);
        }
        Ok(name)
    }

    /// A name that may be `.` or `..`.
    fn component(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.string()?;
        if name.is_empty() || name.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(name)
    }

    /// The name of an xattr.
    fn xattr(&mut self) -> Result<&'a [u8], Errno> {
        let name = self.string()?;
        if name.is_empty() {
            Err(Errno::INVAL)
        } else {
            Ok(name)
        }
    }

    /// Exactly `size` bytes, at most what is there. Errors: EINVAL.
    fn bytes(&mut self, size: u32) -> Result<&'a [u8], Errno> {
        let size = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        let (bytes, rest) = self.0.split_at_checked(size).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// The structure at the beginning of `bytes`. Errors: EINVAL when they are too few.
fn fixed<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| Errno::INVAL)
}

/// What SETXATTR begins with: the short form has no flags of its own.
fn setxattr(bytes: &[u8]) -> Result<SetxattrIn, Errno> {
    if bytes.len() >= size_of::<SetxattrIn>() {
        return fixed(bytes);
    }
    let (size, rest) = u32::read_from_prefix(bytes).map_err(|_| Errno::INVAL)?;
    Ok(SetxattrIn {
        size,
        flags: fixed(rest)?,
        ..SetxattrIn::default()
    })
}

/// Bytes of the fixed structure of an opcode's number; an unknown one has none. `long_setxattr`: `FUSE_SETXATTR_EXT` was
/// agreed on.
#[must_use]
pub fn fixed_size(opcode: u32, long_setxattr: bool) -> usize {
    match Opcode::from_number(opcode) {
        Some(Opcode::Setxattr) if !long_setxattr => SHORT_SETXATTR,
        Some(opcode) => opcode.fixed_size(),
        None => 0,
    }
}

/// Splits a request as /dev/fuse delivers it, in one piece, into header, fixed structure and rest. `long_setxattr`:
/// as for [`fixed_size`]. Errors: EINVAL for too few bytes or a length that is not theirs.
pub fn split(bytes: &[u8], long_setxattr: bool) -> Result<(InHeader, &[u8], &[u8]), Errno> {
    let (header, body) = InHeader::read_from_prefix(bytes).map_err(|_| Errno::INVAL)?;
    if usize::try_from(header.len) != Ok(bytes.len()) {
        return Err(Errno::INVAL);
    }
    let size = fixed_size(header.opcode, long_setxattr);
    let (fixed, rest) = body.split_at_checked(size).ok_or(Errno::INVAL)?;
    Ok((header, fixed, rest))
}

impl<'a> Request<'a> {
    /// Reads a request from its parts; `arg` may be longer than the structure. Errors: ENOSYS for an unknown opcode,
    /// EINVAL for lengths, counts or names that cannot be, E2BIG for too many security contexts.
    pub fn parse(header: InHeader, arg: &'a [u8], rest: &'a [u8]) -> Result<Self, Errno> {
        let opcode = Opcode::from_number(header.opcode).ok_or(Errno::NOSYS)?;
        let extensions = usize::from(header.total_extlen) * 8;
        let body = rest.len().checked_sub(extensions).ok_or(Errno::INVAL)?;
        let (body, extensions) = rest.split_at(body);
        let mut body = Rest(body);
        let operation = match opcode {
            Opcode::Lookup => Operation::Lookup {
                name: body.component()?,
            },
            Opcode::Forget => Operation::Forget(fixed(arg)?),
            Opcode::BatchForget => {
                let count = fixed::<BatchForgetIn>(arg)?.count;
                let size = count.checked_mul(16).ok_or(Errno::INVAL)?;
                Operation::BatchForget(Forgets(body.bytes(size)?))
            }
            Opcode::Getattr => Operation::Getattr,
            Opcode::Statx => Operation::Statx(fixed(arg)?),
            Opcode::Setattr => Operation::Setattr(fixed(arg)?),
            Opcode::Readlink => Operation::Readlink,
            Opcode::Symlink => Operation::Symlink {
                name: body.name()?,
                target: body.string()?,
                context: contexts(extensions)?,
            },
            Opcode::Mknod => Operation::Mknod {
                arg: fixed(arg)?,
                name: body.name()?,
                context: contexts(extensions)?,
            },
            Opcode::Mkdir => Operation::Mkdir {
                arg: fixed(arg)?,
                name: body.name()?,
                context: contexts(extensions)?,
            },
            Opcode::Unlink => Operation::Unlink { name: body.name()? },
            Opcode::Rmdir => Operation::Rmdir { name: body.name()? },
            Opcode::Rename => Operation::Rename {
                newdir: fixed::<RenameIn>(arg)?.newdir,
                flags: 0,
                name: body.name()?,
                newname: body.name()?,
            },
            Opcode::Rename2 => {
                let arg: Rename2In = fixed(arg)?;
                Operation::Rename {
                    newdir: arg.newdir,
                    flags: arg.flags,
                    name: body.name()?,
                    newname: body.name()?,
                }
            }
            Opcode::Link => Operation::Link {
                arg: fixed(arg)?,
                name: body.name()?,
            },
            Opcode::Open => Operation::Open(fixed(arg)?),
            Opcode::Create => Operation::Create {
                arg: fixed(arg)?,
                name: body.name()?,
                context: contexts(extensions)?,
            },
            Opcode::Tmpfile => Operation::Tmpfile {
                arg: fixed(arg)?,
                context: contexts(extensions)?,
            },
            Opcode::Release => Operation::Release(fixed(arg)?),
            Opcode::Read => Operation::Read(fixed(arg)?),
            Opcode::Write => {
                let arg: WriteIn = fixed(arg)?;
                Operation::Write {
                    arg,
                    data: body.bytes(arg.size)?,
                }
            }
            Opcode::Flush => Operation::Flush,
            Opcode::Fsync => Operation::Fsync(fixed(arg)?),
            Opcode::Opendir => Operation::Opendir(fixed(arg)?),
            Opcode::Readdir => Operation::Readdir(fixed(arg)?),
            Opcode::Readdirplus => Operation::Readdirplus(fixed(arg)?),
            Opcode::Releasedir => Operation::Releasedir(fixed(arg)?),
            Opcode::Fsyncdir => Operation::Fsyncdir(fixed(arg)?),
            Opcode::Statfs => Operation::Statfs,
            Opcode::Syncfs => Operation::Syncfs,
            Opcode::Setxattr => {
                let arg = setxattr(arg)?;
                Operation::Setxattr {
                    arg,
                    name: body.xattr()?,
                    value: body.bytes(arg.size)?,
                }
            }
            Opcode::Getxattr => Operation::Getxattr {
                size: fixed::<GetxattrIn>(arg)?.size,
                name: body.xattr()?,
            },
            Opcode::Listxattr => Operation::Listxattr {
                size: fixed::<GetxattrIn>(arg)?.size,
            },
            Opcode::Removexattr => Operation::Removexattr {
                name: body.xattr()?,
            },
            Opcode::Access => Operation::Access(fixed(arg)?),
            Opcode::Interrupt => Operation::Interrupt(fixed(arg)?),
            Opcode::Ioctl => {
                let arg: IoctlIn = fixed(arg)?;
                Operation::Ioctl {
                    arg,
                    data: body.bytes(arg.in_size)?,
                }
            }
            Opcode::Fallocate => Operation::Fallocate(fixed(arg)?),
            Opcode::Lseek => Operation::Lseek(fixed(arg)?),
            Opcode::CopyFileRange => Operation::CopyFileRange {
                arg: fixed(arg)?,
                wide: false,
            },
            Opcode::CopyFileRange64 => Operation::CopyFileRange {
                arg: fixed(arg)?,
                wide: true,
            },
            Opcode::Destroy => Operation::Destroy,
            Opcode::Init
            | Opcode::Getlk
            | Opcode::Setlk
            | Opcode::Setlkw
            | Opcode::Bmap
            | Opcode::Poll
            | Opcode::NotifyReply
            | Opcode::Setupmapping
            | Opcode::Removemapping => Operation::Other(opcode),
        };
        Ok(Self { header, operation })
    }
}

/// The security contexts among a request's extensions. Errors: EINVAL for sizes that cannot be, or an unknown type;
/// E2BIG for more than [`MOST_CONTEXTS`].
fn contexts(mut extensions: &[u8]) -> Result<Context<'_>, Errno> {
    let mut found = Context::default();
    while !extensions.is_empty() {
        let (header, _) = ExtHeader::read_from_prefix(extensions).map_err(|_| Errno::INVAL)?;
        let size = usize::try_from(header.size).map_err(|_| Errno::INVAL)?;
        let (extension, rest) = extensions.split_at_checked(size).ok_or(Errno::INVAL)?;
        let body = extension
            .get(size_of::<ExtHeader>()..)
            .ok_or(Errno::INVAL)?;
        match header.r#type {
            // The caller's groups are not needed: the kernel decides what setgid does.
            EXT_GROUPS => {}
            count if count <= MAX_NR_SECCTX => security(body, count, &mut found)?,
            _ => return Err(Errno::INVAL),
        }
        extensions = rest;
    }
    Ok(found)
}

/// Security contexts: each a header, a name that ends with NUL, a value, and bytes up to a multiple of 8.
fn security<'a>(mut body: &'a [u8], count: u32, found: &mut Context<'a>) -> Result<(), Errno> {
    for _ in 0..count {
        let (context, bytes) = Secctx::read_from_prefix(body).map_err(|_| Errno::INVAL)?;
        let mut rest = Rest(bytes);
        let name = rest.xattr()?;
        let value = rest.bytes(context.size)?;
        found.push((name, value))?;
        let used = body.len() - rest.0.len();
        body = body.get(used.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
