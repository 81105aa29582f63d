//! Any text as mount options, in both dialects.

#![no_main]

use support::corpus::options;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| options::check(bytes));
