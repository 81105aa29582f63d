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
use support::random::{draw, number, seeds};

/// Requests in one stream.
const REQUESTS: usize = 150;
/// Streams of which one does not end for so long hang.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn random_bytes_get_an_answer_from_the_parser() {
    let corpus = parser::corpus();
    let begun = Instant::now();
    let mut cases = 0u32;
    for seed in seeds("FUZZ_SEED", 20_000) {
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
fn random_requests_leave_the_tree_whole() {
    static CURRENT: AtomicU64 = AtomicU64::new(0);
    if !rustix::process::geteuid().is_root() {
        support::skip("not root, who alone can make all that is asked for");
        return;
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    session::count_panics();
    watch(&CURRENT);
    let layers = Layers::new();
    let begun = Instant::now();
    let mut total = session::Tally::default();
    for seed in seeds("FUZZ_SEED", 250) {
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
