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

mod build;
mod commands;
mod fuzzed;
mod greedy;
mod hostile;
mod interrupted;
mod owners;
mod readers;
mod survey;
mod trees;
mod unpacking;
mod written;
