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

mod common;

#[path = "lifecycle/beginning.rs"]
mod beginning;
#[path = "lifecycle/cpus.rs"]
mod cpus;
#[path = "lifecycle/ending.rs"]
mod ending;
#[path = "lifecycle/guard.rs"]
mod guard;
#[path = "lifecycle/inherited.rs"]
mod inherited;
#[path = "lifecycle/node_ids.rs"]
mod node_ids;
#[path = "lifecycle/rootless.rs"]
mod rootless;
#[path = "lifecycle/stuck.rs"]
mod stuck;
#[path = "lifecycle/suspended.rs"]
mod suspended;
