//! Inputs that the fuzzer begins with or has found: whatever they are, the same holds of them.

use std::path::Path;

#[path = "../fuzz/archive.rs"]
mod archive;
#[path = "../fuzz/language.rs"]
mod language;

fn each(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 3, "{target}");
}

#[test]
fn what_the_fuzzer_found_stays_mended() {
    each("tar", archive::check);
    each("options", language::check);
}
