//! Room for the catalog on a disk that is full, where it is needed most: to see what can be
//! removed, and to remove it.
//!
//! * The log, and what the catalog grows by when the log is copied into it, have their blocks
//!   before they are needed (fallocate(2)). On a file system that copies on write (btrfs) these two
//!   files are marked to be written in place; both have what they need to be whole after a crash
//!   without the disk's help.
//! * Readers and writers find pages in the log by an index in a file that they map into memory.
//!   SQLite cuts that file whenever no process had the catalog open, and a page of a mapping for
//!   which the disk has no block is a SIGBUS. So where room is short the index is kept in the
//!   memory of each process, and commands use the catalog one after the other (`locking_mode`).

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::store::base::Paths;
use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_getflags, ioctl_setflags, statvfs};

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;
/// So many bytes of the log are allocated: twice what it has when it is copied into the catalog.
const LOG: u64 = 64 * (4096 + 24);
/// So many bytes are allocated behind the catalog's end, at least.
const GROWTH: u64 = 64 << 10;
/// With fewer bytes left, room is short: other programs may fill them while a command runs.
const SHORT: u64 = 4 << 20;

/// Allocates what the catalog will grow by. To be called before SQLite has it open: closing another
/// descriptor of the file takes its locks away. Where that cannot be done the catalog works as it
/// would without.
pub(super) fn keep_for_catalog(file: &File) {
    let Ok(meta) = file.metadata() else { return };
    if meta.len() == 0 {
        write_in_place(file);
    }
    // In steps, so that a growing catalog does not ask each time.
    let wanted = (meta.len() + GROWTH).next_multiple_of(GROWTH);
    if meta.blocks() * BLOCK < meta.len() + GROWTH {
        allocate(file, wanted);
    }
}

/// The same for the log, once it is there. SQLite locks nothing in it.
pub(super) fn keep_for_log(log: &Path) {
    let Ok(file) = File::options().read(true).write(true).open(log) else {
        return;
    };
    let Ok(meta) = file.metadata() else { return };
    if meta.len() == 0 {
        write_in_place(&file);
    }
    if meta.blocks() * BLOCK < LOG {
        allocate(&file, LOG);
    }
}

/// Whether a page that is mapped from this disk may find no block.
pub(super) fn is_short(paths: &Paths) -> bool {
    statvfs(paths.root()).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < SHORT)
}

/// Neither its size nor what is in it changes.
fn allocate(file: &File, bytes: u64) {
    if let Err(errno) = fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        log::debug!("room is not kept for the catalog: fallocate: {errno}");
    }
}

/// Only an empty file can be marked. A file system that does not copy on write has no such flag.
fn write_in_place(file: &File) {
    let marked = ioctl_getflags(file).and_then(|flags| ioctl_setflags(file, flags | IFlags::NOCOW));
    if let Err(errno) = marked {
        log::debug!("the catalog is not marked to be written in place: {errno}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Catalog;
    use super::*;

    #[test]
    fn log_and_catalog_have_their_blocks_before_they_need_them() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let paths = Paths::new(dir.path().to_owned());
        let _open = Catalog::open(&paths).unwrap();
        // The catalog itself has its size after the tables were made.
        let again = Catalog::open(&paths).unwrap();
        drop(again);
        let log = paths
            .catalog()
            .with_extension("sqlite-wal")
            .metadata()
            .unwrap();
        assert!(log.blocks() * BLOCK >= LOG, "{log:?}");
        let catalog = paths.catalog().metadata().unwrap();
        assert!(
            catalog.blocks() * BLOCK >= catalog.len() + GROWTH,
            "{catalog:?}"
        );
    }
}
