//! What is drawn at random: the stack, and requests whose node ids are chosen when it is known
//! which there are.

use proptest::prelude::*;
use unionmount::internal::fuse::proto::Opcode;
use unionmount::union::config::WhiteoutForm;

/// How a stack is put together, and what was agreed on with the kernel.
#[derive(Clone, Debug)]
pub struct Case {
    pub whiteout: WhiteoutForm,
    pub redirect_dir: bool,
    pub read_only: bool,
    pub no_xattrs: bool,
    pub squash: bool,
    pub opens: bool,
    pub writeback: bool,
    pub long_setxattr: bool,
}

pub fn case() -> impl Strategy<Value = Case> {
    let rarely = || prop::bool::weighted(0.1);
    (
        prop::sample::select(vec![WhiteoutForm::Wh, WhiteoutForm::Char]),
        any::<bool>(),
        rarely(),
        rarely(),
        rarely(),
        any::<bool>(),
        rarely(),
        any::<bool>(),
    )
        .prop_map(
            |(
                whiteout,
                redirect_dir,
                read_only,
                no_xattrs,
                squash,
                opens,
                writeback,
                long_setxattr,
            )| Case {
                whiteout,
                redirect_dir,
                read_only,
                no_xattrs,
                squash,
                opens,
                writeback,
                long_setxattr,
            },
        )
}

/// A request without its node ids.
#[derive(Clone, Debug)]
pub struct Draft {
    pub opcode: u32,
    /// Which of the known nodes; the highest are none.
    pub nodes: [u16; 2],
    pub names: [&'static [u8]; 2],
    /// For the fields of the structure, in their order.
    pub numbers: [u64; 6],
    pub data: Vec<u8>,
    pub uid: u32,
    /// A change of the finished request: where, and to what. It need not be a valid one any more.
    pub damage: Option<(u16, u8)>,
    pub cut: Option<u16>,
}

const LONGEST: &[u8] = &[b'n'; 255];
const TOO_LONG: &[u8] = &[b'n'; 256];
const NAMES: &[&[u8]] = &[
    b"a", b"b", b"c", b"d", b"e", b"u", b"only", b"twin", b"o", b"out", b"secret", b"gone",
    b"link", b"fifo", b"null", b"hidden", b"new1", b"new2", b"new3",
];
const HOSTILE: &[&[u8]] = &[
    b".",
    b"..",
    b"",
    b"/",
    b"a/b",
    b"../outside/secret",
    b"out/secret",
    b".wh.a",
    b".wh.",
    b".wh..",
    b".wh...",
    b".wh..wh..opq",
    b".wh..wh.plnk",
    b"\xff\xfe\n",
    b"work",
    LONGEST,
    TOO_LONG,
];
/// Names of xattrs, of which an overlay keeps some for itself.
pub const XATTRS: &[&[u8]] = &[
    b"user.label",
    b"user.x",
    b"trusted.label",
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"trusted.overlay.opaque",
    b"trusted.overlay.redirect",
    b"user.overlay.whiteout",
    b"trusted.overlay.unionmount.origin",
    b"user.fuseoverlayfs.opaque",
    b"trusted.overlay.overlay.opaque",
    b"nonsense",
    b"user.",
    b"",
    LONGEST,
    TOO_LONG,
];

fn name() -> impl Strategy<Value = &'static [u8]> {
    prop_oneof![
        8 => prop::sample::select(NAMES),
        1 => prop::sample::select(HOSTILE),
    ]
}

/// Numbers that are sizes, offsets, flags, modes, or none of these.
fn field() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..16u64,
        3 => 0..20_000u64,
        2 => (0..32u64).prop_map(|bit| 1 << bit),
        1 => prop::sample::select(vec![
            u64::MAX,
            u64::MAX - 1,
            1 << 63,
            (1 << 63) - 1,
            1 << 62,
            0xffff_ffff,
            0x7fff_ffff,
            0x8000_0000,
            0x3fff_ffff,
            0x3fff_fffe,
        ]),
        1 => any::<u64>(),
    ]
}

/// What is asked for more often than the rest.
const FREQUENT: &[Opcode] = &[
    Opcode::Lookup,
    Opcode::Lookup,
    Opcode::Lookup,
    Opcode::Rename2,
    Opcode::Rename2,
    Opcode::Rename,
    Opcode::Mkdir,
    Opcode::Mknod,
    Opcode::Unlink,
    Opcode::Rmdir,
    Opcode::Link,
    Opcode::Setattr,
    Opcode::Write,
    Opcode::Readdirplus,
    Opcode::Forget,
];

fn opcode() -> impl Strategy<Value = u32> {
    prop_oneof![
        10 => prop::sample::select(Opcode::ALL).prop_map(|opcode| opcode as u32),
        10 => prop::sample::select(FREQUENT).prop_map(|opcode| opcode as u32),
        1 => any::<u32>(),
    ]
}

pub fn draft() -> impl Strategy<Value = Draft> {
    let data = prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..64),
        1 => (0..9000usize).prop_map(|len| vec![b'd'; len]),
    ];
    (
        opcode(),
        [any::<u16>(), any::<u16>()],
        [name(), name()],
        [field(), field(), field(), field(), field(), field()],
        data,
        prop::sample::select(vec![0, 0, 0, 1000, u32::MAX]),
        prop::option::weighted(0.05, (any::<u16>(), any::<u8>())),
        prop::option::weighted(0.02, any::<u16>()),
    )
        .prop_map(
            |(opcode, nodes, names, numbers, data, uid, damage, cut)| Draft {
                opcode,
                nodes,
                names,
                numbers,
                data,
                uid,
                damage,
                cut,
            },
        )
}

pub fn drafts(most: usize) -> impl Strategy<Value = Vec<Draft>> {
    prop::collection::vec(draft(), most / 2..most)
}
