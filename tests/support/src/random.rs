//! Cases drawn by proptest for seeds: a fixed set of them, or as the environment says.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What a strategy draws for a seed.
pub fn draw<S: Strategy>(seed: u64, strategy: &S) -> S::Value {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    strategy.new_tree(&mut runner).unwrap().current()
}

/// The number in an environment variable.
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// The seeds 0, 1, .. `usual`; new ones with `PROPTEST_CASES`, as many as it says; or the one that
/// `variable` names.
pub fn seeds(variable: &str, usual: u64) -> std::ops::Range<u64> {
    match (number(variable), number("PROPTEST_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(cases)) => {
            let millis = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
            let first = u64::try_from(millis).unwrap() << 20;
            first..first + cases
        }
        (None, None) => 0..usual,
    }
}
