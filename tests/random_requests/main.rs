//! Bytes that no kernel would send, and streams of requests in orders that none would: whatever
//! comes, there is an answer, and nothing outside the upper and the work directory changes.
//!
//! `cargo test --release --test random_requests` runs a fixed set of cases. `PROPTEST_CASES=N` runs
//! N new ones; the seed of one that fails is printed, and `FUZZ_SEED=S` runs that one again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod build;
mod draft;
mod layers;
mod parser;
mod session;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use draft::{Case, Draft};
use layers::Layers;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Requests in one stream.
const REQUESTS: usize = 150;
/// Streams of which one does not end for so long hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a strategy gives for a seed.
fn draw<S: Strategy>(seed: u64, strategy: &S) -> S::Value {
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

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// The seeds 0, 1, .. `usual`, or as the environment says.
fn seeds(usual: u64) -> impl Iterator<Item = u64> {
    match (number("FUZZ_SEED"), number("PROPTEST_CASES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(cases)) => {
            let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
            let first = nanos >> 10 << 20;
            first..first + cases
        }
        (None, None) => 0..usual,
    }
}

#[test]
fn whatever_the_bytes_are_the_parser_has_an_answer() {
    let corpus = parser::corpus();
    let begun = Instant::now();
    let mut cases = 0u32;
    for seed in seeds(20_000) {
        let request = draw(seed, &parser::request(&corpus));
        if let Err(failure) = std::panic::catch_unwind(|| parser::check(&request)) {
            eprintln!("FUZZ_SEED={seed}: {request:02x?}");
            std::panic::resume_unwind(failure);
        }
        cases += 1;
    }
    println!("{cases} requests in {:.1} s", begun.elapsed().as_secs_f64());
}

/// Removes requests for as long as the stream fails without them.
fn shrink(
    layers: &Layers,
    case: &Case,
    mut drafts: Vec<Draft>,
    mut failure: String,
) -> (Vec<Draft>, String) {
    let mut piece = drafts.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < drafts.len() {
            let end = (at + piece).min(drafts.len());
            let fewer = [&drafts[..at], &drafts[end..]].concat();
            match session::run(layers, case, &fewer) {
                Err(other) => (drafts, failure) = (fewer, other),
                Ok(_) => at = end,
            }
        }
        piece /= 2;
    }
    (drafts, failure)
}

/// Ends the process when a stream hangs: a lock that a thread waits for while it holds it.
fn watch(current: &'static AtomicU64) {
    std::thread::spawn(move || {
        let (mut seen, mut since) = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = current.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                eprintln!("FUZZ_SEED={seen} does not end");
                std::process::abort();
            }
        }
    });
}

#[test]
fn whatever_is_asked_the_tree_stays_whole() {
    static CURRENT: AtomicU64 = AtomicU64::new(0);
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root, who alone can make all that is asked for");
        return;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    session::count_panics();
    watch(&CURRENT);
    let layers = Layers::new();
    let begun = Instant::now();
    let mut total = session::Tally::default();
    for seed in seeds(250) {
        CURRENT.store(seed, Ordering::Relaxed);
        let (case, drafts) = draw(seed, &(draft::case(), draft::drafts(REQUESTS)));
        match session::run(&layers, &case, &drafts) {
            Ok(tally) => total.add(tally),
            Err(failure) => {
                let (drafts, failure) = shrink(&layers, &case, drafts, failure);
                panic!(
                    "FUZZ_SEED={seed}, {case:?}, made small: {failure}\n{}",
                    drafts
                        .iter()
                        .map(|draft| format!("{draft:?}\n"))
                        .collect::<String>()
                );
            }
        }
    }
    println!("{total:?} in {:.1} s", begun.elapsed().as_secs_f64());
    // A fuzzer of which everything is refused finds nothing.
    if number("FUZZ_SEED").is_none() && number("PROPTEST_CASES").is_none() {
        assert!(total.replies * 4 > total.requests, "{total:?}");
        assert!(
            total.kinds.len() > 36,
            "no success but of {:?}",
            total.kinds
        );
    }
}
