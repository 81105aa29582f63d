//! A valid request of each opcode, and what it says.

use super::super::super::opcode::Opcode;
use super::super::Context;
use super::shape;

/// The fields of a fixed structure: `(bytes, value)` each.
pub(super) type Fields = &'static [(usize, u64)];

/// For every opcode the fields of its structure, with values that tell them apart, and what follows
/// it.
#[rustfmt::skip] // one opcode, one line
pub(super) const SHAPES: &[(Opcode, Fields, &[u8])] = &[
    (Opcode::Lookup, &[], b"name\0"),
    (Opcode::Forget, &[(8, 0x0102_0304_0506_0708)], b""),
    (Opcode::Getattr, &[(4, 1), (4, 0), (8, 2)], b""),
    (Opcode::Setattr, &[(4, 0x49), (4, 0), (8, 1), (8, 2), (8, 3), (8, u64::MAX - 4), (8, 5), (8, 6),
        (4, 7), (4, 8), (4, 9), (4, 0o100_644), (4, 0), (4, 11), (4, 12), (4, 0)], b""),
    (Opcode::Readlink, &[], b""),
    (Opcode::Symlink, &[], b"name\0the/target\0"),
    (Opcode::Mknod, &[(4, 0o20_644), (4, 0x0103), (4, 0o22), (4, 0)], b"name\0"),
    (Opcode::Mkdir, &[(4, 0o755), (4, 0o22)], b"name\0"),
    (Opcode::Unlink, &[], b"name\0"),
    (Opcode::Rmdir, &[], b"name\0"),
    (Opcode::Rename, &[(8, 9)], b"name\0other\0"),
    (Opcode::Link, &[(8, 9)], b"name\0"),
    (Opcode::Open, &[(4, 2), (4, 1)], b""),
    (Opcode::Read, &[(8, 1), (8, 4096), (4, 8192), (4, 2), (8, 3), (4, 4), (4, 0)], b""),
    (Opcode::Write, &[(8, 1), (8, 4096), (4, 4), (4, 2), (8, 3), (4, 4), (4, 0)], b"data"),
    (Opcode::Statfs, &[], b""),
    (Opcode::Release, &[(8, 1), (4, 2), (4, 3), (8, 4)], b""),
    (Opcode::Fsync, &[(8, 1), (4, 1), (4, 0)], b""),
    (Opcode::Setxattr, &[(4, 5), (4, 1), (4, 1), (4, 0)], b"user.x\0value"),
    (Opcode::Getxattr, &[(4, 77), (4, 0)], b"user.x\0"),
    (Opcode::Listxattr, &[(4, 77), (4, 0)], b""),
    (Opcode::Removexattr, &[], b"user.x\0"),
    (Opcode::Flush, &[(8, 1), (4, 0), (4, 0), (8, 2)], b""),
    (Opcode::Init, &[], b""),
    (Opcode::Opendir, &[(4, 0o200_000), (4, 0)], b""),
    (Opcode::Readdir, &[(8, 1), (8, 3), (4, 4096), (4, 0), (8, 0), (4, 0), (4, 0)], b""),
    (Opcode::Releasedir, &[(8, 1), (4, 2), (4, 3), (8, 4)], b""),
    (Opcode::Fsyncdir, &[(8, 1), (4, 1), (4, 0)], b""),
    (Opcode::Getlk, &[], b""),
    (Opcode::Setlk, &[], b""),
    (Opcode::Setlkw, &[], b""),
    (Opcode::Access, &[(4, 7), (4, 0)], b""),
    (Opcode::Create, &[(4, 0o102), (4, 0o100_640), (4, 0o22), (4, 1)], b"name\0"),
    (Opcode::Interrupt, &[(8, 44)], b""),
    (Opcode::Bmap, &[], b""),
    (Opcode::Destroy, &[], b""),
    (Opcode::Ioctl, &[(8, 1), (4, 1), (4, 0x8008_6601), (8, 0x7fff_0000), (4, 4), (4, 8)], b"abcd"),
    (Opcode::Poll, &[], b""),
    (Opcode::NotifyReply, &[], b""),
    (Opcode::BatchForget, &[(4, 2), (4, 0)],
        b"\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"),
    (Opcode::Fallocate, &[(8, 1), (8, 4096), (8, 8192), (4, 3), (4, 0)], b""),
    (Opcode::Readdirplus, &[(8, 1), (8, 3), (4, 4096), (4, 0), (8, 0), (4, 0), (4, 0)], b""),
    (Opcode::Rename2, &[(8, 9), (4, 1), (4, 0)], b"name\0other\0"),
    (Opcode::Lseek, &[(8, 1), (8, 4096), (4, 3), (4, 0)], b""),
    (Opcode::CopyFileRange, &[(8, 1), (8, 2), (8, 3), (8, 4), (8, 5), (8, 6), (8, 0)], b""),
    (Opcode::Setupmapping, &[], b""),
    (Opcode::Removemapping, &[], b""),
    (Opcode::Syncfs, &[(8, 0)], b""),
    (Opcode::Tmpfile, &[(4, 0o102), (4, 0o100_640), (4, 0o22), (4, 1)], b""),
    (Opcode::Statx, &[(4, 1), (4, 0), (8, 2), (4, 3), (4, 0xfff)], b""),
    (Opcode::CopyFileRange64, &[(8, 1), (8, 2), (8, 3), (8, 4), (8, 5), (8, 6), (8, 0)], b""),
];

/// The values that [`Operation`] shows for a request, in the order of its structure.
pub(super) fn expected(opcode: Opcode) -> String {
    let text = match opcode {
        Opcode::Lookup => "Lookup { name: N }",
        Opcode::Forget => "Forget(ForgetIn { nlookup: 72623859790382856 })",
        Opcode::Getattr => "Getattr",
        Opcode::Setattr => {
            "Setattr(SetattrIn { valid: 73, padding: 0, fh: 1, size: 2, lock_owner: 3, atime: -5, mtime: 5, ctime: 6, \
             atimensec: 7, mtimensec: 8, ctimensec: 9, mode: 33188, unused4: 0, uid: 11, gid: 12, unused5: 0 })"
        }
        Opcode::Readlink => "Readlink",
        Opcode::Symlink => "Symlink { name: N, target: T, context: C }",
        Opcode::Mknod => {
            "Mknod { arg: MknodIn { mode: 8612, rdev: 259, umask: 18, padding: 0 }, name: N, context: C }"
        }
        Opcode::Mkdir => "Mkdir { arg: MkdirIn { mode: 493, umask: 18 }, name: N, context: C }",
        Opcode::Unlink => "Unlink { name: N }",
        Opcode::Rmdir => "Rmdir { name: N }",
        Opcode::Rename => "Rename { newdir: 9, flags: 0, name: N, newname: O }",
        Opcode::Rename2 => "Rename { newdir: 9, flags: 1, name: N, newname: O }",
        Opcode::Link => "Link { arg: LinkIn { oldnodeid: 9 }, name: N }",
        Opcode::Open => "Open(OpenIn { flags: 2, open_flags: 1 })",
        Opcode::Opendir => "Opendir(OpenIn { flags: 65536, open_flags: 0 })",
        Opcode::Read => {
            "Read(ReadIn { fh: 1, offset: 4096, size: 8192, read_flags: 2, lock_owner: 3, flags: 4, padding: 0 })"
        }
        Opcode::Readdir => {
            "Readdir(ReadIn { fh: 1, offset: 3, size: 4096, read_flags: 0, lock_owner: 0, flags: 0, padding: 0 })"
        }
        Opcode::Readdirplus => {
            "Readdirplus(ReadIn { fh: 1, offset: 3, size: 4096, read_flags: 0, lock_owner: 0, flags: 0, padding: 0 })"
        }
        Opcode::Write => {
            "Write { arg: WriteIn { fh: 1, offset: 4096, size: 4, write_flags: 2, lock_owner: 3, flags: 4, \
             padding: 0 }, data: D }"
        }
        Opcode::Statfs => "Statfs",
        Opcode::Release => {
            "Release(ReleaseIn { fh: 1, flags: 2, release_flags: 3, lock_owner: 4 })"
        }
        Opcode::Releasedir => {
            "Releasedir(ReleaseIn { fh: 1, flags: 2, release_flags: 3, lock_owner: 4 })"
        }
        Opcode::Fsync => "Fsync(FsyncIn { fh: 1, fsync_flags: 1, padding: 0 })",
        Opcode::Fsyncdir => "Fsyncdir(FsyncIn { fh: 1, fsync_flags: 1, padding: 0 })",
        Opcode::Setxattr => {
            "Setxattr { arg: SetxattrIn { size: 5, flags: 1, setxattr_flags: 1, padding: 0 }, name: X, value: V }"
        }
        Opcode::Getxattr => "Getxattr { size: 77, name: X }",
        Opcode::Listxattr => "Listxattr { size: 77 }",
        Opcode::Removexattr => "Removexattr { name: X }",
        Opcode::Flush => "Flush",
        Opcode::Access => "Access(AccessIn { mask: 7, padding: 0 })",
        Opcode::Create => {
            "Create { arg: CreateIn { flags: 66, mode: 33184, umask: 18, open_flags: 1 }, name: N, context: C }"
        }
        Opcode::Tmpfile => {
            "Tmpfile { arg: CreateIn { flags: 66, mode: 33184, umask: 18, open_flags: 1 }, context: C }"
        }
        Opcode::Interrupt => "Interrupt(InterruptIn { unique: 44 })",
        Opcode::Destroy => "Destroy",
        Opcode::Ioctl => {
            "Ioctl { arg: IoctlIn { fh: 1, flags: 1, cmd: 2148034049, arg: 2147418112, in_size: 4, out_size: 8 }, \
             data: A }"
        }
        Opcode::BatchForget => "BatchForget(Forgets(F))",
        Opcode::Fallocate => {
            "Fallocate(FallocateIn { fh: 1, offset: 4096, length: 8192, mode: 3, padding: 0 })"
        }
        Opcode::Lseek => "Lseek(LseekIn { fh: 1, offset: 4096, whence: 3, padding: 0 })",
        Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
            "CopyFileRange { arg: CopyFileRangeIn { fh_in: 1, off_in: 2, nodeid_out: 3, fh_out: 4, off_out: 5, \
             len: 6, flags: 0 }, wide: W }"
        }
        Opcode::Syncfs => "Syncfs",
        Opcode::Statx => {
            "Statx(StatxIn { getattr_flags: 1, reserved: 0, fh: 2, sx_flags: 3, sx_mask: 4095 })"
        }
        other => return format!("Ok(Other({other:?}))"),
    };
    let debug = |bytes: &[u8]| format!("{bytes:?}");
    let text = text
        .replace("name: N", &format!("name: {}", debug(b"name")))
        .replace("newname: O", &format!("newname: {}", debug(b"other")))
        .replace("target: T", &format!("target: {}", debug(b"the/target")))
        .replace("name: X", &format!("name: {}", debug(b"user.x")))
        .replace("value: V", &format!("value: {}", debug(b"value")))
        .replace("data: D", &format!("data: {}", debug(b"data")))
        .replace("data: A", &format!("data: {}", debug(b"abcd")))
        .replace("context: C", &format!("context: {:?}", Context::default()))
        .replace(
            "Forgets(F)",
            &format!("Forgets({})", debug(shape(opcode).1)),
        )
        .replace(
            "wide: W",
            &format!("wide: {}", opcode == Opcode::CopyFileRange64),
        );
    format!("Ok({text})")
}
