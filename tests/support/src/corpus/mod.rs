//! What holds of whatever is given to the readers of archives, options and documents: for the
//! fuzzer, and for the suites, which go through what it began with and has found
//! (`tests/fuzz/corpus`).

pub mod documents;
pub mod options;
pub mod tar;

use std::path::PathBuf;

/// The inputs of a fuzzing target.
pub fn inputs(target: &str) -> Vec<Vec<u8>> {
    let corpus: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../fuzz/corpus", target]
        .iter()
        .collect();
    let entries = std::fs::read_dir(corpus).unwrap();
    entries
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect()
}
