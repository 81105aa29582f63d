//! Replies against literal bytes, at the offsets that `include/uapi/linux/fuse.h` gives them.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use super::*;
use crate::layer::dir::Name;
use crate::union::NodeId;

/// Values whose bytes are all different, so that no two fields can be mistaken for each other.
fn some_attr() -> union::Attr {
    union::Attr {
        ino: 0x0807_0605_0403_0201,
        size: 0x1817_1615_1413_1211,
        blocks: 0x2827_2625_2423_2221,
        atime: Time {
            secs: 0x3837_3635_3433_3231,
            nanos: 999_999_999,
        },
        mtime: Time {
            secs: -1,
            nanos: 500_000_000,
        },
        ctime: Time {
            secs: i64::MIN,
            nanos: 0,
        },
        btime: Some(Time { secs: -2, nanos: 7 }),
        mode: 0o100_644,
        nlink: 0x4443_4241,
        uid: 0x5453_5251,
        gid: 0x6463_6261,
        rdev: rustix::fs::makedev(8, 17),
        blksize: 0x7473_7271,
        validity: crate::union::Validity::Kept,
    }
}

/// The 88 bytes of `fuse_attr` for it.
fn attr_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [
        0x0807_0605_0403_0201u64,
        0x1817_1615_1413_1211,
        0x2827_2625_2423_2221,
        0x3837_3635_3433_3231,
        // -1 and the least there is: times before 1970 are two's complement.
        0xffff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
    ] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    for number in [
        999_999_999u32,
        500_000_000,
        0,
        0x81a4,
        0x4443_4241,
        0x5453_5251,
        0x6463_6261,
        0x0811,
        0x7473_7271,
        0,
    ] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    assert_eq!(bytes.len(), 88);
    bytes
}

const LIFETIME: Duration = Duration::new(0x0102_0304, 0x0506_0708);

fn numbers(bytes: &mut Vec<u8>, long: &[u64], short: &[u32]) {
    for number in long {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    for number in short {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
}

#[test]
fn attributes() {
    let mut expected = Vec::new();
    numbers(&mut expected, &[0x0102_0304], &[0x0506_0708, 0]);
    expected.extend_from_slice(&attr_bytes());
    assert_eq!(expected.len(), 104);
    assert_eq!(attr_out(&some_attr(), LIFETIME).as_bytes(), expected);
}

#[test]
fn an_entry() {
    let entry = Entry {
        node: NodeId(0x1122_3344_5566_7788),
        attr: some_attr(),
    };
    let mut expected = Vec::new();
    numbers(
        &mut expected,
        &[0x1122_3344_5566_7788, 0, 0x0102_0304, 0x0102_0304],
        &[0x0506_0708, 0x0506_0708],
    );
    expected.extend_from_slice(&attr_bytes());
    assert_eq!(expected.len(), 128);
    assert_eq!(entry_out(&entry, LIFETIME).as_bytes(), expected);
}

#[test]
fn no_entry_is_remembered_as_long_and_has_no_node() {
    let mut expected = Vec::new();
    numbers(&mut expected, &[0, 0, 0x0102_0304, 0], &[0x0506_0708, 0]);
    expected.resize(128, 0);
    assert_eq!(no_entry(LIFETIME).as_bytes(), expected);
}

#[test]
fn an_entry_without_a_node_has_number_and_type_alone() {
    let entry = DirEntry {
        name: Name::from(&b".."[..]),
        kind: Kind::Dir,
        ino: 0x0807_0605_0403_0201,
        cookie: 2,
    };
    let mut expected = vec![0; 40];
    numbers(&mut expected, &[0x0807_0605_0403_0201], &[]);
    expected.resize(100, 0);
    numbers(&mut expected, &[], &[0o40_000]);
    expected.resize(128, 0);
    assert_eq!(bare_entry(&entry).as_bytes(), expected);
}

/// `fuse_statx_out`: lifetime and flags, then `fuse_statx`, whose fields are those of statx(2).
fn statx_bytes(mask: u32, btime: (i64, u32)) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers(&mut bytes, &[0x0102_0304], &[0x0506_0708, 0]);
    numbers(&mut bytes, &[0, 0], &[mask, 0x7473_7271]);
    numbers(&mut bytes, &[0], &[0x4443_4241, 0x5453_5251, 0x6463_6261]);
    bytes.extend_from_slice(&0x81a4u16.to_ne_bytes());
    bytes.extend_from_slice(&[0; 2]);
    numbers(
        &mut bytes,
        &[
            0x0807_0605_0403_0201,
            0x1817_1615_1413_1211,
            0x2827_2625_2423_2221,
            0,
        ],
        &[],
    );
    for (secs, nanos) in [
        (0x3837_3635_3433_3231, 999_999_999),
        btime,
        (i64::MIN, 0),
        (-1, 500_000_000),
    ] {
        bytes.extend_from_slice(&secs.to_ne_bytes());
        numbers(&mut bytes, &[], &[nanos, 0]);
    }
    numbers(&mut bytes, &[], &[8, 17, 0, 0]);
    bytes.resize(288, 0);
    bytes
}

#[test]
fn statx_says_when_it_was_made_only_where_that_is_known() {
    let with = statx_out(&some_attr(), LIFETIME);
    assert_eq!(with.as_bytes(), statx_bytes(0xfff, (-2, 7)));
    let without = union::Attr {
        btime: None,
        ..some_attr()
    };
    let without = statx_out(&without, LIFETIME);
    assert_eq!(without.as_bytes(), statx_bytes(0x7ff, (0, 0)));
}

#[test]
fn small_replies() {
    let in_order = |parts: &[u32]| {
        parts
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect::<Vec<_>>()
    };
    let open = wire::OpenOut {
        fh: 0,
        open_flags: 1,
        backing_id: 2,
    };
    assert_eq!(open.as_bytes(), in_order(&[0, 0, 1, 2]));
    let write = wire::WriteOut {
        size: 3,
        padding: 0,
    };
    assert_eq!(write.as_bytes(), in_order(&[3, 0]));
    let ioctl = wire::IoctlOut {
        result: 1,
        flags: 2,
        in_iovs: 3,
        out_iovs: 4,
    };
    assert_eq!(ioctl.as_bytes(), in_order(&[1, 2, 3, 4]));
    let statfs = wire::StatfsOut {
        blocks: 1,
        bfree: 2,
        bavail: 3,
        files: 4,
        ffree: 5,
        bsize: 6,
        namelen: 7,
        frsize: 8,
        ..Default::default()
    };
    let mut expected = Vec::new();
    numbers(&mut expected, &[1, 2, 3, 4, 5], &[6, 7, 8, 0]);
    expected.resize(80, 0);
    assert_eq!(statfs.as_bytes(), expected);
}

#[test]
fn headers() {
    let bytes = |unique: u64, outcome| out_header(unique, outcome).as_bytes().to_vec();
    let expected = |len: u32, error: i32, unique: u64| {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&error.to_ne_bytes());
        bytes.extend_from_slice(&unique.to_ne_bytes());
        bytes
    };
    assert_eq!(bytes(9, Ok(0)), expected(16, 0, 9));
    assert_eq!(bytes(u64::MAX, Ok(104)), expected(120, 0, u64::MAX));
    // ENOENT as the kernel wants it: negative, and no body.
    assert_eq!(bytes(9, Err(2)), expected(16, -2, 9));
    assert_eq!(bytes(9, Err(i32::MIN)), expected(16, i32::MAX, 9));
    assert_eq!(bytes(9, Ok(usize::MAX - 16)), expected(u32::MAX, 0, 9));
}

fn dir_entry(name: &[u8]) -> DirEntry {
    DirEntry {
        name: Name::from(name),
        kind: Kind::Symlink,
        ino: 0x0807_0605_0403_0201,
        cookie: 0x1817_1615_1413_1211,
    }
}

/// `fuse_dirent`: number, position, length, type (DT_LNK is 10), name, zeros up to a multiple of 8.
fn dirent_bytes(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = u32::try_from(name.len()).unwrap();
    numbers(
        &mut bytes,
        &[0x0807_0605_0403_0201, 0x1817_1615_1413_1211],
        &[length, 10],
    );
    bytes.extend_from_slice(name);
    while bytes.len() % 8 != 0 {
        bytes.push(0);
    }
    bytes
}

#[test]
fn directory_entries_are_padded_with_zeros() {
    for len in [1, 2, 7, 8, 9, 15, 16, 255] {
        let name = vec![b'n'; len];
        // What was in the buffer before does not get out.
        let mut buffer = [0xee; 512];
        let mut body = Body::new(&mut buffer);
        assert!(body.dirent(512, None, &dir_entry(&name)));
        let used = body.len();
        assert_eq!(buffer[..used], dirent_bytes(&name), "{len}");
        assert!(buffer[used..].iter().all(|byte| *byte == 0xee));
    }
}

#[test]
fn an_entry_with_attributes_has_them_in_front() {
    let entry = Entry {
        node: NodeId(7),
        attr: some_attr(),
    };
    let plus = entry_out(&entry, LIFETIME);
    let mut buffer = [0xee; 512];
    let mut body = Body::new(&mut buffer);
    assert!(body.dirent(512, Some(&plus), &dir_entry(b"abc")));
    assert_eq!(body.len(), 128 + 32);
    assert_eq!(buffer[..128], *plus.as_bytes());
    assert_eq!(buffer[128..160], dirent_bytes(b"abc"));
}

#[test]
fn an_entry_is_there_as_a_whole_or_not_at_all() {
    let plus = EntryOut::default();
    for (plus, size) in [(None, 32), (Some(&plus), 160)] {
        for limit in 0..=2 * size + 1 {
            // Either the kernel's word or the buffer is what bounds it.
            for (limit, room) in [(limit, 1024), (1024, limit)] {
                let mut buffer = vec![0xee; room];
                let mut body = Body::new(&mut buffer);
                let mut fitted = 0;
                while fitted < 9 && body.dirent(limit, plus, &dir_entry(b"abcdefgh")) {
                    fitted += 1;
                }
                let bound = limit.min(room);
                assert_eq!(fitted, (bound / size).min(9), "{bound} of {size}");
                let used = body.len();
                assert_eq!(used, fitted * size);
                assert!(buffer[used..].iter().all(|byte| *byte == 0xee));
            }
        }
    }
}

#[test]
fn a_body_takes_what_fits() {
    let mut buffer = [0xee; 20];
    let mut body = Body::new(&mut buffer);
    assert!(body.is_empty());
    assert_eq!(body.bytes(b"12345678"), Ok(()));
    assert_eq!(body.put(&wire::LseekOut { offset: 1 }), Ok(()));
    assert_eq!(body.put(&wire::LseekOut { offset: 2 }), Err(Errno::RANGE));
    assert_eq!(body.len(), 16);
    assert_eq!(body.bytes(b"abcd"), Ok(()));
    assert_eq!(body.bytes(b""), Ok(()));
    assert_eq!(body.bytes(b"e"), Err(Errno::RANGE));
    assert_eq!(body.len(), 20);
    let mut expected = b"12345678".to_vec();
    expected.extend_from_slice(&1u64.to_ne_bytes());
    expected.extend_from_slice(b"abcd");
    assert_eq!(buffer[..], expected);
}

#[test]
fn filling_gives_no_more_room_than_was_asked_for() {
    let mut buffer = [0; 20];
    let mut body = Body::new(&mut buffer);
    let room = |body: &mut Body<'_>, size: usize, says: usize| {
        let mut offered = 0;
        body.fill(size, |bytes| {
            offered = bytes.len();
            Ok::<_, Errno>(says)
        })
        .unwrap();
        (offered, body.len())
    };
    assert_eq!(room(&mut body, 8, 5), (8, 5));
    // What it says it wrote is not believed beyond what it was given.
    assert_eq!(room(&mut body, 4, 4096), (4, 9));
    assert_eq!(room(&mut body, usize::MAX, 1), (11, 10));
    assert_eq!(body.fill(4, |_| Err(Errno::IO)), Err(Errno::IO));
    assert_eq!(body.len(), 10);
}

#[test]
fn types_of_directory_entries_are_those_of_readdir() {
    for (kind, number) in [
        (Kind::Fifo, 1),
        (Kind::Char, 2),
        (Kind::Dir, 4),
        (Kind::Block, 6),
        (Kind::File, 8),
        (Kind::Symlink, 10),
        (Kind::Socket, 12),
    ] {
        assert_eq!(dirent_type(kind), number);
    }
}

#[test]
fn device_numbers_are_encoded_as_the_kernel_does() {
    for (major, minor, encoded) in [
        (0, 0, 0),
        (1, 3, 0x0000_0103),
        (8, 17, 0x0000_0811),
        (0, 255, 0x0000_00ff),
        (0, 256, 0x0010_0000),
        (259, 0x12345, 0x1231_0345),
        (0xfff, 0xf_ffff, 0xffff_ffff),
    ] {
        let rdev = rustix::fs::makedev(major, minor);
        assert_eq!(kernel_device(rdev), encoded, "{major}:{minor}");
        assert_eq!(device(encoded), rdev, "{major}:{minor}");
    }
}
