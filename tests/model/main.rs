//! Random operations on random stacks of layers: the union without a mount and behind one must show
//! what an ordinary directory shows.
//!
//! `cargo test --release --test model` runs a fixed set of cases. `PROPTEST_CASES=N` runs N new
//! ones; the seed of a case that fails is printed, and `MODEL_SEED=S` runs that one again.
//!
//! Where an ordinary directory is not the measure: the link count of a directory is 1, sizes of
//! directories are not compared, names that begin with `.wh.` are refused unless whiteouts are
//! devices, and a removed directory that is still open has no xattrs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    missing_docs,
    unreachable_pub
)]

mod archive;
mod build;
#[allow(dead_code)] // the other half is for other tests
mod compare;
mod core;
mod describe;
mod disk;
mod driver;
mod export;
mod harness;
mod minimise;
mod mount;
mod ops;
mod plain;
mod random;
mod regressions;
mod stack;
mod survey;
mod tree;

use std::time::Instant;

use harness::{Backend, Script, run};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Most operations in one case.
const OPERATIONS: usize = 40;

/// The case of a seed.
fn draw(seed: u64) -> (random::Case, Vec<random::Draft>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (random::case(), random::drafts(OPERATIONS));
    strategy.new_tree(&mut runner).unwrap().current()
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// Runs the seeds 0, 1, .. `usual`, or as the environment says.
fn many(backend: Backend, usual: u64) {
    rustix::process::umask(rustix::fs::Mode::empty());
    let seeds: Box<dyn Iterator<Item = u64>> =
        match (number("MODEL_SEED"), number("PROPTEST_CASES")) {
            (Some(seed), _) => Box::new(seed..=seed),
            (None, Some(cases)) => {
                let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
                let first = nanos >> 10 << 20;
                Box::new(first..first + cases)
            }
            (None, None) => Box::new(0..usual),
        };
    let begun = Instant::now();
    let (mut cases, mut operations) = (0, 0);
    for seed in seeds {
        let (case, drafts) = draw(seed);
        match run(&case, Script::Random(&drafts), backend) {
            Ok(done) => operations += done,
            Err(failure) => {
                let first = failure.message.clone();
                let (case, failure) = minimise::minimise(&case, failure, backend);
                panic!(
                    "{backend:?}, MODEL_SEED={seed}: {first}\nmade small: {}\n{}",
                    failure.message,
                    minimise::as_test(&case, &failure.ops)
                );
            }
        }
        cases += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{backend:?}: {cases} cases, {operations} operations, {:.1} cases per second",
        f64::from(cases) / seconds
    );
}

#[test]
fn the_core_is_an_ordinary_directory() {
    many(Backend::Core, 800);
}

#[test]
fn the_changes_as_an_archive_give_the_same_tree_elsewhere() {
    many(Backend::Archive, 100);
}

#[test]
fn a_mount_is_an_ordinary_directory() {
    match mount::missing() {
        None => {
            mount::separate();
            many(Backend::Mount, 250);
        }
        Some(why) if mount::required() => panic!("no mount: {why}"),
        Some(why) => eprintln!("skipped: {why}"),
    }
}
