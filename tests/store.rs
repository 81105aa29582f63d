//! The store and its commands, through the real binary: images made here are loaded, mounted,
//! changed, committed and saved.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs
)]

mod common;

#[path = "store/commands.rs"]
mod commands;
#[path = "store/concurrent.rs"]
mod concurrent;
#[path = "store/containers.rs"]
mod containers;
#[path = "store/corpus.rs"]
mod corpus;
#[path = "store/disks.rs"]
mod disks;
#[path = "store/documents.rs"]
mod documents;
#[path = "store/env.rs"]
mod env;
#[path = "store/images.rs"]
mod images;
#[path = "store/in_use.rs"]
mod in_use;
#[path = "store/losses.rs"]
mod losses;
#[path = "store/make.rs"]
mod make;
#[path = "store/others.rs"]
mod others;
#[path = "store/suspended.rs"]
mod suspended;
#[path = "store/volumes.rs"]
mod volumes;
