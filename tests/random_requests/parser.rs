//! Bytes for the parser: at random, and valid requests with some of them changed.

use proptest::prelude::*;
use unionmount::internal::fuse::proto::wire::InHeader;
use unionmount::internal::fuse::proto::{Opcode, Operation, Request};
use unionmount::internal::fuse::proto::{fixed_size, split};
use zerocopy::FromBytes;

/// One request of each kind and length that Linux was seen to send, and of each opcode some with
/// zeros in them.
pub fn corpus() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let recorded = [
        include_str!("../protocol/ordinary.txt"),
        include_str!("../protocol/opens.txt"),
    ];
    for line in recorded.iter().flat_map(|text| text.lines()) {
        let Some(parts) = line.strip_prefix("> ") else {
            continue;
        };
        let hex: Vec<u8> = parts.bytes().filter(u8::is_ascii_hexdigit).collect();
        let request: Vec<u8> = hex
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let same = |other: &Vec<u8>| other.len() == request.len() && other[4..8] == request[4..8];
        if request.len() < 512 && !corpus.iter().any(same) {
            corpus.push(request);
        }
    }
    for opcode in Opcode::ALL {
        // One or two bytes from names that cannot be.
        for names in [
            &b"name\0other\0"[..],
            b"..\0a\0",
            b"a\0..\0",
            b"a\0.\0",
            b"/\0b\0",
        ] {
            let mut request = vec![0; 40 + opcode.fixed_size()];
            request.extend_from_slice(names);
            // A security context: 8 bytes of header, 8 of its own, name and value.
            request.extend_from_slice(&[32, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
            request.extend_from_slice(b"security.x\0label");
            request[4..8].copy_from_slice(&(*opcode as u32).to_ne_bytes());
            request[36] = 4;
            fit(&mut request);
            corpus.push(request);
        }
    }
    corpus
}

/// Puts the length of a request into it.
fn fit(request: &mut [u8]) {
    let len = request.len() as u32;
    if let Some(place) = request.get_mut(..4) {
        place.copy_from_slice(&len.to_ne_bytes());
    }
}

/// One change of a request.
#[derive(Clone, Debug)]
enum Change {
    Byte(u16, u8),
    Number(u16, u32),
    Cut(u16),
    Append(Vec<u8>),
    Length(u32),
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        0..64u32,
        any::<u32>(),
        Just(u32::MAX),
        Just(i32::MAX as u32),
        (0..32u32).prop_map(|bit| 1 << bit),
    ];
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\0./a"[..])];
    prop_oneof![
        4 => (any::<u16>(), byte).prop_map(|(at, byte)| Change::Byte(at, byte)),
        4 => (any::<u16>(), number).prop_map(|(at, number)| Change::Number(at, number)),
        2 => any::<u16>().prop_map(Change::Cut),
        1 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Change::Append),
        1 => any::<u32>().prop_map(Change::Length),
    ]
}

fn mutated(mut request: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let len = request.len().max(1);
        match change {
            Change::Byte(at, byte) => {
                if let Some(place) = request.get_mut(usize::from(at) % len) {
                    *place = byte;
                }
            }
            Change::Number(at, number) => {
                let at = usize::from(at) % len / 4 * 4;
                if let Some(place) = request.get_mut(at..at + 4) {
                    place.copy_from_slice(&number.to_ne_bytes());
                }
            }
            Change::Cut(at) => {
                request.truncate(usize::from(at) % len);
                fit(&mut request);
            }
            Change::Append(bytes) => {
                request.extend_from_slice(&bytes);
                fit(&mut request);
            }
            Change::Length(length) => {
                if let Some(place) = request.get_mut(..4) {
                    place.copy_from_slice(&length.to_ne_bytes());
                }
            }
        }
    }
    request
}

/// Bytes at random, with a length of their own, and changed requests.
pub fn request(corpus: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let random = prop::collection::vec(any::<u8>(), 0..400);
    let fitting = (random.clone(), 0..64u32).prop_map(|(mut bytes, opcode)| {
        if let Some(place) = bytes.get_mut(4..8) {
            place.copy_from_slice(&opcode.to_ne_bytes());
        }
        fit(&mut bytes);
        bytes
    });
    let valid = prop::sample::select(corpus.to_vec());
    let changed = (valid, prop::collection::vec(change(), 0..5))
        .prop_map(|(request, changes)| mutated(request, changes));
    prop_oneof![1 => random, 2 => fitting, 6 => changed]
}

fn check_name(name: &[u8]) {
    assert!(!name.is_empty() && !name.contains(&0) && !name.contains(&b'/'));
    assert!(name != b"." && name != b"..");
}

/// What holds of every request that was accepted.
fn check_operation(operation: &Operation<'_>, rest: &[u8]) {
    match operation {
        Operation::Lookup { name } => assert!(!name.is_empty() && !name.contains(&b'/')),
        Operation::Mknod { name, .. }
        | Operation::Mkdir { name, .. }
        | Operation::Symlink { name, .. }
        | Operation::Unlink { name }
        | Operation::Rmdir { name }
        | Operation::Link { name, .. }
        | Operation::Create { name, .. } => check_name(name),
        Operation::Rename { name, newname, .. } => {
            check_name(name);
            check_name(newname);
        }
        Operation::Write { arg, data } => assert_eq!(arg.size as usize, data.len()),
        Operation::Ioctl { arg, data } => assert_eq!(arg.in_size as usize, data.len()),
        Operation::Setxattr { arg, name, value } => {
            assert_eq!(arg.size as usize, value.len());
            assert!(!name.is_empty() && !name.contains(&0));
        }
        Operation::Getxattr { name, .. } | Operation::Removexattr { name } => {
            assert!(!name.is_empty() && !name.contains(&0));
        }
        Operation::BatchForget(forgets) => {
            assert!(forgets.iter().count() * 16 <= rest.len());
        }
        _ => {}
    }
}

/// Takes a request apart in both forms and as both transports do.
pub fn check(bytes: &[u8]) {
    for long in [false, true] {
        let (header, arg, rest) = match split(bytes, long) {
            Ok(parts) => parts,
            Err(errno) => {
                assert_eq!(errno, rustix::io::Errno::INVAL);
                continue;
            }
        };
        assert_eq!(arg.len(), fixed_size(header.opcode, long));
        assert_eq!(InHeader::read_from_prefix(bytes).unwrap().0, header);
        let parsed = Request::parse(header, arg, rest);
        match &parsed {
            Ok(request) => check_operation(&request.operation, rest),
            Err(errno) => {
                let expected = match Opcode::from_number(header.opcode) {
                    None => &[rustix::io::Errno::NOSYS][..],
                    Some(_) => &[rustix::io::Errno::INVAL, rustix::io::Errno::TOOBIG],
                };
                assert!(expected.contains(errno), "{errno}");
            }
        }
        // The short form of SETXATTR is cut to its size by the server.
        if long {
            let fixed = [arg, &vec![0xaa; 128 - arg.len()]].concat();
            let other = Request::parse(header, &fixed, rest);
            assert_eq!(format!("{parsed:?}"), format!("{other:?}"));
        }
    }
}
