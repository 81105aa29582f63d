//! From bytes to a request. Total: whatever the bytes are, the answer is a request or an errno.

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::opcode::Opcode;
use super::operation::{Context, Forgets, Operation, Request};
use super::wire::{
    BatchForgetIn, EXT_GROUPS, ExtHeader, GetxattrIn, InHeader, IoctlIn, MAX_NR_SECCTX, Rename2In,
    RenameIn, Secctx, SetxattrIn, WriteIn,
};

/// Bytes of the short form of [`SetxattrIn`], without `FUSE_SETXATTR_EXT`.
const SHORT_SETXATTR: usize = 8;

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

/// Bytes of the fixed structure of an opcode's number; an unknown one has none. `long_setxattr`:
/// `FUSE_SETXATTR_EXT` was agreed on.
#[must_use]
pub fn fixed_size(opcode: u32, long_setxattr: bool) -> usize {
    match Opcode::from_number(opcode) {
        Some(Opcode::Setxattr) if !long_setxattr => SHORT_SETXATTR,
        Some(opcode) => opcode.fixed_size(),
        None => 0,
    }
}

/// Splits a request as /dev/fuse delivers it, in one piece, into header, fixed structure and rest.
/// `long_setxattr`: as for [`fixed_size`]. Errors: EINVAL for too few bytes or a length that is not
/// theirs.
pub fn split(bytes: &[u8], long_setxattr: bool) -> Result<(InHeader, &[u8], &[u8]), Errno> {
    let (header, body) = InHeader::read_from_prefix(bytes).map_err(|_| Errno::INVAL)?;
    if usize::try_from(header.len) != Ok(bytes.len()) {
        return Err(Errno::INVAL);
    }
    let size = fixed_size(header.opcode, long_setxattr);
    let (fixed, rest) = body.split_at_checked(size).ok_or(Errno::INVAL)?;
    Ok((header, fixed, rest))
}

/// The parts of a request while it is read.
struct Parser<'a> {
    opcode: Opcode,
    /// The fixed structure, maybe with bytes behind it.
    arg: &'a [u8],
    body: Rest<'a>,
    extensions: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request from its parts; `arg` may be longer than the structure. Errors: ENOSYS for
    /// an unknown opcode, EINVAL for lengths, counts or names that cannot be, E2BIG for too many
    /// security contexts.
    pub fn parse(header: InHeader, arg: &'a [u8], rest: &'a [u8]) -> Result<Self, Errno> {
        let opcode = Opcode::from_number(header.opcode).ok_or(Errno::NOSYS)?;
        let extensions = usize::from(header.total_extlen) * 8;
        let body = rest.len().checked_sub(extensions).ok_or(Errno::INVAL)?;
        let (body, extensions) = rest.split_at(body);
        let parser = Parser {
            opcode,
            arg,
            body: Rest(body),
            extensions,
        };
        let operation = parser.on_node()?;
        Ok(Self { header, operation })
    }
}

impl<'a> Parser<'a> {
    fn arg<T: FromBytes>(&self) -> Result<T, Errno> {
        fixed(self.arg)
    }

    fn context(&self) -> Result<Context<'a>, Errno> {
        contexts(self.extensions)
    }

    /// Requests about the node itself, without names.
    #[inline]
    fn on_node(mut self) -> Result<Operation<'a>, Errno> {
        Ok(match self.opcode {
            Opcode::Forget => Operation::Forget(self.arg()?),
            Opcode::BatchForget => {
                let count = self.arg::<BatchForgetIn>()?.count;
                let size = count.checked_mul(16).ok_or(Errno::INVAL)?;
                Operation::BatchForget(Forgets(self.body.bytes(size)?))
            }
            Opcode::Getattr => Operation::Getattr,
            Opcode::Statx => Operation::Statx(self.arg()?),
            Opcode::Setattr => Operation::Setattr(self.arg()?),
            Opcode::Readlink => Operation::Readlink,
            Opcode::Open => Operation::Open(self.arg()?),
            Opcode::Release => Operation::Release(self.arg()?),
            Opcode::Read => Operation::Read(self.arg()?),
            Opcode::Write => {
                let arg: WriteIn = self.arg()?;
                Operation::Write {
                    arg,
                    data: self.body.bytes(arg.size)?,
                }
            }
            Opcode::Flush => Operation::Flush,
            Opcode::Fsync => Operation::Fsync(self.arg()?),
            Opcode::Opendir => Operation::Opendir(self.arg()?),
            Opcode::Readdir => Operation::Readdir(self.arg()?),
            Opcode::Readdirplus => Operation::Readdirplus(self.arg()?),
            Opcode::Releasedir => Operation::Releasedir(self.arg()?),
            Opcode::Fsyncdir => Operation::Fsyncdir(self.arg()?),
            Opcode::Statfs => Operation::Statfs,
            Opcode::Syncfs => Operation::Syncfs,
            Opcode::Access => Operation::Access(self.arg()?),
            Opcode::Interrupt => Operation::Interrupt(self.arg()?),
            Opcode::Ioctl => {
                let arg: IoctlIn = self.arg()?;
                Operation::Ioctl {
                    arg,
                    data: self.body.bytes(arg.in_size)?,
                }
            }
            Opcode::Fallocate => Operation::Fallocate(self.arg()?),
            Opcode::Lseek => Operation::Lseek(self.arg()?),
            Opcode::CopyFileRange => Operation::CopyFileRange {
                arg: self.arg()?,
                wide: false,
            },
            Opcode::CopyFileRange64 => Operation::CopyFileRange {
                arg: self.arg()?,
                wide: true,
            },
            Opcode::Destroy => Operation::Destroy,
            _ => return self.on_entry(),
        })
    }

    /// Requests about names in a directory.
    #[inline]
    fn on_entry(mut self) -> Result<Operation<'a>, Errno> {
        Ok(match self.opcode {
            Opcode::Lookup => Operation::Lookup {
                name: self.body.component()?,
            },
            Opcode::Symlink => Operation::Symlink {
                name: self.body.name()?,
                target: self.body.string()?,
                context: self.context()?,
            },
            Opcode::Mknod => Operation::Mknod {
                arg: self.arg()?,
                name: self.body.name()?,
                context: self.context()?,
            },
            Opcode::Mkdir => Operation::Mkdir {
                arg: self.arg()?,
                name: self.body.name()?,
                context: self.context()?,
            },
            Opcode::Unlink => Operation::Unlink {
                name: self.body.name()?,
            },
            Opcode::Rmdir => Operation::Rmdir {
                name: self.body.name()?,
            },
            Opcode::Rename => Operation::Rename {
                newdir: self.arg::<RenameIn>()?.newdir,
                flags: 0,
                name: self.body.name()?,
                newname: self.body.name()?,
            },
            Opcode::Rename2 => {
                let arg: Rename2In = self.arg()?;
                Operation::Rename {
                    newdir: arg.newdir,
                    flags: arg.flags,
                    name: self.body.name()?,
                    newname: self.body.name()?,
                }
            }
            Opcode::Link => Operation::Link {
                arg: self.arg()?,
                name: self.body.name()?,
            },
            Opcode::Create => Operation::Create {
                arg: self.arg()?,
                name: self.body.name()?,
                context: self.context()?,
            },
            Opcode::Tmpfile => Operation::Tmpfile {
                arg: self.arg()?,
                context: self.context()?,
            },
            _ => return self.on_xattr_or_other(),
        })
    }

    /// Requests about xattrs, and those that the daemon does not serve.
    fn on_xattr_or_other(mut self) -> Result<Operation<'a>, Errno> {
        Ok(match self.opcode {
            Opcode::Setxattr => {
                let arg = setxattr(self.arg)?;
                Operation::Setxattr {
                    arg,
                    name: self.body.xattr()?,
                    value: self.body.bytes(arg.size)?,
                }
            }
            Opcode::Getxattr => Operation::Getxattr {
                size: self.arg::<GetxattrIn>()?.size,
                name: self.body.xattr()?,
            },
            Opcode::Listxattr => Operation::Listxattr {
                size: self.arg::<GetxattrIn>()?.size,
            },
            Opcode::Removexattr => Operation::Removexattr {
                name: self.body.xattr()?,
            },
            opcode => Operation::Other(opcode),
        })
    }
}

/// The security contexts among a request's extensions. Errors: EINVAL for sizes that cannot be, or
/// an unknown type; E2BIG for more than [`MOST_CONTEXTS`](super::operation::MOST_CONTEXTS).
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

/// Security contexts: each a header, a name that ends with NUL, a value, and bytes up to a multiple
/// of 8.
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
