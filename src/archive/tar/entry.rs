//! One entry of an archive, as it is read and written.

use crate::layer::stat::{Kind, Time};

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of so many bytes, holes included.
    File(u64),
    /// Another name of an entry that came before.
    HardLink(Vec<u8>),
    /// A symbolic link, with what it says.
    Symlink(Vec<u8>),
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device with its number.
    Char(u64),
    /// A block device with its number.
    Block(u64),
}

impl EntryKind {
    /// The type of the object; `None` for a hard link, which has that of its target.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::File(_) => Kind::File,
            Self::HardLink(_) => return None,
            Self::Symlink(_) => Kind::Symlink,
            Self::Dir => Kind::Dir,
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
            Self::Char(_) => Kind::Char,
            Self::Block(_) => Kind::Block,
        })
    }
}

/// An xattr: its name and its value, any bytes.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Its name, as it stands in the archive when read.
    pub path: Vec<u8>,
    /// What it is.
    pub what: EntryKind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// Its xattrs, no name twice.
    pub xattrs: Vec<Xattr>,
}

/// A piece of a sparse file that has data; all else of the file is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}
