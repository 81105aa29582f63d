//! Archives that ask for more than there is.

use std::io::Write as _;
use std::time::{Duration, Instant};

use unionmount::internal::archive::codec::Encoder;
use unionmount::internal::archive::{Compression, ErrorKind, Limits, Unpack, unpack};

use super::build::{Place, Tar, head, octal};
use super::survey::survey;

/// Gives the same bytes again and again.
struct Endless {
    start: Vec<u8>,
    piece: Vec<u8>,
    at: usize,
}

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (bytes, from) = match self.at.checked_sub(self.start.len()) {
            None => (&self.start, self.at),
            Some(behind) => (&self.piece, behind % self.piece.len()),
        };
        let len = buffer.len().min(bytes.len() - from);
        buffer[..len].copy_from_slice(&bytes[from..from + len]);
        self.at += len;
        Ok(len)
    }
}

fn endless(start: Tar, piece: Vec<u8>) -> Endless {
    Endless {
        start: start.0,
        piece,
        at: 0,
    }
}

#[test]
fn an_archive_that_asks_for_too_much_is_refused() {
    let mut long_name = head("././@LongLink", b'L', 1 << 30);
    long_name.magic = super::build::GNU;
    let mut old_sparse = head("f", b'S', 0);
    old_sparse.magic = super::build::GNU;
    let mut sparse_block = old_sparse.block();
    sparse_block[482] = 1;
    super::build::seal(&mut sparse_block);
    let mut more = [0; 512];
    for pair in 0..21 {
        more[pair * 24..pair * 24 + 12].copy_from_slice(&octal(pair as u64, 12));
        more[pair * 24 + 12..pair * 24 + 24].copy_from_slice(&octal(0, 12));
    }
    more[504] = 1;
    let preface = || {
        let records: &[(&str, &[u8])] = &[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"1000000000000"),
            ("size", b"6000000"),
        ];
        Tar::new()
            .pax(records)
            .head(head("f", b'0', 0))
            .raw(b"1000000000\n")
    };
    let cases: Vec<(&str, Endless, &str)> = vec![
        (
            "an endless record",
            endless(Tar::new().head(head("x", b'x', 1 << 32)), vec![b'1'; 4096]),
            "--max-pax",
        ),
        (
            "endless records",
            endless(Tar::new(), Tar::new().pax(&[("comment", b"x")]).0),
            "--max-entries",
        ),
        (
            "endless global records",
            endless(Tar::new(), Tar::new().records(b'g', &[("comment", b"x")]).0),
            "--max-entries",
        ),
        (
            "endless entries",
            endless(Tar::new(), Tar::new().file("f", b"").0),
            "--max-entries",
        ),
        (
            "an endless name",
            endless(Tar::new().head(long_name), vec![b'n'; 4096]),
            "--max-path",
        ),
        (
            "a long path",
            endless(
                Tar::new().pax(&[("path", &[b'p'; 5000])]).file("f", b""),
                vec![0],
            ),
            "--max-path",
        ),
        (
            "a long link",
            endless(
                Tar::new()
                    .pax(&[("linkpath", &[b'p'; 5000])])
                    .symlink("f", b"x"),
                vec![0],
            ),
            "--max-path",
        ),
        (
            "an endless sparse map",
            endless(preface(), b"0\n0\n".repeat(128)),
            "--max-extents",
        ),
        (
            "an endless old sparse map",
            endless(Tar::new().raw(&sparse_block), more.to_vec()),
            "out of order",
        ),
        (
            "a large file",
            endless(Tar::new().head(head("f", b'0', 1 << 32)), vec![0; 4096]),
            "--max-size",
        ),
        (
            "an endless tail",
            endless(Tar::new().raw(&[0; 1024]), vec![0; 4096]),
            "--max-size",
        ),
    ];
    let limits = Limits {
        bytes: 8 << 20,
        entries: 3000,
        extents: 10_000,
        ..Limits::default()
    };
    let options = Unpack {
        limits,
        ..Unpack::default()
    };
    for (name, blob, expected) in cases {
        let place = Place::new();
        let begun = Instant::now();
        let err = unpack(blob, &place.target(), &options).expect_err(name);
        assert!(err.to_string().contains(expected), "{name}: {err}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}");
        assert_eq!(survey(&place.target()).len(), 1, "{name}");
    }
}

/// Far more zeros than may be written, in few bytes: before the limit is reached, and when it is.
#[test]
fn a_decompression_bomb_is_defused() {
    let limits = Limits {
        bytes: 4 << 20,
        ..Limits::default()
    };
    let options = Unpack {
        limits,
        ..Unpack::default()
    };
    let bombs = [
        Tar::new()
            .head(head("bomb", b'0', 10 << 30))
            .raw(&[0; 65536])
            .0,
        Tar::new()
            .file("d/a", b"")
            .file("bomb", &vec![0; 5 << 20])
            .end(),
        Tar::new()
            .file("first", &vec![0; 3 << 20])
            .file("bomb", &vec![0; 3 << 20])
            .end(),
    ];
    for bomb in bombs {
        for how in [Compression::Gzip, Compression::Zstd] {
            let mut encoder = Encoder::new(Vec::new(), how).unwrap();
            encoder.write_all(&bomb).unwrap();
            let packed = encoder.finish().unwrap();
            assert!(packed.len() < 20_000);
            let place = Place::new();
            let err = unpack(&packed[..], &place.target(), &options).unwrap_err();
            assert_eq!(err.kind(), ErrorKind::Limit, "{err}");
            assert!(err.to_string().contains("bomb"), "{err}");
            assert_eq!(survey(&place.target()).len(), 1);
        }
    }
}
