//! Any text as mount options, in both dialects.

#![no_main]

#[path = "../language.rs"]
mod language;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| language::check(bytes));
