//! What is logged of requests that failed.

use crate::union::Error;

/// One line: loud for what a disk refused, quiet for everyday answers.
pub(in crate::fuse) fn report(call: &str, error: &Error) {
    if error.is_failure() {
        log::warn!("{call}: {error}");
    } else {
        log::debug!("{call}: {error}");
    }
}
