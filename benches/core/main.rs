//! The merged tree without a mount: what its operations cost by themselves.
//!
//! `cargo bench --bench core [FILTER]`. Times are of this machine and this moment: compare within
//! one run (`--save-baseline`, `--baseline`). What CI compares are instruction counts
//! (`instructions.rs`).

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod stack;

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use unionmount::union::{NodeId, Union};

use stack::{Stack, dir_of};

/// Names in one directory of a layer.
const NAMES: usize = 1000;

/// Names that were not looked up before, in stacks of few and many layers.
fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("first lookup of 1000 names");
    group.throughput(Throughput::Elements(NAMES as u64));
    for layers in [1, 8, 64, 500] {
        let stack = Stack::with_layers(layers);
        let names: Vec<String> = (0..NAMES).map(|n| format!("f{n}")).collect();
        stack.fill(layers - 1, "dir", NAMES);
        group.bench_function(BenchmarkId::from_parameter(layers), |b| {
            b.iter_batched(
                || open(&stack),
                |union| {
                    let dir = dir_of(&union, "dir");
                    for name in &names {
                        black_box(union.lookup(dir, name.as_bytes()).unwrap());
                    }
                    union
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A name that is known, and one that is known to be missing.
fn known(c: &mut Criterion) {
    let stack = Stack::with_layers(8);
    stack.fill(0, "dir", NAMES);
    let union = open(&stack);
    let dir = dir_of(&union, "dir");
    c.bench_function("lookup of a known name", |b| {
        b.iter(|| {
            let entry = union.lookup(dir, b"f7").unwrap().unwrap();
            union.forget(entry.node, 1);
        });
    });
    c.bench_function("lookup of a missing name", |b| {
        b.iter(|| black_box(union.lookup(dir, b"missing").unwrap()));
    });
    let file = union.lookup(dir, b"f8").unwrap().unwrap().node;
    c.bench_function("getattr", |b| {
        b.iter(|| black_box(union.getattr(file).unwrap()))
    });
}

/// Reading a directory for the first time, and again.
fn listing(c: &mut Criterion) {
    let mut group = c.benchmark_group("listing");
    for names in [1_000, 10_000, 100_000] {
        let stack = Stack::with_layers(2);
        stack.fill(0, "dir", names);
        stack.fill(1, "dir", names / 2);
        group.throughput(Throughput::Elements(names as u64));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("first", names), |b| {
            b.iter_batched(
                || open(&stack),
                |union| {
                    list(&union, dir_of(&union, "dir"));
                    union
                },
                BatchSize::PerIteration,
            );
        });
        let union = open(&stack);
        let dir = dir_of(&union, "dir");
        list(&union, dir);
        group.bench_function(BenchmarkId::new("again", names), |b| {
            b.iter(|| list(&union, dir))
        });
    }
    group.finish();
}

fn open(stack: &Stack) -> Union {
    Union::open(&stack.config()).unwrap()
}

fn list(union: &Union, dir: NodeId) {
    let mut count = 0;
    let each = |_: &_| {
        count += 1;
        true
    };
    union.readdir(dir, 0, each).unwrap();
    black_box(count);
}

/// A small file of a layer is copied up and published, as the upper's disk does it: with what it
/// is synced with, and volatile.
fn copy_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy-up of 4 KiB");
    for volatile in [false, true] {
        let stack = Stack::with_layers(1);
        stack.fill(0, "dir", 20_000);
        let union = stack.open_writable(volatile);
        let dir = dir_of(&union, "dir");
        let next = AtomicUsize::new(0);
        let name = if volatile { "volatile" } else { "synced" };
        group.sample_size(10);
        group.measurement_time(Duration::from_secs(2));
        group.bench_function(name, |b| {
            b.iter(|| {
                let name = format!("f{}", next.fetch_add(1, Ordering::Relaxed) % 20_000);
                let entry = union.lookup(dir, name.as_bytes()).unwrap().unwrap();
                union.prepare_write(entry.node).unwrap();
                union.forget(entry.node, 1);
            });
        });
    }
    group.finish();
}

/// Threads that look up, ask and forget in one table.
fn threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("inode table");
    let stack = Stack::with_layers(1);
    stack.fill(0, "dir", NAMES);
    let union = open(&stack);
    let dir = dir_of(&union, "dir");
    let names: Vec<String> = (0..NAMES).map(|n| format!("f{n}")).collect();
    for threads in [1, 2, 4, 8] {
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new("threads", threads), |b| {
            b.iter_custom(|rounds| {
                let start = Barrier::new(threads + 1);
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (union, names, start) = (&union, &names, &start);
                        scope.spawn(move || {
                            start.wait();
                            for round in 0..usize::try_from(rounds).unwrap() {
                                let at = (thread * 131 + round) % NAMES;
                                let entry = union.lookup(dir, names[at].as_bytes()).unwrap();
                                let node = entry.unwrap().node;
                                black_box(union.getattr(node).unwrap());
                                union.forget(node, 1);
                            }
                        });
                    }
                    start.wait();
                    Instant::now()
                })
                .elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(core, lookup, known, listing, copy_up, threads);
criterion_main!(core);
