//! Random stacks and operations.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::driver::Form;
use super::ops::{Do, Mode, Op, Space, long};
use super::stack::{At, Item, Leaf, Meta, Name, Opaque, Time, USUAL_TIME, What, White, join};
use super::tree::Tree;

/// A stack, how it is mounted, one form after the other, and how often the trees are compared.
#[derive(Clone, Debug)]
pub struct Case {
    /// Newest first.
    pub lowers: Vec<Vec<Item>>,
    /// What is in the upper before the first mount.
    pub upper: Vec<Item>,
    pub forms: Vec<Form>,
    /// After so many operations.
    pub every: usize,
}

/// Which path an operation is about, chosen when it is its turn.
#[derive(Clone, Debug)]
pub enum Pick {
    Any(Index),
    File(Index),
    Dir(Index),
    /// A name in some directory, there or not.
    Name(Index, Name),
}

/// An operation whose paths are still open.
#[derive(Clone, Debug)]
pub struct Draft {
    pub what: Do,
    pub at: Pick,
    pub to: Pick,
}

impl Draft {
    /// Chooses the paths in the tree as it is now.
    pub fn resolve(&self, tree: &Tree) -> Op {
        Op {
            what: self.what.clone(),
            at: self.at.resolve(tree),
            to: match self.what {
                Do::Link | Do::Rename(_) | Do::HeldLink(_) => self.to.resolve(tree),
                _ => At::new(),
            },
        }
    }
}

impl Pick {
    fn resolve(&self, tree: &Tree) -> At {
        let of_kind = |kind: &str, index: &Index| {
            let fitting = tree.iter().filter(|(_, object)| kind.contains(object.kind));
            let paths: Vec<&At> = fitting.map(|(at, _)| at).collect();
            match paths.len() {
                0 => b"a".to_vec(),
                len => paths[index.index(len)].clone(),
            }
        };
        match self {
            Self::Any(index) => of_kind("-dlpscb", index),
            Self::File(index) => of_kind("-", index),
            Self::Dir(index) => of_kind("d", index),
            Self::Name(index, name) => join(&of_kind("d", index), name),
        }
    }
}

/// Names that are looked for where they are not listed, too.
pub fn common_names() -> Vec<Name> {
    ["a", "b", "c", "d", ".hidden"]
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect()
}

fn odd_names() -> Vec<Name> {
    vec![
        b"\xff\xfe".to_vec(),
        b"sp ace".to_vec(),
        b"new\nline".to_vec(),
        b".hidden".to_vec(),
        b"..x".to_vec(),
        b".wh".to_vec(),
        b"work".to_vec(),
        b"x.wh.a".to_vec(),
        long(b'v', 251),
        long(b'w', 252),
        long(b'x', 255),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        5 => select(common_names()),
        1 => select(odd_names()),
    ]
}

fn path() -> impl Strategy<Value = At> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join(&b'/'))
}

fn time() -> impl Strategy<Value = Time> {
    select(vec![
        USUAL_TIME,
        (-300_000_000, 1),
        (-1, 999_999_999),
        (0, 0),
        (1_600_000_000, 123_456_789),
        (5_000_000_000, 7),
        (13_000_000_000, 0),
    ])
}

fn owner() -> impl Strategy<Value = (u32, u32)> {
    prop_oneof![
        2 => Just((0, 0)),
        1 => select(vec![(1000, 1000), (0, 50), (1, 0), (100_000, 4_000_000_000)]),
    ]
}

const FILE_MODES: [u32; 8] = [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o6711, 0, 0o444];
const DIR_MODES: [u32; 7] = [0o755, 0o700, 0o1777, 0o2775, 0o555, 0o3770, 0];

fn xattr_name() -> impl Strategy<Value = Name> {
    let names = ["user.a", "user.b", "trusted.a", "security.a"];
    select(names.map(|name| name.as_bytes().to_vec()).to_vec())
}

/// Also names that another overlay, stacked on this one, would use.
fn set_xattr_name() -> impl Strategy<Value = Name> {
    let overlay = ["user.overlay.opaque", "trusted.overlay.whiteout"];
    prop_oneof![
        5 => xattr_name(),
        1 => select(overlay.map(|name| name.as_bytes().to_vec()).to_vec()),
    ]
}

fn xattr_value() -> impl Strategy<Value = Vec<u8>> {
    select(vec![
        b"".to_vec(),
        b"y".to_vec(),
        b"a\0b".to_vec(),
        long(b'v', 300),
    ])
}

/// A POSIX ACL, as the kernel stores it (version 2; tag, permissions, id).
fn acl() -> impl Strategy<Value = (Name, Vec<u8>)> {
    let names = ["system.posix_acl_access", "system.posix_acl_default"];
    let name = select(names.map(|name| name.as_bytes().to_vec()).to_vec());
    let entries: [(u16, u16, u32); 5] = [
        (1, 7, u32::MAX),
        (2, 5, 1000),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 1, u32::MAX),
    ];
    let minimal = [0, 2, 4].map(|entry| entries[entry]);
    let value = |entries: &[(u16, u16, u32)]| {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    };
    (name, select(vec![value(&entries), value(&minimal)]))
}

fn meta(modes: &'static [u32]) -> impl Strategy<Value = Meta> {
    let xattrs = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::btree_map(xattr_name(), xattr_value(), 1..3)
            .prop_map(|map| map.into_iter().collect()),
    ];
    let mode = prop::option::weighted(0.4, select(modes));
    (mode, owner(), time(), xattrs).prop_map(|(mode, owner, mtime, xattrs)| Meta {
        mode,
        owner,
        mtime,
        xattrs,
    })
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    select(vec![
        b"a".to_vec(),
        b"nowhere/\xff".to_vec(),
        b"..".to_vec(),
        long(b't', 4095),
    ])
}

fn leaf() -> impl Strategy<Value = Leaf> {
    let len = select(vec![0, 1, 10, 4096, 10_000]);
    prop_oneof![
        6 => (len, prop::bool::weighted(0.1), any::<u8>())
            .prop_map(|(len, sparse, seed)| Leaf::File { len, sparse, seed }),
        1 => target().prop_map(Leaf::Symlink),
        1 => select(vec![Leaf::Fifo, Leaf::Socket, Leaf::Device]),
    ]
}

fn item() -> impl Strategy<Value = (Item, Index)> {
    let white = select(vec![
        White::Wh,
        White::Wh,
        White::Char,
        White::Trusted,
        White::User,
    ]);
    let opaque = select(vec![
        Opaque::Wh,
        Opaque::Trusted,
        Opaque::User,
        Opaque::FuseOverlayfs,
    ]);
    let plain = |what| (Just(what), Just(Meta::default())).boxed();
    let what_and_meta = prop_oneof![
        6 => (leaf().prop_map(What::Leaf), meta(&FILE_MODES)),
        4 => (Just(What::Dir), meta(&DIR_MODES)),
        3 => (white.prop_map(What::White), Just(Meta::default())),
        1 => (opaque.prop_map(What::Opaque), Just(Meta::default())),
        2 => plain(What::Link(At::new())),
        1 => plain(What::Leftover).prop_filter("rare", |_| true),
    ];
    (path(), what_and_meta, any::<Index>()).prop_map(|(at, (what, meta), index)| {
        let at = match what {
            // Also the root.
            What::Opaque(_) | What::Leftover if index.index(8) == 0 => At::new(),
            _ => at,
        };
        (Item { at, what, meta }, index)
    })
}

fn layer(most: usize) -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec(item(), 0..most).prop_map(|items| {
        let mut layer: Vec<Item> = Vec::new();
        for (mut item, index) in items {
            if let What::Link(of) = &mut item.what {
                let leaves = layer.iter().filter(|i| matches!(i.what, What::Leaf(_)));
                let leaves: Vec<&At> = leaves.map(|item| &item.at).collect();
                if leaves.is_empty() {
                    continue;
                }
                *of = leaves[index.index(leaves.len())].clone();
            }
            layer.push(item);
        }
        layer
    })
}

fn form() -> impl Strategy<Value = Form> {
    let often = prop::bool::weighted(0.1);
    (
        any::<bool>(),
        any::<bool>(),
        often,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(char_marks, redirect, sync, cold, plus)| Form {
            char_marks,
            redirect,
            sync,
            cold,
            plus,
        })
}

/// Mostly the same form at every mount.
fn forms() -> impl Strategy<Value = Vec<Form>> {
    prop_oneof![
        3 => form().prop_map(|form| vec![form]),
        1 => prop::collection::vec(form(), 2..4),
    ]
}

pub fn case() -> impl Strategy<Value = Case> {
    let upper = prop_oneof![3 => Just(Vec::new()), 1 => layer(8)];
    let every = select(vec![1, 1, 1, 4, 1000]);
    (
        prop::collection::vec(layer(14), 1..5),
        upper,
        forms(),
        every,
    )
        .prop_map(|(lowers, upper, forms, every)| Case {
            lowers,
            upper,
            forms,
            every,
        })
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        8 => any::<Index>().prop_map(Pick::Any),
        2 => new_name(),
    ]
}

fn file() -> impl Strategy<Value = Pick> {
    prop_oneof![
        8 => any::<Index>().prop_map(Pick::File),
        1 => pick(),
    ]
}

fn dir() -> impl Strategy<Value = Pick> {
    prop_oneof![
        8 => any::<Index>().prop_map(Pick::Dir),
        1 => pick(),
    ]
}

fn new_name() -> impl Strategy<Value = Pick> {
    let name = prop_oneof![
        30 => name(),
        1 => select(vec![b".wh.q".to_vec(), b".wh..wh..opq".to_vec(), long(b'z', 256)]),
    ];
    (any::<Index>(), name).prop_map(|(index, name)| Pick::Name(index, name))
}

fn size() -> impl Strategy<Value = u64> {
    select(vec![0, 0, 1, 5, 4096, 5000, 300_000])
}

fn one(
    what: impl Strategy<Value = Do>,
    at: impl Strategy<Value = Pick>,
) -> impl Strategy<Value = Draft> {
    (what, at).prop_map(|(what, at)| Draft {
        what,
        to: at.clone(),
        at,
    })
}

fn two(
    what: impl Strategy<Value = Do>,
    at: impl Strategy<Value = Pick>,
    to: impl Strategy<Value = Pick>,
) -> impl Strategy<Value = Draft> {
    (what, at, to).prop_map(|(what, at, to)| Draft { what, at, to })
}

fn names() -> impl Strategy<Value = Draft> {
    let mode = || prop_oneof![3 => Just(Mode::Replace), 1 => Just(Mode::NoReplace), 2 => Just(Mode::Exchange)];
    prop_oneof![
        3 => one(select(&FILE_MODES[..]).prop_map(Do::Create), new_name()),
        4 => one(select(&DIR_MODES[..]).prop_map(Do::Mkdir), new_name()),
        1 => one(select(&FILE_MODES[..]).prop_map(Do::Fifo), new_name()),
        1 => one(target().prop_map(Do::Symlink), new_name()),
        2 => two(Just(Do::Link), pick(), new_name()),
        6 => one(Just(Do::Unlink), pick()),
        4 => one(Just(Do::Rmdir), dir()),
        6 => two(mode().prop_map(Do::Rename), pick(), new_name()),
        4 => two(mode().prop_map(Do::Rename), pick(), pick()),
        4 => two(mode().prop_map(Do::Rename), dir(), dir()),
    ]
}

fn contents() -> impl Strategy<Value = Draft> {
    let len = || select(vec![0usize, 1, 7, 4096, 5000]);
    let space = select(vec![
        Space::Allocate,
        Space::KeepSize,
        Space::PunchHole,
        Space::Zero,
    ]);
    prop_oneof![
        4 => one((size(), len(), any::<u8>()).prop_map(|(o, l, s)| Do::Write(o, l, s)), file()),
        3 => one((len(), any::<u8>()).prop_map(|(l, s)| Do::Append(l, s)), file()),
        3 => one(size().prop_map(Do::Truncate), file()),
        1 => one((space, size(), size()).prop_map(|(s, o, l)| Do::Fallocate(s, o, l)), file()),
        1 => one(Just(Do::Fsync), file()),
    ]
}

fn attributes() -> impl Strategy<Value = Draft> {
    let id = || select(vec![None, Some(0), Some(7), Some(70_000)]);
    let ids = (id(), id()).prop_filter("no change", |ids| *ids != (None, None));
    prop_oneof![
        3 => one(select(&FILE_MODES[..]).prop_map(Do::Chmod), pick()),
        2 => one(select(&DIR_MODES[..]).prop_map(Do::Chmod), dir()),
        2 => one(ids.prop_map(|(uid, gid)| Do::Chown(uid, gid)), pick()),
        2 => one(prop::option::of(time()).prop_map(Do::SetTime), pick()),
        3 => one((set_xattr_name(), xattr_value()).prop_map(|(n, v)| Do::SetXattr(n, v)), pick()),
        1 => one(acl().prop_map(|(n, v)| Do::SetXattr(n, v)), pick()),
        1 => one(acl().prop_map(|(n, v)| Do::SetXattr(n, v)), dir()),
        1 => one(acl().prop_map(|(n, _)| Do::RemoveXattr(n)), pick()),
        2 => one(set_xattr_name().prop_map(Do::RemoveXattr), pick()),
    ]
}

fn open_files() -> impl Strategy<Value = Draft> {
    let which = || 0..4usize;
    let len = select(vec![1usize, 10, 5000]);
    prop_oneof![
        4 => one(Just(Do::Hold), file()),
        2 => one(Just(Do::Hold), dir()),
        3 => one((which(), size(), len, any::<u8>()).prop_map(|(w, o, l, s)| Do::HeldWrite(w, o, l, s)), pick()),
        2 => one((which(), size()).prop_map(|(w, s)| Do::HeldTruncate(w, s)), pick()),
        2 => one((which(), select(&FILE_MODES[..])).prop_map(|(w, m)| Do::HeldChmod(w, m)), pick()),
        1 => one((which(), time()).prop_map(|(w, t)| Do::HeldSetTime(w, t)), pick()),
        1 => one((which(), name()).prop_map(|(w, n)| Do::HeldMkdir(w, n)), pick()),
        2 => one(select(&FILE_MODES[..]).prop_map(Do::Unnamed), dir()),
        3 => one(which().prop_map(Do::HeldLink), new_name()),
        1 => one(which().prop_map(Do::Release), pick()),
    ]
}

fn rest() -> impl Strategy<Value = Draft> {
    prop_oneof![
        2 => one(Just(Do::List), dir()),
        4 => one((1..5usize).prop_map(Do::More), pick()),
        1 => one(Just(Do::Forget), pick()),
        2 => one(Just(Do::Remount), pick()),
    ]
}

pub fn drafts(most: usize) -> impl Strategy<Value = Vec<Draft>> {
    let draft = prop_oneof![
        10 => names(),
        4 => contents(),
        4 => attributes(),
        3 => open_files(),
        2 => rest(),
    ];
    prop::collection::vec(draft, 1..most)
}
