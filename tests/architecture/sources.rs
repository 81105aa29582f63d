//! Reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn source() -> PathBuf {
    root().join("src")
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory.
pub(crate) fn files(root: PathBuf) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root]);
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let is_built = path.ends_with("target");
            let entries = fs::read_dir(&path).unwrap().filter(|_| !is_built);
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn src_files() -> Vec<PathBuf> {
    files(source())
}

/// The names that lead to a file from `src/`.
pub(crate) fn within_src(file: &Path) -> Vec<String> {
    let parts = file.strip_prefix(source()).unwrap().iter();
    parts
        .map(|part| part.to_str().unwrap().to_owned())
        .collect()
}

/// The lines of a file that are code of the program: neither comments nor tests.
pub(crate) fn code_lines(file: &Path) -> Vec<String> {
    let is_test = within_src(file)
        .iter()
        .any(|part| matches!(part.trim_end_matches(".rs"), "tests" | "testing"));
    if is_test {
        return Vec::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let program = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    program.lines().filter(is_code).map(str::to_owned).collect()
}
