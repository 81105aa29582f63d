//! Inputs that the fuzzer begins with or has found: whatever they are, the same holds of them.

use support::corpus::{inputs, options, tar};

fn each(target: &str, check: impl Fn(&[u8])) {
    let inputs = inputs(target);
    inputs.iter().for_each(|input| check(input));
    assert!(inputs.len() > 3, "{target}");
}

#[test]
fn what_the_fuzzer_found_stays_mended() {
    each("tar", tar::check);
    each("options", options::check);
}
