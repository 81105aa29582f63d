//! Requests built by hand, byte after byte as `include/uapi/linux/fuse.h` has them, not by the
//! structures under test.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "these are tests"
)]

mod contexts;
mod shapes;

use super::super::opcode::Opcode;
use super::*;
use shapes::{Fields, SHAPES, expected};

/// A structure of these fields in the machine's byte order, without gaps: the kernel's have none.
fn structure(fields: Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (size, value) in fields {
        match size {
            4 => bytes.extend_from_slice(&u32::try_from(*value).unwrap().to_ne_bytes()),
            8 => bytes.extend_from_slice(&value.to_ne_bytes()),
            _ => panic!("no field has {size} bytes"),
        }
    }
    bytes
}

/// A whole request. The header's fields: length, opcode, number, node, user, group, process,
/// extensions, padding.
fn whole(opcode: u32, arg: &[u8], rest: &[u8], extensions: &[u8]) -> Vec<u8> {
    assert_eq!(extensions.len() % 8, 0);
    let len = 40 + arg.len() + rest.len() + extensions.len();
    let mut bytes = u32::try_from(len).unwrap().to_ne_bytes().to_vec();
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    bytes.extend_from_slice(&71u64.to_ne_bytes());
    bytes.extend_from_slice(&5u64.to_ne_bytes());
    for id in [1000u32, 1001, 4711] {
        bytes.extend_from_slice(&id.to_ne_bytes());
    }
    bytes.extend_from_slice(&((extensions.len() / 8) as u16).to_ne_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(arg);
    bytes.extend_from_slice(rest);
    bytes.extend_from_slice(extensions);
    bytes
}

fn of(opcode: Opcode, arg: &[u8], rest: &[u8]) -> Vec<u8> {
    whole(opcode as u32, arg, rest, &[])
}

/// The length in the header made that of the bytes.
fn with_its_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

fn parse(bytes: &[u8], long: bool) -> Result<Request<'_>, Errno> {
    let (header, arg, rest) = split(bytes, long)?;
    Request::parse(header, arg, rest)
}

/// What a request says, or its errno.
fn said(bytes: &[u8]) -> Result<Operation<'_>, Errno> {
    parse(bytes, true).map(|request| request.operation)
}

/// The shape of an operation, to be compared.
fn shown(bytes: &[u8]) -> String {
    format!("{:?}", said(bytes))
}

fn shape(opcode: Opcode) -> (Vec<u8>, &'static [u8]) {
    let (_, fields, rest) = SHAPES.iter().find(|shape| shape.0 == opcode).unwrap();
    (structure(fields), rest)
}

fn built(opcode: Opcode) -> Vec<u8> {
    let (arg, rest) = shape(opcode);
    of(opcode, &arg, rest)
}

#[test]
fn every_opcode_is_read_as_the_kernel_lays_it_out() {
    for opcode in Opcode::ALL {
        let bytes = built(*opcode);
        assert_eq!(shown(&bytes), expected(*opcode), "{opcode:?}");
        let header = parse(&bytes, true).unwrap().header;
        assert_eq!(
            (header.unique, header.nodeid, header.opcode),
            (71, 5, *opcode as u32)
        );
        assert_eq!((header.uid, header.gid, header.pid), (1000, 1001, 4711));
    }
    assert_eq!(SHAPES.len(), Opcode::ALL.len());
}

#[test]
fn a_structure_may_be_followed_by_rubbish() {
    for opcode in Opcode::ALL {
        let (mut arg, rest) = shape(*opcode);
        arg.resize(128, 0xaa);
        let bytes = built(*opcode);
        let (header, _, _) = split(&bytes, true).unwrap();
        let parsed = Request::parse(header, &arg, rest).map(|request| request.operation);
        assert_eq!(format!("{parsed:?}"), expected(*opcode), "{opcode:?}");
    }
}

/// A request that was cut off anywhere: nothing, or something shorter that means less. Nothing of
/// [`SHAPES`] has a second reading when it is cut, but for a symlink's or an opcode's part that is
/// not read.
#[test]
fn a_request_that_was_cut_off_is_invalid() {
    for opcode in Opcode::ALL {
        let bytes = built(*opcode);
        for len in 0..bytes.len() {
            // Once with a length that is not that of the bytes, once with it.
            assert_eq!(
                said(&bytes[..len]).err(),
                Some(Errno::INVAL),
                "{opcode:?} {len}"
            );
            if len < 4 {
                continue;
            }
            let detach_tree = with_its_length(bytes[..len].to_vec());
            assert_eq!(
                said(&detach_tree).err(),
                Some(Errno::INVAL),
                "{opcode:?} {len}"
            );
        }
        // The same without the header's word for it: a transport hands the parts over as it got
        // them.
        let (header, arg, rest) = split(&bytes, true).unwrap();
        for len in 0..arg.len() {
            let parsed = Request::parse(header, &arg[..len], rest);
            match opcode {
                // Nothing of what they say is needed.
                Opcode::Getattr | Opcode::Flush | Opcode::Syncfs => assert!(parsed.is_ok()),
                // The short form.
                Opcode::Setxattr if len >= 8 => assert!(parsed.is_ok(), "{len}"),
                _ => assert_eq!(parsed.err(), Some(Errno::INVAL), "{opcode:?} {len}"),
            }
        }
        for len in 0..rest.len() {
            let parsed = Request::parse(header, arg, &rest[..len]);
            assert_eq!(parsed.err(), Some(Errno::INVAL), "{opcode:?} {len}");
        }
    }
}

#[test]
fn bytes_behind_a_request_change_nothing() {
    for opcode in Opcode::ALL {
        let mut bytes = built(*opcode);
        bytes.extend_from_slice(b"more");
        assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?}");
        let bytes = with_its_length(bytes);
        assert_eq!(shown(&bytes), expected(*opcode), "{opcode:?}");
    }
}

#[test]
fn unknown_opcodes_are_not_implemented() {
    for number in [0, 7, 19, 54, 4096, u32::MAX] {
        let bytes = whole(number, &[], b"whatever", &[]);
        assert_eq!(said(&bytes).err(), Some(Errno::NOSYS), "{number}");
    }
}

/// Opcodes with a name in them that is made, moved or removed.
const NAMED: [Opcode; 10] = [
    Opcode::Symlink,
    Opcode::Mknod,
    Opcode::Mkdir,
    Opcode::Unlink,
    Opcode::Rmdir,
    Opcode::Rename,
    Opcode::Rename2,
    Opcode::Link,
    Opcode::Create,
    Opcode::Lookup,
];

#[test]
fn names_that_no_directory_can_hold_are_invalid() {
    for opcode in NAMED {
        let (arg, rest) = shape(opcode);
        let behind = rest.strip_prefix(b"name\0").unwrap();
        for bad in [&b"\0"[..], b"/\0", b"a/b\0", b"a/\0", b"/a\0", b"../x\0"] {
            let bytes = of(opcode, &arg, &[bad, behind].concat());
            assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?} {bad:?}");
        }
        // Its NUL is missing: the next name ends it, or nothing does.
        let bytes = of(opcode, &arg, &[b"name", behind].concat());
        assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?}");
        for dots in [&b".\0"[..], b"..\0"] {
            let bytes = of(opcode, &arg, &[dots, behind].concat());
            if opcode == Opcode::Lookup {
                assert!(
                    matches!(said(&bytes), Ok(Operation::Lookup { name }) if name == &dots[..dots.len() - 1])
                );
            } else {
                assert_eq!(
                    said(&bytes).err(),
                    Some(Errno::INVAL),
                    "{opcode:?} {dots:?}"
                );
            }
        }
        // Any other byte is part of a name.
        for odd in [&b"...\0"[..], b".wh.x\0", b"\xff\xfe\n\0", b" \0", b"\\\0"] {
            let bytes = of(opcode, &arg, &[odd, behind].concat());
            assert!(said(&bytes).is_ok(), "{opcode:?} {odd:?}");
        }
    }
    for opcode in [Opcode::Rename, Opcode::Rename2] {
        let (arg, _) = shape(opcode);
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"open", b""] {
            let bytes = of(opcode, &arg, &[b"name\0", bad].concat());
            assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?} {bad:?}");
        }
    }
}

#[test]
fn a_symlink_may_say_anything() {
    for target in [&b"\0"[..], b".\0", b"..\0", b"/\0", b"a/../b\0", b"\xff\0"] {
        let bytes = of(Opcode::Symlink, &[], &[b"name\0", target].concat());
        assert!(
            matches!(said(&bytes), Ok(Operation::Symlink { target: said, .. }) if said == &target[..target.len() - 1])
        );
    }
}

#[test]
fn names_of_xattrs_are_not_empty() {
    for (opcode, arg) in [
        (Opcode::Getxattr, &[0u8; 8][..]),
        (Opcode::Removexattr, &[]),
        (Opcode::Setxattr, &[0; 16]),
    ] {
        for bad in [&b""[..], b"\0", b"user.x"] {
            let bytes = of(opcode, arg, bad);
            assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?} {bad:?}");
        }
        for odd in [&b"user.a/b\0"[..], b".\0", b"..\0"] {
            assert!(said(&of(opcode, arg, odd)).is_ok(), "{opcode:?} {odd:?}");
        }
    }
}

#[test]
fn counts_that_lie_are_invalid() {
    let nodes = [0u8; 64];
    for count in [5u32, 0x1000_0000, 0x1000_0001, u32::MAX - 1, u32::MAX] {
        let arg = [count.to_ne_bytes(), [0; 4]].concat();
        let bytes = of(Opcode::BatchForget, &arg, &nodes);
        assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{count}");
    }
    for count in 0..=4u32 {
        let arg = [count.to_ne_bytes(), [0; 4]].concat();
        let bytes = of(Opcode::BatchForget, &arg, &nodes);
        let Ok(Operation::BatchForget(forgets)) = said(&bytes) else {
            panic!("{count}");
        };
        assert_eq!(forgets.iter().count(), count as usize);
    }
    let bytes = built(Opcode::BatchForget);
    let Ok(Operation::BatchForget(forgets)) = said(&bytes) else {
        panic!();
    };
    let nodes: Vec<_> = forgets
        .iter()
        .map(|one| (one.nodeid, one.nlookup))
        .collect();
    assert_eq!(nodes, [(5, 1), (6, 2)]);
}

#[test]
fn data_is_as_long_as_its_size_says() {
    for opcode in [Opcode::Write, Opcode::Ioctl] {
        let (arg, rest) = shape(opcode);
        let at = if opcode == Opcode::Write { 16 } else { 24 };
        for size in [5u32, 4096, i32::MAX as u32, u32::MAX] {
            let mut arg = arg.clone();
            arg[at..at + 4].copy_from_slice(&size.to_ne_bytes());
            let bytes = of(opcode, &arg, rest);
            assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?} {size}");
        }
        for size in 0..=4u32 {
            let mut arg = arg.clone();
            arg[at..at + 4].copy_from_slice(&size.to_ne_bytes());
            let bytes = of(opcode, &arg, rest);
            match said(&bytes) {
                Ok(Operation::Write { data, .. } | Operation::Ioctl { data, .. }) => {
                    assert_eq!(data, &rest[..size as usize]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn setxattr_has_two_forms() {
    let short = [5u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
    let bytes = of(Opcode::Setxattr, &short, b"user.x\0value");
    let Ok(Operation::Setxattr { arg, name, value }) =
        parse(&bytes, false).map(|request| request.operation)
    else {
        panic!();
    };
    assert_eq!((arg.size, arg.flags, arg.setxattr_flags), (5, 1, 0));
    assert_eq!((name, value), (&b"user.x"[..], &b"value"[..]));
    // Taken for the long one, its name would begin 8 bytes late.
    assert_eq!(parse(&bytes, true).err(), Some(Errno::INVAL));
    let bytes = built(Opcode::Setxattr);
    let Ok(Operation::Setxattr { arg, name, value }) =
        parse(&bytes, true).map(|request| request.operation)
    else {
        panic!();
    };
    assert_eq!((arg.size, arg.flags, arg.setxattr_flags), (5, 1, 1));
    assert_eq!((name, value), (&b"user.x"[..], &b"value"[..]));
    // And the long one, taken for the short one, would have its own flags for a name: so much
    // depends on what was agreed on.
    let Ok(Operation::Setxattr { name, value, .. }) =
        parse(&bytes, false).map(|request| request.operation)
    else {
        panic!();
    };
    let flags = 1u64.to_ne_bytes();
    let end = flags.iter().position(|byte| *byte == 0).unwrap();
    assert_eq!((name, value), (&flags[..end], &flags[end + 1..][..5]));
    for size in [6u32, u32::MAX] {
        let arg = [size.to_ne_bytes(), [0; 4]].concat();
        let bytes = of(Opcode::Setxattr, &arg, b"user.x\0value");
        assert_eq!(parse(&bytes, false).err(), Some(Errno::INVAL), "{size}");
    }
}

#[test]
fn extensions_that_are_longer_than_the_request_are_invalid() {
    for opcode in Opcode::ALL {
        let mut bytes = built(*opcode);
        for units in [u16::MAX, 200] {
            bytes[36..38].copy_from_slice(&units.to_ne_bytes());
            assert_eq!(said(&bytes).err(), Some(Errno::INVAL), "{opcode:?} {units}");
        }
    }
    // They take from the end what the name needs.
    let mut bytes = of(Opcode::Lookup, &[], b"abcdefghijk\0");
    bytes[36..38].copy_from_slice(&1u16.to_ne_bytes());
    assert_eq!(said(&bytes).err(), Some(Errno::INVAL));
    // Which is not the fixed structure.
    let mut bytes = of(Opcode::Mkdir, &[0; 8], b"abcdef\0");
    bytes[36..38].copy_from_slice(&1u16.to_ne_bytes());
    assert_eq!(said(&bytes).err(), Some(Errno::INVAL));
}
