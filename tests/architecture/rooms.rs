//! Rooms and the arrows between them.

use std::collections::BTreeSet;
use std::fs;

use crate::sources::{code_lines, src_files, within_src};

/// Rooms that stand one above the other: each line may use the rooms named in it, all of which
/// stand in lines before it, so that there is no circle.
type Table = &'static [(&'static str, &'static [&'static str])];

/// The rooms of the crate. The drawing in `src/lib.rs` is made of this table.
const ROOMS: Table = &[
    ("sync", &[]),
    ("sys", &["sync"]),
    ("cancel", &["sync", "sys"]),
    ("layer", &["sync", "sys"]),
    ("union", &["sync", "sys", "layer"]),
    ("archive", &["sys", "cancel", "layer", "union"]),
    ("check", &["layer", "union"]),
    ("fuse", &["sync", "sys", "layer", "union"]),
    (
        "store",
        &["sync", "sys", "cancel", "layer", "union", "archive"],
    ),
    (
        "cli",
        &[
            "sync", "sys", "cancel", "layer", "union", "archive", "check", "fuse", "store",
        ],
    ),
];

/// Rooms within rooms, lowest first: each may use those before it, and the plain files beside the
/// rooms (`types.rs`, `error.rs`, ..). Files beside the rooms may use all of them: they put
/// together what the rooms offer.
const INNER: &[(&str, &[&str])] = &[
    (
        "union",
        &[
            "node",
            "work",
            "merge",
            "copyup",
            "live",
            "file",
            "namespace",
            "volume",
        ],
    ),
    ("fuse", &["proto", "serve", "transport", "session"]),
    ("archive", &["tar", "codec", "disk", "extract", "pack"]),
    (
        "store",
        &[
            "base",
            "catalog",
            "tree",
            "volume",
            "image",
            "container",
            "upkeep",
        ],
    ),
    ("cli", &["options", "ui", "mounting", "commands"]),
];

/// The names of a path that a line uses, from the crate's root: of `use crate::a::b::C;` and of
/// paths in code.
fn paths_in(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        if line[..at].ends_with(is_name) {
            continue;
        }
        let names = line[at + "crate::".len()..].split("::");
        let path = names
            .map(|name| name.chars().take_while(|c| is_name(*c)).collect::<String>())
            .take_while(|name| !name.is_empty());
        found.push(path.collect());
    }
    found
}

/// The room that a file is in, as it counts among the rooms of `top`.
fn inner_room(parts: &[String], rooms: &[&'static str]) -> Option<&'static str> {
    let second = parts.get(1)?.trim_end_matches(".rs");
    rooms.iter().copied().find(|room| *room == second)
}

#[test]
fn each_room_uses_only_the_rooms_that_the_table_allows() {
    let mut wrong = BTreeSet::new();
    for file in src_files() {
        let parts = within_src(&file);
        let room = parts[0].trim_end_matches(".rs").to_owned();
        if matches!(room.as_str(), "lib" | "main" | "guide") {
            continue;
        }
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrong.insert(format!("{room} is not in the table of rooms"));
            continue;
        };
        for path in code_lines(&file).iter().flat_map(|line| paths_in(line)) {
            let Some(used) = path.first() else {
                continue;
            };
            let is_room = ROOMS.iter().any(|(name, _)| name == used);
            if is_room && *used != room && !allowed.contains(&used.as_str()) {
                wrong.insert(format!("{room} may not use {used} ({})", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn inner_rooms_use_only_those_below_them() {
    let mut wrong = BTreeSet::new();
    for file in src_files() {
        let parts = within_src(&file);
        let Some((top, rooms)) = INNER.iter().find(|(top, _)| *top == parts[0]) else {
            continue;
        };
        let Some(room) = inner_room(&parts, rooms) else {
            continue;
        };
        let level = |name: &str| rooms.iter().position(|room| *room == name);
        for path in code_lines(&file).iter().flat_map(|line| paths_in(line)) {
            let (Some(first), Some(second)) = (path.first(), path.get(1)) else {
                continue;
            };
            if first == top && level(second) > level(room) {
                let file = file.display();
                wrong.insert(format!("{top}/{room} may not use {top}/{second} ({file})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_no_circle_and_the_rooms_are_there() {
    for (line, (room, allowed)) in ROOMS.iter().enumerate() {
        for used in *allowed {
            let below = ROOMS[..line].iter().any(|(name, _)| name == used);
            assert!(below, "{room} may not use {used}: it does not stand below");
        }
    }
    let rooms: BTreeSet<String> = src_files()
        .iter()
        .map(|file| {
            let parts = within_src(file);
            let room = parts[..parts.len().min(2)].join("/");
            room.trim_end_matches(".rs").to_owned()
        })
        .collect();
    for (top, inner) in INNER {
        for room in *inner {
            let room = format!("{top}/{room}");
            assert!(rooms.contains(&room), "there is no room {room}");
        }
    }
}

/// The drawing of the rooms, lowest last, as `src/lib.rs` has it.
fn drawing() -> String {
    let width = ROOMS.iter().map(|(room, _)| room.len()).max().unwrap();
    let mut drawn = String::from("//! ```text\n");
    for (room, allowed) in ROOMS.iter().rev() {
        let uses = allowed.join(", ");
        let line = format!("//! {room:width$}  uses  {uses}");
        drawn.push_str(line.strip_suffix("  uses  ").unwrap_or(&line).trim_end());
        drawn.push('\n');
        if let Some((_, inner)) = INNER.iter().find(|(top, _)| top == room) {
            let inner = inner.iter().rev().copied().collect::<Vec<_>>().join(" > ");
            drawn.push_str(&format!("//! {:width$}  = {inner}\n", ""));
        }
    }
    drawn.push_str("//! ```\n");
    drawn
}

/// To draw it again, put what this test prints between the lines `<!-- rooms -->`.
#[test]
fn the_drawing_shows_the_table() {
    let lib = fs::read_to_string(crate::sources::source().join("lib.rs")).unwrap();
    let mark = "//! <!-- rooms -->\n";
    let shown = lib.split(mark).nth(1).expect("src/lib.rs has no drawing");
    assert!(shown == drawing(), "the drawing is:\n{}", drawing());
}

/// What an object is shared with others for is a property of the inode: the rooms of the merged
/// tree ask `is_shared`, and only the facade and the room of volumes which volume it is.
#[test]
fn the_merged_tree_does_not_ask_for_volumes() {
    const MERGED_TREE: [&str; 5] = ["merge", "copyup", "namespace", "file", "live"];
    let mut found = Vec::new();
    for file in src_files() {
        let parts = within_src(&file);
        if parts[0] == "union" && inner_room(&parts, &MERGED_TREE).is_some() {
            let lines = code_lines(&file);
            let asking = lines.iter().filter(|line| line.contains(".volume()"));
            found.extend(asking.map(|line| format!("{}: {}", file.display(), line.trim())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
