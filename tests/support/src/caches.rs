//! What the kernel remembers of file systems is one thing for the whole machine: a test that makes
//! it forget disturbs the tests beside it, in this program and in others, that count on being
//! remembered.

use std::fs::{self, File, OpenOptions};

use rustix::fs::{FlockOperation, flock};

fn locked(how: FlockOperation) -> File {
    let lock = super::scratch().join("caches.lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock)
        .unwrap();
    flock(&lock, how).unwrap();
    lock
}

/// No test makes the kernel forget while this is held. Its holder calls `forget` after
/// dropping it only.
#[must_use]
pub fn remembered() -> File {
    locked(FlockOperation::LockShared)
}

/// Makes the kernel forget the names and inodes that are not in use, when no test counts on them.
pub fn forget() {
    let _alone = locked(FlockOperation::LockExclusive);
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}
