//! Rules of style.

use std::fs;
use std::path::PathBuf;

use crate::sources::{files, root, src_files};

/// Columns of a line, in code as rustfmt makes it and in comments.
const WIDTH: usize = 100;
/// Lines of a file.
const MOST_LINES: usize = 700;

fn all_files() -> Vec<PathBuf> {
    let mut all = src_files();
    all.extend(files(root().join("tests")));
    all.extend(files(root().join("benches")));
    all
}

/// Tables, quoted text and links are as wide as they are.
#[test]
fn comments_are_no_wider_than_code() {
    let mut wide = Vec::new();
    for file in all_files() {
        let text = fs::read_to_string(&file).unwrap();
        let mut is_quoted = false;
        for (number, line) in text.lines().enumerate() {
            let comment = line.trim_start();
            let is_comment = comment.starts_with("//");
            is_quoted = is_comment && (is_quoted ^ comment.contains("```"));
            let is_table = comment
                .trim_start_matches(['/', '!'])
                .trim_start()
                .starts_with('|');
            let is_one_word = comment.split_whitespace().count() <= 2;
            if is_comment && !is_quoted && !is_table && !is_one_word && line.chars().count() > WIDTH
            {
                wide.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn files_can_be_read_at_a_sitting() {
    let long: Vec<String> = all_files()
        .iter()
        .filter_map(|file| {
            let lines = fs::read_to_string(file).unwrap().lines().count();
            (lines > MOST_LINES).then(|| format!("{}: {lines}", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// Comments cite what a reader of the repository can open.
#[test]
fn nothing_outside_the_repository_is_cited() {
    let mut cited = Vec::new();
    for file in all_files() {
        if file.ends_with("architecture/style.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            if [
                "../shared",
                "semantics.md of",
                "contracts/",
                "fuse-performance.md",
            ]
            .iter()
            .any(|outside| line.contains(outside))
            {
                cited.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(cited.is_empty(), "{cited:#?}");
}

/// Comments name who acts: a process, a user, a reader.
#[test]
fn comments_name_who_acts() {
    const NAMELESS: [&str; 6] = [
        "somebody", "nobody", "anybody", "whoever", "someone", "anyone",
    ];
    let mut found = Vec::new();
    for file in all_files() {
        let text = fs::read_to_string(&file).unwrap();
        let comments = text.lines().enumerate().filter_map(|(number, line)| {
            let (_, comment) = line.split_once("//")?;
            line.trim_start()
                .starts_with("//")
                .then_some((number, comment))
        });
        for (number, comment) in comments {
            let comment = comment.to_lowercase();
            let mut words = comment.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '`');
            if words.any(|word| NAMELESS.contains(&word)) {
                found.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// One name, one type: these are the ones that had several.
#[test]
fn the_names_of_the_core_are_used_once() {
    for name in ["Attr", "Entry", "Listing", "Place", "Source"] {
        let defined: Vec<String> = src_files()
            .iter()
            .flat_map(|file| {
                let text = fs::read_to_string(file).unwrap();
                let names = ["struct", "enum"].map(|kind| format!("{kind} {name}"));
                let is_there = text.lines().any(|line| {
                    let words = line.trim_start_matches("pub").trim_start();
                    let words = words.rsplit(") ").next().unwrap_or(words);
                    names.iter().any(|name| {
                        words.strip_prefix(name.as_str()).is_some_and(|rest| {
                            !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                        })
                    })
                });
                is_there.then(|| file.display().to_string())
            })
            .collect();
        assert!(defined.len() <= 1, "{name}: {defined:#?}");
    }
}
