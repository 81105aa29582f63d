//! Layers as plain data: what a generated layer holds, and the merged tree that a stack of them
//! must show.
//!
//! The merge here is written from the specification alone and shares nothing with the union's own.

use std::collections::BTreeMap;

/// One component of a path.
pub type Name = Vec<u8>;
/// Components joined by slashes, without one in front; empty for the root.
pub type At = Vec<u8>;
/// Seconds and nanoseconds.
pub type Time = (i64, u32);

/// The directory and the name of a path; `None` for the root.
pub fn split(at: &[u8]) -> Option<(&[u8], &[u8])> {
    if at.is_empty() {
        return None;
    }
    match at.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&at[..slash], &at[slash + 1..])),
        None => Some((b"", at)),
    }
}

pub fn join(dir: &[u8], name: &[u8]) -> At {
    if dir.is_empty() {
        return name.to_vec();
    }
    [dir, b"/", name].concat()
}

/// Owner, permission bits, time and xattrs of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// `None`: what is usual for the type.
    pub mode: Option<u32>,
    pub owner: (u32, u32),
    pub mtime: Time,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub const USUAL_TIME: Time = (1_000_000_000, 5);

impl Default for Meta {
    fn default() -> Self {
        Self {
            mode: None,
            owner: (0, 0),
            mtime: USUAL_TIME,
            xattrs: Vec::new(),
        }
    }
}

/// The forms of a whiteout on disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum White {
    /// `.wh.NAME`
    Wh,
    /// Character device 0/0.
    Char,
    /// Empty file with `trusted.overlay.whiteout`, its directory with `opaque` = `x`.
    Trusted,
    /// The same in the `user.` namespace.
    User,
}

/// The forms of an opaque mark on disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Opaque {
    /// `.wh..wh..opq`
    Wh,
    Trusted,
    User,
    FuseOverlayfs,
}

/// Anything but a directory.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    /// Bytes made from a seed, with a hole in the middle of a sparse one.
    File {
        len: usize,
        sparse: bool,
        seed: u8,
    },
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    /// The null device.
    Device,
}

/// One line of a layer's description.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Dir,
    Leaf(Leaf),
    /// Another name of an earlier leaf of the same layer.
    Link(At),
    White(White),
    /// The directory at the path is opaque.
    Opaque(Opaque),
    /// An AUFS leftover in the directory at the path.
    Leftover,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub at: At,
    pub what: What,
    pub meta: Meta,
}

/// A layer's directory.
#[derive(Clone, Debug, Default)]
pub struct Dir {
    pub meta: Meta,
    pub entries: BTreeMap<Name, Slot>,
    pub opaque: Vec<Opaque>,
    pub leftover: bool,
}

/// What a layer has under a name; both when a `.wh.` file stands beside an entry.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub node: Option<Node>,
    pub white: Option<White>,
}

#[derive(Clone, Debug)]
pub enum Node {
    Dir(Dir),
    /// A number in [`Layer::leaves`]; names with the same number are hard links.
    Leaf(usize),
}

#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub root: Dir,
    pub leaves: Vec<(Leaf, Meta)>,
}

impl Layer {
    /// Follows the lines; those that fit nowhere (a file where a directory is needed, a name taken)
    /// are left out.
    pub fn new(items: &[Item]) -> Self {
        let mut layer = Self::default();
        for item in items {
            layer.add(item);
        }
        layer
    }

    fn add(&mut self, item: &Item) {
        if let What::Opaque(_) | What::Leftover = item.what {
            if let Some(dir) = self.dir(&item.at) {
                match item.what {
                    What::Opaque(form) if !dir.opaque.contains(&form) => dir.opaque.push(form),
                    What::Leftover => dir.leftover = true,
                    _ => {}
                }
            }
            return;
        }
        let Some((parent, name)) = split(&item.at) else {
            if item.what == What::Dir {
                self.root.meta = item.meta.clone();
            }
            return;
        };
        let number = match &item.what {
            What::Link(of) => match self.leaf_at(of) {
                Some(number) => number,
                None => return,
            },
            _ => self.leaves.len(),
        };
        let Some(dir) = self.dir(parent) else { return };
        let slot = dir.entries.entry(name.to_vec()).or_default();
        let in_place = slot.white.is_some_and(|form| form != White::Wh);
        match &item.what {
            What::White(form) => {
                // `.wh.` and a long name do not fit into 255 bytes.
                let form = match form {
                    White::Wh if name.len() > 251 => White::Char,
                    form => *form,
                };
                if slot.white.is_none() && (form == White::Wh || slot.node.is_none()) {
                    slot.white = Some(form);
                }
            }
            _ if in_place => {}
            What::Dir => match &mut slot.node {
                None => {
                    slot.node = Some(Node::Dir(Dir {
                        meta: item.meta.clone(),
                        ..Dir::default()
                    }));
                }
                Some(Node::Dir(dir)) => dir.meta = item.meta.clone(),
                Some(Node::Leaf(_)) => {}
            },
            _ if slot.node.is_some() => {}
            What::Leaf(leaf) => {
                slot.node = Some(Node::Leaf(number));
                self.leaves.push((leaf.clone(), item.meta.clone()));
            }
            _ => slot.node = Some(Node::Leaf(number)),
        }
    }

    /// The directory at a path, made with its parents when nothing is in the way.
    fn dir(&mut self, at: &[u8]) -> Option<&mut Dir> {
        let mut dir = &mut self.root;
        for name in at.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            let slot = dir.entries.entry(name.to_vec()).or_default();
            if slot.white.is_some_and(|form| form != White::Wh) {
                return None;
            }
            match slot.node.get_or_insert_with(|| Node::Dir(Dir::default())) {
                Node::Dir(inner) => dir = inner,
                Node::Leaf(_) => return None,
            }
        }
        Some(dir)
    }

    fn leaf_at(&self, at: &[u8]) -> Option<usize> {
        let mut dir = &self.root;
        let (parents, last) = split(at)?;
        for name in parents
            .split(|byte| *byte == b'/')
            .filter(|n| !n.is_empty())
        {
            match dir.entries.get(name)?.node.as_ref()? {
                Node::Dir(inner) => dir = inner,
                Node::Leaf(_) => return None,
            }
        }
        match dir.entries.get(last)?.node.as_ref()? {
            Node::Leaf(number) => Some(*number),
            Node::Dir(_) => None,
        }
    }
}

/// A directory of the merged tree.
#[derive(Debug, Default)]
pub struct Merged {
    pub meta: Meta,
    pub entries: BTreeMap<Name, MergedNode>,
}

#[derive(Debug)]
pub enum MergedNode {
    Dir(Merged),
    /// Number of the layer in the stack, number of the leaf in it.
    Leaf(usize, usize),
}

/// What a stack (newest first) must show.
pub fn merge(stack: &[Layer]) -> Merged {
    let roots: Vec<(usize, &Dir)> = stack.iter().map(|layer| &layer.root).enumerate().collect();
    merge_dirs(&cut(&roots))
}

/// The directories down to the first opaque one.
fn cut<'a>(dirs: &[(usize, &'a Dir)]) -> Vec<(usize, &'a Dir)> {
    let opaque = dirs.iter().position(|(_, dir)| !dir.opaque.is_empty());
    dirs[..opaque.map_or(dirs.len(), |at| at + 1)].to_vec()
}

fn merge_dirs(dirs: &[(usize, &Dir)]) -> Merged {
    let mut merged = Merged {
        meta: dirs[0].1.meta.clone(),
        entries: BTreeMap::new(),
    };
    for (_, dir) in dirs {
        for name in dir.entries.keys() {
            if merged.entries.contains_key(name) {
                continue;
            }
            if let Some(node) = merge_name(dirs, name) {
                merged.entries.insert(name.clone(), node);
            }
        }
    }
    merged
}

fn merge_name(dirs: &[(usize, &Dir)], name: &[u8]) -> Option<MergedNode> {
    let mut found: Vec<(usize, &Dir)> = Vec::new();
    for (layer, dir) in dirs {
        let Some(slot) = dir.entries.get(name) else {
            continue;
        };
        match &slot.node {
            Some(Node::Leaf(number)) if found.is_empty() => {
                return Some(MergedNode::Leaf(*layer, *number));
            }
            Some(Node::Leaf(_)) => break,
            Some(Node::Dir(inner)) => found.push((*layer, inner)),
            None => {}
        }
        if slot.white.is_some() {
            break;
        }
    }
    (!found.is_empty()).then(|| MergedNode::Dir(merge_dirs(&cut(&found))))
}

/// The bytes of a generated file or write.
pub fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed.into());
    (0..len).map(|_| random.u8(..)).collect()
}
