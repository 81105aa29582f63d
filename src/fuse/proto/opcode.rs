//! What can be asked, and the size of the fixed structure that comes with each.

use std::mem::size_of;

use super::wire;

macro_rules! opcodes {
    ($($name:ident = $number:literal, $fixed:expr, $call:literal;)*) => {
        /// The opcodes of requests (`enum fuse_opcode`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[allow(missing_docs, reason = "the names are the field's own")]
        pub enum Opcode { $($name = $number),* }

        impl Opcode {
            /// Every opcode.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The opcode of a number; `None` for one that this protocol version does not have.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Bytes of the structure in front of names and data, with SETXATTR in its long form.
            #[must_use]
            pub fn fixed_size(self) -> usize {
                match self { $(Self::$name => $fixed),* }
            }

            /// Its name for log lines.
            #[must_use]
            pub fn call(self) -> &'static str {
                match self { $(Self::$name => $call),* }
            }
        }
    };
}

opcodes! {
    Lookup = 1, 0, "lookup";
    Forget = 2, size_of::<wire::ForgetIn>(), "forget";
    Getattr = 3, size_of::<wire::GetattrIn>(), "getattr";
    Setattr = 4, size_of::<wire::SetattrIn>(), "setattr";
    Readlink = 5, 0, "readlink";
    Symlink = 6, 0, "symlink";
    Mknod = 8, size_of::<wire::MknodIn>(), "mknod";
    Mkdir = 9, size_of::<wire::MkdirIn>(), "mkdir";
    Unlink = 10, 0, "unlink";
    Rmdir = 11, 0, "rmdir";
    Rename = 12, size_of::<wire::RenameIn>(), "rename";
    Link = 13, size_of::<wire::LinkIn>(), "link";
    Open = 14, size_of::<wire::OpenIn>(), "open";
    Read = 15, size_of::<wire::ReadIn>(), "read";
    Write = 16, size_of::<wire::WriteIn>(), "write";
    Statfs = 17, 0, "statfs";
    Release = 18, size_of::<wire::ReleaseIn>(), "release";
    Fsync = 20, size_of::<wire::FsyncIn>(), "fsync";
    Setxattr = 21, size_of::<wire::SetxattrIn>(), "setxattr";
    Getxattr = 22, size_of::<wire::GetxattrIn>(), "getxattr";
    Listxattr = 23, size_of::<wire::GetxattrIn>(), "listxattr";
    Removexattr = 24, 0, "removexattr";
    Flush = 25, size_of::<wire::FlushIn>(), "flush";
    Init = 26, 0, "init";
    Opendir = 27, size_of::<wire::OpenIn>(), "opendir";
    Readdir = 28, size_of::<wire::ReadIn>(), "readdir";
    Releasedir = 29, size_of::<wire::ReleaseIn>(), "releasedir";
    Fsyncdir = 30, size_of::<wire::FsyncIn>(), "fsyncdir";
    Getlk = 31, 0, "getlk";
    Setlk = 32, 0, "setlk";
    Setlkw = 33, 0, "setlkw";
    Access = 34, size_of::<wire::AccessIn>(), "access";
    Create = 35, size_of::<wire::CreateIn>(), "create";
    Interrupt = 36, size_of::<wire::InterruptIn>(), "interrupt";
    Bmap = 37, 0, "bmap";
    Destroy = 38, 0, "destroy";
    Ioctl = 39, size_of::<wire::IoctlIn>(), "ioctl";
    Poll = 40, 0, "poll";
    NotifyReply = 41, 0, "notify_reply";
    BatchForget = 42, size_of::<wire::BatchForgetIn>(), "batch_forget";
    Fallocate = 43, size_of::<wire::FallocateIn>(), "fallocate";
    Readdirplus = 44, size_of::<wire::ReadIn>(), "readdirplus";
    Rename2 = 45, size_of::<wire::Rename2In>(), "rename2";
    Lseek = 46, size_of::<wire::LseekIn>(), "lseek";
    CopyFileRange = 47, size_of::<wire::CopyFileRangeIn>(), "copy_file_range";
    Setupmapping = 48, 0, "setupmapping";
    Removemapping = 49, 0, "removemapping";
    Syncfs = 50, size_of::<wire::SyncfsIn>(), "syncfs";
    Tmpfile = 51, size_of::<wire::CreateIn>(), "tmpfile";
    Statx = 52, size_of::<wire::StatxIn>(), "statx";
    CopyFileRange64 = 53, size_of::<wire::CopyFileRangeIn>(), "copy_file_range_64";
}

impl Opcode {
    /// Whether the kernel waits for no reply.
    #[must_use]
    pub fn is_silent(self) -> bool {
        matches!(
            self,
            Self::Forget | Self::BatchForget | Self::Interrupt | Self::NotifyReply
        )
    }

    /// Whether it may leave something that is not on the disk yet. (An ioctl says so itself.)
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::Setattr
                | Self::Symlink
                | Self::Mknod
                | Self::Mkdir
                | Self::Unlink
                | Self::Rmdir
                | Self::Rename
                | Self::Rename2
                | Self::Link
                | Self::Write
                | Self::Setxattr
                | Self::Removexattr
                | Self::Create
                | Self::Tmpfile
                | Self::Fallocate
                | Self::CopyFileRange
                | Self::CopyFileRange64
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways() {
        for opcode in Opcode::ALL {
            assert_eq!(Opcode::from_number(*opcode as u32), Some(*opcode));
        }
        for unknown in [0, 7, 19, 54, 4096, u32::MAX] {
            assert_eq!(Opcode::from_number(unknown), None);
        }
    }
}
