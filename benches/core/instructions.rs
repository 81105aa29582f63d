//! One operation of the merged tree, so many times: what `scripts/instructions.sh` counts the
//! instructions of.
//!
//! `cargo bench --bench instructions -- OPERATION TIMES`. The script runs it twice under callgrind,
//! with different numbers, and divides the difference: what opening the union costs is not in it.

#![allow(clippy::unwrap_used, missing_docs)]

mod stack;

use std::hint::black_box;

use unionmount::layer::stat::Kind;
use unionmount::union::{Caller, New, NodeId, Union};

use stack::{Stack, dir_of};

/// Names in the directory that is worked in.
const NAMES: usize = 2000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let (Some(operation), Some(times)) = (arguments.next(), arguments.next()) else {
        // `cargo test --benches` and `cargo bench` without arguments.
        println!("instructions: give an operation and a number; see scripts/instructions.sh");
        return;
    };
    let times: usize = times.parse().unwrap();
    assert!(times <= NAMES, "at most {NAMES} times");
    let stack = Stack::with_layers(8);
    stack.fill(3, "dir", NAMES);
    let union = stack.open_writable(true);
    let dir = dir_of(&union, "dir");
    // The directory is read before anything is counted.
    union.readdir(dir, 0, |_| true).unwrap();
    for number in 0..times {
        step(&union, dir, &operation, number);
    }
}

fn step(union: &Union, dir: NodeId, operation: &str, number: usize) {
    let name = format!("f{number}");
    match operation {
        "lookup" => {
            black_box(union.lookup(dir, name.as_bytes()).unwrap());
        }
        "missing" => {
            let name = format!("missing{number}");
            black_box(union.lookup(dir, name.as_bytes()).unwrap());
        }
        "getattr" => {
            black_box(union.getattr(dir).unwrap());
        }
        "create" => {
            let name = format!("new{number}");
            let new = New::Node {
                kind: Kind::File,
                mode: 0o644,
                rdev: 0,
            };
            let made = union.make(dir, name.as_bytes(), &new, &Caller::default());
            black_box(made.unwrap());
        }
        "unlink" => union.unlink(dir, name.as_bytes()).unwrap(),
        "copy-up" => {
            let entry = union.lookup(dir, name.as_bytes()).unwrap().unwrap();
            union.prepare_write(entry.node).unwrap();
        }
        other => {
            eprintln!("instructions: no operation '{other}'");
            std::process::exit(2);
        }
    }
}
