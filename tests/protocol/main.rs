//! Recorded streams of requests, played again without a kernel.
//!
//! `tests/protocol/*.txt` hold what Linux asked and what it was answered while a script of the same
//! name worked in a mount (the lines that `Server::handle` logs in hex, see
//! `src/fuse/serve/trace.rs`). Each stream is played to a fresh server as /dev/fuse would deliver
//! it, and to others, over equal stacks, as io_uring would: all must answer alike, byte for byte,
//! and as recorded.
//!
//! What cannot be equal is masked, field by field (`mask.rs`): inode numbers, block counts, and
//! times that the clock set. The order of names in a directory is the disk's; so against the
//! recording listings are compared as sets, and node ids by what they name (`replay.rs`). The
//! servers are on one disk and agree in these, too.
//!
//! To record them again: `cargo test --test protocol -- --ignored`, as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod layout;
mod mask;
mod record;
mod replay;
mod stream;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use replay::play;
use stream::Stream;

/// The umask is the process's, and set by what makes a layout.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Whether owners, devices and trusted xattrs can be made here; they are in the recordings.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        support::skip("not root");
    }
    root
}

fn agree(name: &str) {
    if !is_root() {
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let stream = Stream::load(name);
    let replies = play(&stream).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    println!("{name}: {replies} replies alike");
}

#[test]
fn ordinary_work_is_answered_as_recorded() {
    agree("ordinary");
}

#[test]
fn files_that_are_opened_are_answered_as_recorded() {
    agree("opens");
}

#[test]
fn gathered_writes_are_answered_as_recorded() {
    agree("writeback");
}

#[test]
fn a_read_only_mount_is_answered_as_recorded() {
    agree("read-only");
}

/// The comparison notices what it is there for: every byte of every reply that is not masked.
#[test]
fn a_reply_that_differs_is_noticed() {
    if !is_root() {
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let stream = Stream::load("ordinary");
    let mut seen = BTreeSet::new();
    for at in 0..stream.exchanges.len() {
        let exchange = &stream.exchanges[at];
        let kind = (exchange.opcode(), exchange.is_error());
        // One of each kind is enough.
        if !seen.insert(kind) {
            continue;
        }
        let Some(damaged) = stream.damaged(at) else {
            continue;
        };
        assert!(
            play(&damaged).is_err(),
            "a wrong reply to opcode {kind:?} went unnoticed"
        );
    }
    assert!(seen.len() > 30, "only {} kinds of replies", seen.len());
}

#[test]
#[ignore = "records the streams again; needs root, /dev/fuse and tools"]
fn record_the_streams() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for name in ["ordinary", "opens", "writeback", "read-only"] {
        record::record(name);
    }
}
