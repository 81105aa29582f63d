//! What holds of the option language, whatever is given to it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use unionmount::internal::options::{Dialect, Options};

/// Every text is either understood, or refused with one line.
pub fn check(bytes: &[u8]) {
    if bytes.contains(&0) {
        // No argument of a program has one.
        return;
    }
    for dialect in [Dialect::Strict, Dialect::Compatible] {
        let mut options = Options::new(dialect);
        // Several -o, as they come.
        for text in bytes.split(|byte| *byte == b'\n') {
            if let Err(err) = options.add(OsStr::from_bytes(text)) {
                assert!(!err.to_string().is_empty());
            }
        }
    }
}
