//! What the operations of a union take and return.

use crate::layer::dir::Name;
use crate::layer::object::SetTime;
use crate::layer::stat::Kind;
use crate::layer::stat::Time;
use crate::union::node::ids::NodeId;

/// What stat(2) shows of an inode of the merged tree. Owners are as seen through the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// `st_ino`.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// When the object was made that is behind it now, where its disk knows that: a copy-up makes a
    /// new one.
    pub btime: Option<Time>,
    /// Type and permission bits.
    pub mode: u32,
    /// Visible names of a file. Of a directory that one layer has the disk's count, of which a
    /// subdirectory is one; 1, which says nothing about subdirectories, where several have it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// How long this may be believed, and what its name means.
    pub validity: Validity,
}

impl Attr {
    /// The type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::from_mode(self.mode)
    }
}

/// What to change; `None` and [`SetTime::Keep`] leave things as they are. Owners are as seen
/// through the mount.
#[derive(Clone, Copy, Debug)]
pub struct SetAttr {
    /// Permission bits (type bits are ignored).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: SetTime,
    /// Modification time.
    pub mtime: SetTime,
    /// The size is set by a process without CAP_FSETID: setuid goes, and setgid of a program.
    pub drop_setid: bool,
}

/// What a lookup answers: the node, on which one lookup was counted, and its attributes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The node id.
    pub node: NodeId,
    /// Its attributes; `attr.ino` is `st_ino`, not the node id.
    pub attr: Attr,
}

/// One entry of a listing.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Its name, as bytes.
    pub name: Name,
    /// Its type.
    pub kind: Kind,
    /// Its `st_ino`.
    pub ino: u64,
    /// The position behind it.
    pub cookie: u64,
}

/// The flags of renameat2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// What is under the new name is replaced.
    Replace,
    /// EEXIST when there is something under the new name.
    NoReplace,
    /// The two names change places.
    Exchange,
}

/// For whom something is made. Ids are as seen through the mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller<'a> {
    /// File-system user id.
    pub uid: u32,
    /// File-system group id.
    pub gid: u32,
    /// File mode creation mask; a default ACL of the directory takes its place.
    pub umask: u32,
    /// Xattrs, name and value, that a new object has before it is seen: the labels that the
    /// security modules of the caller's kernel chose (FUSE_SECURITY_CTX in `fuse.h`). Usually none.
    pub security: &'a [(&'a [u8], &'a [u8])],
}

/// What to make.
#[derive(Clone, Copy, Debug)]
pub enum New<'a> {
    /// A regular file, fifo, socket or device node, with permission bits and device number.
    Node {
        /// Its type.
        kind: Kind,
        /// Its permission bits before the umask.
        mode: u32,
        /// The device, for device nodes.
        rdev: u64,
    },
    /// A directory with permission bits before the umask.
    Dir {
        /// Its permission bits before the umask.
        mode: u32,
    },
    /// A symlink.
    Symlink {
        /// What it says.
        target: &'a [u8],
    },
}

impl New<'_> {
    /// The device number of a device node.
    pub(in crate::union) fn rdev(&self) -> u64 {
        match self {
            Self::Node {
                kind: Kind::Char | Kind::Block,
                rdev,
                ..
            } => *rdev,
            _ => 0,
        }
    }

    pub(in crate::union) fn kind(&self) -> Kind {
        match self {
            Self::Node { kind, .. } => *kind,
            Self::Dir { .. } => Kind::Dir,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    /// Whether this is a character device 0/0, which on the upper's disk would be a whiteout.
    pub(in crate::union) fn is_whiteout_device(&self) -> bool {
        matches!(
            self,
            Self::Node {
                kind: Kind::Char,
                rdev: 0,
                ..
            }
        )
    }
}

/// What should not be believed any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name means something else than before.
    Name {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: Name,
        /// It means nothing any more.
        gone: bool,
        /// What it meant, if the kernel knows that.
        child: Option<NodeId>,
    },
    /// The attributes of an object, and its bytes or, of a directory, its listing.
    Node(NodeId),
    /// A name, and everything below it.
    Below {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: Name,
    },
}

/// How long what the union says may be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validity {
    /// Until the mount changes it, or the union tells otherwise (`Union::changes`).
    #[default]
    Kept,
    /// For half a second: others may change it, and no notification comes.
    Checked,
    /// Not at all, if what it says is which object a name means: it is in a volume.
    Shared,
}
