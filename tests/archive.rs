//! Layers as archives: what hostile ones do, what other programs make of the same bytes, and the
//! commands.

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

mod common {
    #[allow(dead_code, reason = "not all of it is needed here")]
    #[path = "../common/programs.rs"]
    pub mod programs;
}

#[path = "archive/build.rs"]
mod build;
#[path = "archive/commands.rs"]
mod commands;
#[path = "archive/fuzzed.rs"]
mod fuzzed;
#[path = "archive/greedy.rs"]
mod greedy;
#[path = "archive/hostile.rs"]
mod hostile;
#[path = "archive/interrupted.rs"]
mod interrupted;
#[path = "archive/owners.rs"]
mod owners;
#[path = "archive/readers.rs"]
mod readers;
#[path = "archive/survey.rs"]
mod survey;
#[path = "archive/trees.rs"]
mod trees;
#[path = "archive/unpacking.rs"]
mod unpacking;
#[path = "archive/written.rs"]
mod written;
