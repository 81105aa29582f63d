//! The store and its commands, through the real binary: images made here are loaded, mounted,
//! changed, committed and saved.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

mod commands;
mod concurrent;
mod containers;
mod corpus;
mod disks;
mod documents;
mod env;
mod images;
mod in_use;
mod losses;
mod make;
mod others;
mod suspended;
mod volumes;
