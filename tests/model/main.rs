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
use support::random::{draw, seeds};

/// Most operations in one case.
const OPERATIONS: usize = 40;

/// Runs the seeds 0, 1, .. `usual`, or as the environment says.
fn many(backend: Backend, usual: u64) {
    rustix::process::umask(rustix::fs::Mode::empty());
    let begun = Instant::now();
    let (mut cases, mut operations) = (0, 0);
    for seed in seeds("MODEL_SEED", usual) {
        let (case, drafts) = draw(seed, &(random::case(), random::drafts(OPERATIONS)));
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
        Some(why) => support::skip(&why),
    }
}
