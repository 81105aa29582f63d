//! The life of a mount, over each transport that there is here: how it begins, what it goes
//! through, how it ends.
//!
//! Every wait has a bound. What still waits when a test's time is over is freed by aborting its
//! connections, and the test fails.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

mod beginning;
mod cpus;
mod ending;
mod guard;
mod inherited;
mod node_ids;
mod rootless;
mod stuck;
mod suspended;
