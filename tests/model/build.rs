//! Puts layers, and the tree that they must show, on a disk.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, ftruncate,
    linkat, lsetxattr, makedev, mkdirat, mknodat, symlinkat, utimensat,
};

use super::stack::{Dir, Layer, Leaf, Merged, MergedNode, Meta, Node, Opaque, Time, White, bytes};

/// Where the second half of a sparse file begins.
pub const HOLE: usize = 256 * 1024;

pub fn path(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(std::ffi::OsStr::from_bytes(name))
}

/// Writes a layer into an empty directory, marks and all.
pub fn write_layer(at: &Path, layer: &Layer) {
    let mut made = HashMap::new();
    write_dir(at, &layer.root, layer, &mut made);
}

fn write_dir(at: &Path, dir: &Dir, layer: &Layer, made: &mut HashMap<usize, PathBuf>) {
    let mut marks: Vec<(&str, &[u8])> = Vec::new();
    for form in &dir.opaque {
        match form {
            Opaque::Wh => mark(&at.join(".wh..wh..opq")),
            Opaque::Trusted => marks.push(("trusted.overlay.opaque", b"y")),
            Opaque::User => marks.push(("user.overlay.opaque", b"y")),
            Opaque::FuseOverlayfs => marks.push(("user.fuseoverlayfs.opaque", b"y")),
        }
    }
    if dir.leftover {
        let plnk = at.join(".wh..wh.plnk");
        std::fs::create_dir(&plnk).unwrap();
        mark(&plnk.join("7.8"));
        mark(&at.join(".wh..wh.aufs"));
    }
    for (name, slot) in &dir.entries {
        let here = path(at, name);
        match slot.white {
            None => {}
            Some(White::Wh) => mark(&path(at, &[b".wh.", &name[..]].concat())),
            Some(White::Trusted | White::User) => {
                let (space, opaque) = if slot.white == Some(White::User) {
                    ("user.overlay.whiteout", "user.overlay.opaque")
                } else {
                    ("trusted.overlay.whiteout", "trusted.overlay.opaque")
                };
                if marks.contains(&(opaque, b"y")) {
                    // One xattr cannot say both.
                    device_mark(&here);
                } else {
                    mark(&here);
                    set_xattr(&here, space.as_bytes(), b"y");
                    marks.push((opaque, b"x"));
                }
            }
            Some(White::Char) => device_mark(&here),
        }
        match &slot.node {
            None => {}
            Some(Node::Dir(inner)) => {
                mkdirat(CWD, &here, Mode::from_raw_mode(0o700)).unwrap();
                write_dir(&here, inner, layer, made);
            }
            Some(Node::Leaf(number)) => {
                let (leaf, meta) = &layer.leaves[*number];
                write_leaf(&here, leaf, meta, made, *number);
            }
        }
    }
    dress(at, &dir.meta, Some(0o755), true);
    for (name, value) in marks {
        set_xattr(at, name.as_bytes(), value);
    }
}

/// Writes the tree that a stack must show as ordinary directories.
pub fn write_merged(at: &Path, merged: &Merged, stack: &[Layer]) {
    write_merged_dir(at, merged, stack, &mut HashMap::new());
}

fn write_merged_dir(
    at: &Path,
    merged: &Merged,
    stack: &[Layer],
    made: &mut HashMap<(usize, usize), PathBuf>,
) {
    for (name, node) in &merged.entries {
        let here = path(at, name);
        match node {
            MergedNode::Dir(inner) => {
                mkdirat(CWD, &here, Mode::from_raw_mode(0o700)).unwrap();
                write_merged_dir(&here, inner, stack, made);
            }
            MergedNode::Leaf(layer, number) => {
                let (leaf, meta) = &stack[*layer].leaves[*number];
                write_leaf(&here, leaf, meta, made, (*layer, *number));
            }
        }
    }
    dress(at, &merged.meta, Some(0o755), true);
}

fn write_leaf<K: std::hash::Hash + Eq>(
    here: &Path,
    leaf: &Leaf,
    meta: &Meta,
    made: &mut HashMap<K, PathBuf>,
    key: K,
) {
    if let Some(first) = made.get(&key) {
        linkat(CWD, first, CWD, here, AtFlags::empty()).unwrap();
        return;
    }
    let mut usual = Some(0o644);
    match leaf {
        Leaf::File { len, sparse, seed } => {
            let data = bytes(*len, *seed);
            let file = std::fs::File::create(here).unwrap();
            rustix::io::pwrite(&file, &data, 0).unwrap();
            if *sparse {
                rustix::io::pwrite(&file, &data, HOLE as u64).unwrap();
                ftruncate(&file, 2 * HOLE as u64).unwrap();
            }
        }
        Leaf::Symlink(target) => {
            symlinkat(&target[..], CWD, here).unwrap();
            usual = None;
        }
        Leaf::Fifo => node(here, FileType::Fifo, 0),
        Leaf::Socket => node(here, FileType::Socket, 0),
        Leaf::Device => node(here, FileType::CharacterDevice, makedev(1, 3)),
    }
    dress(here, meta, usual, matches!(leaf, Leaf::File { .. }));
    made.insert(key, here.to_path_buf());
}

fn node(at: &Path, kind: FileType, dev: u64) {
    mknodat(CWD, at, kind, Mode::from_raw_mode(0o600), dev).unwrap();
}

fn mark(at: &Path) {
    std::fs::write(at, b"").unwrap();
}

fn device_mark(at: &Path) {
    node(at, FileType::CharacterDevice, 0);
}

fn set_xattr(at: &Path, name: &[u8], value: &[u8]) {
    lsetxattr(at, name, value, XattrFlags::empty()).unwrap();
}

/// Owner before mode (chown clears setuid), times last. `user.` xattrs only where `user` says they
/// can be.
fn dress(at: &Path, meta: &Meta, usual: Option<u32>, user: bool) {
    let (uid, gid) = (Uid::from_raw(meta.owner.0), Gid::from_raw(meta.owner.1));
    chownat(CWD, at, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    for (name, value) in &meta.xattrs {
        if user || !name.starts_with(b"user.") {
            set_xattr(at, name, value);
        }
    }
    if let Some(usual) = usual {
        let mode = Mode::from_raw_mode(meta.mode.unwrap_or(usual));
        rustix::fs::chmod(at, mode).unwrap();
    }
    set_times(at, meta.mtime);
}

fn set_times(at: &Path, (tv_sec, nanos): Time) {
    let time = Timespec {
        tv_sec,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
