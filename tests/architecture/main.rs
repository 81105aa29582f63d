//! Which room of `src/` may use which: read from the `use` lines and compared with one table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may use. A room stands below every room that uses it, so the
/// order of the lines rules out circles.
const ROOMS: &[(&str, &[&str])] = &[
    ("guide", &[]),
    ("sync", &[]),
    ("sys", &["sync"]),
    ("cancel", &["sync"]),
    ("layer", &["sync", "sys"]),
    ("union", &["sync", "sys", "layer"]),
    ("check", &["layer", "union"]),
    ("fuse", &["sync", "sys", "layer", "union"]),
    // `fuse` only for reading /proc/self/mountinfo.
    ("archive", &["sys", "cancel", "layer", "union", "fuse"]),
    (
        "store",
        &["sync", "sys", "cancel", "layer", "union", "fuse", "archive"],
    ),
    (
        "cli",
        &[
            "sync", "sys", "cancel", "layer", "union", "check", "fuse", "archive", "store",
        ],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(root: PathBuf) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root]);
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the room that a file below `src/` belongs to: `union` for `union/mod.rs`, `sync` for
/// `sync.rs`.
fn room(path: &Path) -> String {
    let first = path.strip_prefix(source()).unwrap().iter().next().unwrap();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Returns the room that a line imports from, if it is a `use crate::..` line.
fn imported(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (before, after) = line.split_once("use crate::")?;
    if !(before.is_empty() || before.starts_with("pub")) {
        return None;
    }
    assert!(
        !after.starts_with('{'),
        "one `use` line per room, not: {line}"
    );
    after
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
}

#[test]
fn each_room_uses_only_the_rooms_that_the_table_allows() {
    let mut wrong = BTreeSet::new();
    for path in files(source()) {
        let room = room(&path);
        if room == "lib" || room == "main" {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.insert(format!("{room} is not in the table of rooms"));
            continue;
        };
        for used in fs::read_to_string(&path)
            .unwrap()
            .lines()
            .filter_map(imported)
        {
            if used != room && !allowed.contains(&used) {
                wrong.insert(format!("{room} may not use {used} ({})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_rooms_has_no_circle() {
    for (line, (room, allowed)) in ROOMS.iter().enumerate() {
        for used in *allowed {
            let below = ROOMS[..line].iter().any(|(name, _)| name == used);
            assert!(below, "{room} may not use {used}: it does not stand below");
        }
    }
}
