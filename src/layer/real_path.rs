//! Where an object of a layer lies on the host, for messages about it.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::dir::{Dir, DirLocation, Name};
use crate::sync::read;

impl Dir {
    /// Returns the path of the directory on the host; `None` when it was removed or its layer was
    /// released. Asks no disk.
    ///
    /// Locks: the place of one directory at a time. Not to be called while one of them is held.
    #[must_use]
    pub(crate) fn real_path(&self) -> Option<PathBuf> {
        let mut names: Vec<Name> = Vec::new();
        let mut above = None;
        let mut path = loop {
            let dir: &Self = above.as_deref().unwrap_or(self);
            let parent = match &*read(&dir.place) {
                DirLocation::Root(fd) => break path_of(fd)?,
                DirLocation::Child { parent, name } => {
                    names.push(name.clone());
                    parent.clone()
                }
                DirLocation::Gone => return None,
            };
            above = Some(parent);
        };
        for name in names.iter().rev() {
            path.push(OsString::from_vec(name.to_vec()));
        }
        Some(path)
    }
}

/// Returns the path of an open object (proc_pid_fd(5)), with " (deleted)" behind it when no name
/// leads to it any more.
#[must_use]
pub(crate) fn path_of(fd: &impl AsFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).ok()
}
