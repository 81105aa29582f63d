//! What the fuzzer found, and what it began with: read as documents on every run, whole and cut off
//! at every place.

use support::corpus::{documents, inputs};

#[test]
fn the_corpus_of_documents_holds() {
    let inputs = inputs("documents");
    for bytes in &inputs {
        for end in 0..=bytes.len() {
            documents::check(&bytes[..end]);
        }
    }
    assert!(inputs.len() >= 6, "{}", inputs.len());
}
