//! What the fuzzer found, and what it began with: read as documents on every run, whole and cut off
//! at every place.

use std::fs;
use std::path::Path;

#[path = "../fuzz/documents.rs"]
mod checks;

#[test]
fn the_corpus_of_documents_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/documents");
    let mut read = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for end in 0..=bytes.len() {
            checks::check(&bytes[..end]);
        }
        read += 1;
    }
    assert!(read >= 6, "{read}");
}
