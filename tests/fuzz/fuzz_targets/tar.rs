//! Any bytes as a layer: they are read without end or panic, and what was read is the same when it
//! is written again.

#![no_main]

use support::corpus::tar;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tar::check(bytes));
