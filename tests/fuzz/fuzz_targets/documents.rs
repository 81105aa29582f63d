//! Any bytes as the JSON documents of images, and as their names.

#![no_main]

use support::corpus::documents;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| documents::check(bytes));
