//! What was published survives a power failure: data goes to the disk before it gets its name, and
//! the name after it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

/// Writes everything of the disk that a file or directory is on: one call for any number of files.
///
/// # Errors
/// Those of open(2) and syncfs(2).
pub(crate) fn sync_disk_of(path: &Path) -> io::Result<()> {
    let fd = File::open(path)?;
    known(rustix::fs::syncfs(&fd))
}

/// Writes one file.
///
/// # Errors
/// Those of open(2) and fsync(2).
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    let fd = File::open(path)?;
    known(rustix::fs::fsync(&fd))
}

/// Writes the names in a directory.
///
/// # Errors
/// Those of open(2) and fsync(2); a directory that may be written but not read cannot be synced.
pub(crate) fn sync_names_in(dir: &Path) -> io::Result<()> {
    let dir = match dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => dir,
    };
    let fd = File::open(dir)?;
    known(rustix::fs::fsync(&fd))
}

/// Disks that have no such call have nothing to write (fsync(2): EINVAL).
fn known(done: rustix::io::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}
