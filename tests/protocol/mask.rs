//! What of a reply cannot be equal on another disk or at another time, by opcode and offset
//! (`fuse.h`).

use unionmount::internal::fuse::proto::Opcode;

use super::layout::LONG_AGO;

/// Bytes of `fuse_entry_out`, of the part in front of its attributes, and of `fuse_attr`.
pub const ENTRY: usize = 128;
const BEFORE_ATTR: usize = 40;
const ATTR: usize = 88;
/// Bytes of `fuse_attr_out` in front of its attributes.
const LIFETIME: usize = 16;
/// Bytes of `fuse_dirent` in front of the name.
const DIRENT: usize = 24;

/// What a body consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Entry,
    Attr,
    Statx,
    Statfs,
    Dirents {
        plus: bool,
    },
    /// Nothing in it depends on the disk or the clock.
    Literal,
}

pub fn shape(opcode: u32) -> Shape {
    match Opcode::from_number(opcode) {
        Some(
            Opcode::Lookup
            | Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Link
            | Opcode::Create
            | Opcode::Tmpfile,
        ) => Shape::Entry,
        Some(Opcode::Getattr | Opcode::Setattr) => Shape::Attr,
        Some(Opcode::Statx) => Shape::Statx,
        Some(Opcode::Statfs) => Shape::Statfs,
        Some(Opcode::Readdir) => Shape::Dirents { plus: false },
        Some(Opcode::Readdirplus) => Shape::Dirents { plus: true },
        _ => Shape::Literal,
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A time that the clock set becomes one that is the same for all of them; others stay.
fn clock(bytes: &mut [u8], secs: usize, nanos: usize) {
    if long(bytes, secs).cast_signed() > LONG_AGO + 1_000_000 {
        bytes[secs..secs + 8].fill(0xcc);
        bytes[nanos..nanos + 4].fill(0xcc);
    }
}

/// Any link count but none becomes 1.
fn some_links(links: &mut [u8]) {
    let some = short(links, 0).min(1);
    links.copy_from_slice(&some.to_ne_bytes());
}

fn attr(attr: &mut [u8]) {
    // Number, blocks, preferred block size.
    attr[..8].fill(0);
    attr[16..24].fill(0);
    attr[80..84].fill(0);
    for (secs, nanos) in [(24, 48), (32, 52), (40, 56)] {
        clock(attr, secs, nanos);
    }
    if short(attr, 60) & 0o170_000 == 0o40_000 {
        // The size of a directory is its disk's own business, and whether it counts subdirectories,
        // but not whether it is still there.
        attr[8..16].fill(0);
        some_links(&mut attr[64..68]);
    }
}

fn statx(statx: &mut [u8]) {
    // From where `fuse_statx` begins.
    let statx = &mut statx[32..];
    statx[4..8].fill(0);
    statx[32..40].fill(0);
    statx[48..56].fill(0);
    let mode = u16::from_ne_bytes([statx[28], statx[29]]);
    if mode & 0o170_000 == 0o40_000 {
        statx[40..48].fill(0);
        some_links(&mut statx[16..20]);
    }
    for at in [64, 80, 96, 112] {
        clock(statx, at, at + 8);
    }
}

/// One entry of a listing: where it begins and ends, and its name.
pub struct Record<'a> {
    pub start: usize,
    pub end: usize,
    pub name: &'a [u8],
}

/// The entries of a listing. Panics when they do not fill the body exactly.
pub fn records(body: &[u8], plus: bool) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    let mut start = 0;
    while start < body.len() {
        let dirent = start + if plus { ENTRY } else { 0 };
        let len = short(body, dirent + 16) as usize;
        let name = &body[dirent + DIRENT..dirent + DIRENT + len];
        let end = dirent + (DIRENT + len).next_multiple_of(8);
        assert!(end <= body.len(), "an entry beyond the end of a listing");
        records.push(Record { start, end, name });
        start = end;
    }
    records
}

/// The position behind an entry.
pub fn cookie(body: &[u8], record: &Record<'_>, plus: bool) -> u64 {
    long(body, record.start + if plus { ENTRY } else { 0 } + 8)
}

/// The body with everything of that kind wiped out.
pub fn masked(opcode: u32, body: &[u8]) -> Vec<u8> {
    let mut out = body.to_vec();
    match shape(opcode) {
        // No node, no attributes: those are zero, and compared.
        Shape::Entry if body.len() >= ENTRY && long(body, 0) != 0 => {
            attr(&mut out[BEFORE_ATTR..BEFORE_ATTR + ATTR]);
        }
        Shape::Attr if body.len() >= LIFETIME + ATTR => attr(&mut out[LIFETIME..LIFETIME + ATTR]),
        Shape::Statx if body.len() >= 288 => statx(&mut out),
        Shape::Statfs if body.len() >= 80 => {
            out[..44].fill(0);
            out[48..52].fill(0);
        }
        Shape::Dirents { plus } => {
            for record in records(body, plus) {
                let mut dirent = record.start;
                if plus {
                    attr(&mut out[dirent + BEFORE_ATTR..dirent + BEFORE_ATTR + ATTR]);
                    dirent += ENTRY;
                }
                out[dirent..dirent + 8].fill(0);
            }
        }
        _ => {}
    }
    out
}
