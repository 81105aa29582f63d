//! Random operations in a volume, and the same in a plain directory: both must answer the same and
//! look the same.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rustix::fs::{AtFlags, CWD, Mode, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::union::config::Volume;
use crate::union::tests::testing::{Stack, content, file, find};
use crate::union::{Caller, Config, New, NodeId, RenameMode, SetAttr, Union};

/// The world that both sides live in: a path of at most two names out of a few.
fn path(random: &mut Rng) -> PathBuf {
    const NAMES: [&str; 5] = ["a", "b", "c", ".wh.a", "d"];
    let mut path = PathBuf::from(NAMES[random.usize(..5)]);
    for _ in 0..random.usize(..3) {
        path.push(NAMES[random.usize(..5)]);
    }
    path
}

/// Where a path leads in the union: directory and name.
fn place(union: &Union, top: NodeId, path: &Path) -> std::result::Result<(NodeId, Vec<u8>), Errno> {
    let mut at = top;
    let names: Vec<_> = path.iter().collect();
    let (last, dirs) = names.split_last().unwrap();
    for name in dirs {
        let entry = union
            .lookup(at, name.as_encoded_bytes())
            .map_err(|e| e.errno())?
            .ok_or(Errno::NOENT)?;
        if entry.attr.kind() != Kind::Dir {
            return Err(Errno::NOTDIR);
        }
        at = entry.node;
    }
    Ok((at, last.as_encoded_bytes().to_vec()))
}

fn node(union: &Union, top: NodeId, path: &Path) -> std::result::Result<NodeId, Errno> {
    let (dir, name) = place(union, top, path)?;
    let entry = union
        .lookup(dir, &name)
        .map_err(|e| e.errno())?
        .ok_or(Errno::NOENT)?;
    Ok(entry.node)
}

type Outcome = std::result::Result<(), Errno>;

/// Does one thing on both sides; both must answer the same.
fn step(union: &Union, top: NodeId, plain: &Path, random: &mut Rng) -> (String, Outcome, Outcome) {
    let mut direct = || loop {
        let path = path(random);
        let mut above = path.ancestors().skip(1);
        if !above.any(|dir| plain.join(dir).is_symlink()) {
            break path;
        }
    };
    let (one, two) = (direct(), direct());
    let (a, b) = (plain.join(&one), plain.join(&two));
    let std = |result: std::io::Result<()>| result.map_err(|e| Errno::from_io_error(&e).unwrap());
    let ours = |result: crate::union::Result<()>| result.map_err(|e| e.errno());
    let caller = Caller {
        uid: 5,
        gid: 6,
        umask: 0o022,
        ..Caller::default()
    };
    let make = |new: New<'_>| {
        place(union, top, &one)
            .and_then(|(dir, name)| ours(union.make(dir, &name, &new, &caller).map(drop)))
    };
    let to = |call: &dyn Fn(NodeId) -> crate::union::Result<()>| {
        node(union, top, &one).and_then(|node| ours(call(node)))
    };
    // Which of two reasons not to link a directory is said is the kernel's choice.
    let what = match random.usize(..12) {
        9 if a.is_dir() => 11,
        what => what,
    };
    let (expected, got) = match what {
        0 | 1 => (
            std(std::fs::File::create_new(&a)
                .map(|f| f.set_permissions(PermissionsExt::from_mode(0o640)).unwrap())
                .and_then(|()| std::os::unix::fs::chown(&a, Some(5), Some(6)))),
            make(file(0o660)),
        ),
        2 => (
            std(
                std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o755)
                    .create(&a)
                    .and_then(|()| std::os::unix::fs::chown(&a, Some(5), Some(6))),
            ),
            make(New::Dir { mode: 0o777 }),
        ),
        3 => (
            std(std::os::unix::fs::symlink("a", &a)
                .and_then(|()| std::os::unix::fs::lchown(&a, Some(5), Some(6)))),
            make(New::Symlink { target: b"a" }),
        ),
        4 => (
            rustix::fs::unlinkat(CWD, &a, AtFlags::empty()),
            place(union, top, &one).and_then(|(dir, name)| ours(union.unlink(dir, &name))),
        ),
        5 => (
            rustix::fs::unlinkat(CWD, &a, AtFlags::REMOVEDIR),
            place(union, top, &one).and_then(|(dir, name)| ours(union.rmdir(dir, &name))),
        ),
        6..=8 => {
            let (flags, mode) = [
                (RenameFlags::empty(), RenameMode::Replace),
                (RenameFlags::NOREPLACE, RenameMode::NoReplace),
                (RenameFlags::EXCHANGE, RenameMode::Exchange),
            ][what - 6];
            let moved = place(union, top, &one).and_then(|(dir, name)| {
                let (to, new) = place(union, top, &two)?;
                ours(union.rename(dir, &name, to, &new, mode))
            });
            (renameat_with(CWD, &a, CWD, &b, flags), moved)
        }
        9 => (
            linkat(CWD, &a, CWD, &b, AtFlags::empty()),
            node(union, top, &one).and_then(|node| {
                let (to, new) = place(union, top, &two)?;
                ours(union.link(node, to, &new).map(drop))
            }),
        ),
        10 => {
            let text = format!("{}", random.usize(..1000));
            let written = std::fs::symlink_metadata(&a).and_then(|meta| match meta.is_file() {
                true => std::os::unix::fs::FileExt::write_at(
                    &std::fs::OpenOptions::new().write(true).open(&a)?,
                    text.as_bytes(),
                    3,
                )
                .map(drop),
                false => Err(Errno::INVAL.into()),
            });
            let got = to(&|node| match union.getattr(node)?.kind() {
                Kind::File => union.write(node, 3, text.as_bytes()),
                _ => Err(Errno::INVAL.into()),
            });
            (std(written), got)
        }
        _ => {
            let mode = [0o600, 0o2755, 0o4711, 0o644][random.usize(..4)];
            let set = SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            };
            let changed = std::fs::symlink_metadata(&a).and_then(|meta| match meta.is_symlink() {
                true => Ok(()),
                false => std::fs::set_permissions(&a, PermissionsExt::from_mode(mode)),
            });
            let got = to(&|node| match union.getattr(node)?.kind() {
                Kind::Symlink => Ok(()),
                _ => union.setattr(node, &set).map(drop),
            });
            (std(changed), got)
        }
    };
    (
        format!("{what} {} {}", one.display(), two.display()),
        expected,
        got,
    )
}

type Seen = BTreeMap<PathBuf, (u32, u32, u32, u64, Vec<u8>)>;

fn tree_of(dir: &Path, below: &Path, seen: &mut Seen) {
    for entry in std::fs::read_dir(dir.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let meta = dir.join(&path).symlink_metadata().unwrap();
        let content = match () {
            () if meta.is_symlink() => std::fs::read_link(dir.join(&path))
                .unwrap()
                .into_os_string()
                .into_encoded_bytes(),
            () if meta.is_file() => std::fs::read(dir.join(&path)).unwrap(),
            () => Vec::new(),
        };
        seen.insert(
            path.clone(),
            (meta.mode(), meta.uid(), meta.gid(), meta.nlink(), content),
        );
        if meta.is_dir() {
            tree_of(dir, &path, seen);
        }
    }
}

fn tree_in(union: &Union, dir: NodeId, below: &Path, seen: &mut Seen) {
    let mut found = Vec::new();
    union
        .readdirplus(
            dir,
            0,
            |_| true,
            |listed, entry| {
                if let Some(entry) = entry {
                    assert_eq!(
                        (listed.ino, listed.kind),
                        (entry.attr.ino, entry.attr.kind())
                    );
                    found.push((listed.name.to_vec(), entry));
                }
                true
            },
        )
        .unwrap();
    for (name, entry) in found {
        let path = below.join(String::from_utf8(name).unwrap());
        let attr = entry.attr;
        let content = match attr.kind() {
            Kind::Symlink => union.readlink(entry.node).unwrap(),
            Kind::File => content(union, entry.node).into_bytes(),
            _ => Vec::new(),
        };
        seen.insert(
            path.clone(),
            (attr.mode, attr.uid, attr.gid, attr.nlink.into(), content),
        );
        if attr.kind() == Kind::Dir {
            tree_in(union, entry.node, &path, seen);
        }
        union.forget(entry.node, 1);
    }
}

#[test]
fn random_operations_do_what_they_do_in_a_plain_directory() {
    rustix::process::umask(Mode::empty());
    for seed in 1..=12 {
        let stack = Stack::new();
        for dir in ["vol", "plain"] {
            std::fs::create_dir(stack.at(dir)).unwrap();
        }
        let volume = Volume {
            source: stack.at("vol"),
            target: "/data".into(),
            read_only: false,
        };
        let union = Union::open(&Config {
            volumes: vec![volume],
            ..stack.config()
        })
        .unwrap();
        let top = find(&union, "data").node;
        let mut random = Rng::with_seed(seed);
        let mut log = Vec::new();
        for number in 0..800 {
            let (what, expected, got) = step(&union, top, &stack.at("plain"), &mut random);
            log.push(what);
            let last = &log[log.len().saturating_sub(12)..];
            assert_eq!(got, expected, "seed {seed}, {number}: {last:?}");
            if number % 25 == 0 {
                let (mut plain, mut disk, mut seen) = (Seen::new(), Seen::new(), Seen::new());
                tree_of(&stack.at("plain"), Path::new(""), &mut plain);
                tree_of(&stack.at("vol"), Path::new(""), &mut disk);
                tree_in(&union, top, Path::new(""), &mut seen);
                assert_eq!(disk, plain, "seed {seed}, {number}: {last:?}");
                assert_eq!(seen, plain, "seed {seed}, {number}: {last:?}");
            }
        }
    }
}
