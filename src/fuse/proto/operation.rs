//! What is asked: a request that was found to be whole.

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::opcode::Opcode;
use super::wire::{
    AccessIn, CopyFileRangeIn, CreateIn, FallocateIn, ForgetIn, ForgetOne, FsyncIn, InHeader,
    InterruptIn, IoctlIn, LinkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, SetattrIn,
    SetxattrIn, StatxIn, WriteIn,
};

/// Most security contexts that are taken with one request; Linux sends one for each security
/// module.
pub(crate) const MOST_CONTEXTS: usize = 8;
/// A request that was found to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks, of which node.
    pub header: InHeader,
    /// What.
    pub operation: Operation<'a>,
}

/// What is asked. Names hold no NUL and no slash, and are not empty; but for [`Operation::Lookup`]
/// they are not `.` or `..` either.
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
    /// What a union does not serve: remote locks, block maps, polling, DAX, and what is not for a
    /// daemon.
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
pub struct Forgets<'a>(pub(super) &'a [u8]);

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

    pub(super) fn push(&mut self, pair: (&'a [u8], &'a [u8])) -> Result<(), Errno> {
        *self.pairs.get_mut(self.count).ok_or(Errno::TOOBIG)? = pair;
        self.count += 1;
        Ok(())
    }
}
