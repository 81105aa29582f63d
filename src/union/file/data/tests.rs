//! Tests of `data.rs`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::union::Config;
use crate::union::tests::testing::{Stack, find};

#[test]
fn syncing_the_disk_is_for_those_who_write_to_it() {
    let stack = Stack::new();
    stack.file("old/f", "old");
    let union = stack.open();
    let node = find(&union, "f").node;
    union.write(node, 0, b"new").unwrap();
    union.syncfs().unwrap();
    drop(union);
    stack.open_read_only().syncfs().unwrap();
    let config = Config {
        volatile: true,
        ..stack.config()
    };
    Union::open(&config).unwrap().syncfs().unwrap();
}
