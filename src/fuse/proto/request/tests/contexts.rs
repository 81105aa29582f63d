//! Extensions of a request: security contexts, groups, and what is neither.

use super::super::super::opcode::Opcode;
use super::super::*;
use super::{said, whole};
use crate::fuse::proto::operation::MOST_CONTEXTS;

/// A security context as the kernel lays it out: size of the value, padding, name, value, up to a
/// multiple of 8.
fn context(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(value.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(name);
    bytes.push(0);
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// An extension: its size with this header, its type (or number of contexts), its body.
fn extension(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + body.len()).unwrap();
    [&size.to_ne_bytes()[..], &kind.to_ne_bytes(), body].concat()
}

/// Name and value.
type Pair = (Vec<u8>, Vec<u8>);

/// What MKDIR finds among these extensions.
fn found(extensions: &[u8]) -> Result<Vec<Pair>, Errno> {
    let bytes = whole(Opcode::Mkdir as u32, &[0; 8], b"name\0", extensions);
    match said(&bytes)? {
        Operation::Mkdir { name, context, .. } => {
            assert_eq!(name, b"name");
            let owned = |(name, value): &(&[u8], &[u8])| (name.to_vec(), value.to_vec());
            Ok(context.xattrs().iter().map(owned).collect())
        }
        other => panic!("{other:?}"),
    }
}

fn pair(name: &[u8], value: &[u8]) -> Pair {
    (name.to_vec(), value.to_vec())
}

#[test]
fn none_one_and_several() {
    assert_eq!(found(&[]), Ok(vec![]));
    assert_eq!(found(&extension(0, &[])), Ok(vec![]));
    let (a, b) = (
        (&b"security.selinux"[..], &b"system_u:object_r:x\0"[..]),
        (&b"security.x"[..], &b""[..]),
    );
    let one = context(a.0, a.1);
    assert_eq!(found(&extension(1, &one)), Ok(vec![pair(a.0, a.1)]));
    let two = [one.clone(), context(b.0, b.1)].concat();
    let both = vec![pair(a.0, a.1), pair(b.0, b.1)];
    assert_eq!(found(&extension(2, &two)), Ok(both.clone()));
    // In extensions of their own, with groups between them.
    let groups = extension(32, &[1, 0, 0, 0, 232, 3, 0, 0]);
    let apart = [extension(1, &one), groups, extension(1, &context(b.0, b.1))];
    assert_eq!(found(&apart.concat()), Ok(both));
}

#[test]
fn every_operation_that_makes_something_takes_them() {
    let extension = extension(1, &context(b"security.x", b"label"));
    for (opcode, arg, rest) in [
        (Opcode::Mkdir, &[0u8; 8][..], &b"name\0"[..]),
        (Opcode::Mknod, &[0; 16], b"name\0"),
        (Opcode::Create, &[0; 16], b"name\0"),
        (Opcode::Symlink, &[], b"name\0target\0"),
        (Opcode::Tmpfile, &[0; 16], b""),
    ] {
        let bytes = whole(opcode as u32, arg, rest, &extension);
        let context = match said(&bytes) {
            Ok(
                Operation::Mkdir { context, .. }
                | Operation::Mknod { context, .. }
                | Operation::Create { context, .. }
                | Operation::Symlink { context, .. }
                | Operation::Tmpfile { context, .. },
            ) => context,
            other => panic!("{other:?}"),
        };
        assert_eq!(context.xattrs(), [(&b"security.x"[..], &b"label"[..])]);
    }
}

#[test]
fn padding_is_up_to_the_next_multiple_of_eight() {
    for len in 0..24 {
        let value = vec![b'v'; len];
        let body = [context(b"security.x", &value), context(b"security.y", b"2")].concat();
        let expected = vec![pair(b"security.x", &value), pair(b"security.y", b"2")];
        assert_eq!(found(&extension(2, &body)), Ok(expected), "{len}");
    }
}

/// The whole set of extensions is a multiple of 8 bytes; an extension in it need not say so.
#[test]
fn sizes_that_lie_are_invalid() {
    let body = context(b"security.x", b"label");
    let good = extension(1, &body);
    assert!(found(&good).is_ok());
    for size in [0u32, 1, 7, 8, 16, good.len() as u32 + 1, 4096, u32::MAX] {
        let mut lies = good.clone();
        lies[..4].copy_from_slice(&size.to_ne_bytes());
        assert_eq!(found(&lies), Err(Errno::INVAL), "extension of {size}");
    }
    for size in [14u32, 4096, i32::MAX as u32, u32::MAX] {
        let mut lies = good.clone();
        lies[8..12].copy_from_slice(&size.to_ne_bytes());
        assert_eq!(found(&lies), Err(Errno::INVAL), "value of {size}");
    }
    // More contexts than there are; fewer leave bytes that mean nothing.
    for count in 2..=31 {
        assert_eq!(
            found(&extension(count, &body)),
            Err(Errno::INVAL),
            "{count}"
        );
    }
    assert_eq!(found(&extension(0, &body)), Ok(vec![]));
    // A name without an end, and an empty one.
    let mut open = extension(1, &[&[0u8; 8][..], b"security"].concat());
    assert_eq!(found(&open), Err(Errno::INVAL));
    open[16..].fill(0);
    assert_eq!(found(&open), Err(Errno::INVAL));
    // A header without room for itself.
    assert_eq!(
        found(&[extension(0, &[]), vec![0; 8]].concat()),
        Err(Errno::INVAL)
    );
}

#[test]
fn there_is_room_for_some_contexts_and_no_more() {
    let one = context(b"security.x", b"label");
    let many = |count: usize| extension(u32::try_from(count).unwrap(), &one.repeat(count));
    assert_eq!(
        found(&many(MOST_CONTEXTS)).map(|all| all.len()),
        Ok(MOST_CONTEXTS)
    );
    assert_eq!(found(&many(MOST_CONTEXTS + 1)), Err(Errno::TOOBIG));
    assert_eq!(found(&many(31)), Err(Errno::TOOBIG));
    let apart = extension(1, &one).repeat(MOST_CONTEXTS + 1);
    assert_eq!(found(&apart), Err(Errno::TOOBIG));
}

#[test]
fn unknown_extensions_are_invalid() {
    for kind in [33, 64, 4096, u32::MAX] {
        assert_eq!(
            found(&extension(kind, &[0; 16])),
            Err(Errno::INVAL),
            "{kind}"
        );
    }
    assert_eq!(found(&extension(32, &[0; 16])), Ok(vec![]));
}

/// Whatever they are cut to is invalid, or has fewer of them.
#[test]
fn cut_off_extensions() {
    let three = extension(1, &context(b"security.x", b"label")).repeat(3);
    for len in (0..three.len()).step_by(8) {
        match found(&three[..len]) {
            Ok(fewer) => assert_eq!(len, fewer.len() * three.len() / 3),
            Err(errno) => assert_eq!(errno, Errno::INVAL),
        }
    }
}
