//! How many bytes a tree has, as Docker counts: the sizes of everything but directories, each inode
//! once.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::error::{Context, Result};
use super::remove::entries;
use crate::layer::descent::Descent;
use crate::layer::stat::{Kind, Stat};

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct TreeUsage {
    /// The sizes of all files and symlinks, each inode once: Docker's SIZE.
    pub(in crate::store) size: u64,
    /// Bytes of disk blocks, directories included.
    pub(in crate::store) disk: u64,
    /// Entries, without the directory itself.
    pub(in crate::store) entries: u64,
}

/// Measures a tree; one that is not there takes nothing. Entries that vanish meanwhile are not
/// counted.
///
/// # Errors
/// A directory cannot be read.
pub(in crate::store) fn measure(path: &Path) -> Result<TreeUsage> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(TreeUsage::default()),
        Err(Errno::NOTDIR) => {
            let stat = Stat::of_entry(CWD, path).context("stat", path)?;
            return Ok(TreeUsage {
                size: stat.size,
                disk: stat.blocks * BLOCK,
                entries: 0,
            });
        }
        other => other.context("open", path)?,
    };
    let own = Stat::of_fd(&root).context("stat", path)?;
    let mut walk = Measuring {
        usage: TreeUsage {
            disk: own.blocks * BLOCK,
            ..TreeUsage::default()
        },
        seen: HashSet::new(),
    };
    walk.tree(root).context("measure", path)?;
    Ok(walk.usage)
}

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

struct Measuring {
    usage: TreeUsage,
    /// Inodes with several names.
    seen: HashSet<(u64, u64)>,
}

impl Measuring {
    fn tree(&mut self, root: OwnedFd) -> rustix::io::Result<()> {
        let names = entries(&root)?.into_iter();
        let mut way = Descent::begin(root, names);
        while let Some((dir, names)) = way.last() {
            let Some((name, _)) = names.next() else {
                way.pop()?;
                continue;
            };
            let below = self.entry(&dir, &name).and_then(|is_dir| match is_dir {
                false => Ok(None),
                true => {
                    let below = open_below(&dir, &name)?;
                    let names = entries(&below)?.into_iter();
                    Ok(Some((below, names)))
                }
            });
            match below {
                Ok(Some((below, names))) => way.push(below, names)?,
                // It was removed meanwhile.
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Counts an entry; returns whether it is a directory.
    fn entry(&mut self, dir: &OwnedFd, name: &CStr) -> rustix::io::Result<bool> {
        let stat = Stat::of_entry(dir.as_fd(), name)?;
        self.usage.entries += 1;
        let is_dir = stat.kind() == Kind::Dir;
        if stat.nlink > 1 && !is_dir && !self.seen.insert((stat.dev, stat.ino)) {
            return Ok(false);
        }
        self.usage.disk = self.usage.disk.saturating_add(stat.blocks * BLOCK);
        if !is_dir {
            self.usage.size = self.usage.size.saturating_add(stat.size);
        }
        Ok(is_dir)
    }
}

/// Opens a directory for reading. When its mode does not let its owner read it, it is made readable
/// for the moment.
fn open_below(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(Stat::of_entry(dir.as_fd(), name)?.perm());
            rustix::fs::chmodat(dir, name, mode | Mode::RWXU, AtFlags::empty())?;
            let opened = openat(dir, name, flags, Mode::empty());
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
            opened
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sizes_are_counted_as_docker_does() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("d/e")).unwrap();
        std::fs::write(at("d/f"), [0; 1000]).unwrap();
        std::fs::hard_link(at("d/f"), at("d/e/again")).unwrap();
        symlink("four", at("s")).unwrap();
        let sparse = std::fs::File::create(at("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        let usage = measure(dir.path()).unwrap();
        assert_eq!(usage.size, 1000 + 4 + (1 << 20));
        assert_eq!(usage.entries, 6);
        assert!(usage.disk < 1 << 20);
        assert_eq!(measure(&at("sparse")).unwrap().size, 1 << 20);
        assert_eq!(measure(&at("missing")).unwrap(), TreeUsage::default());
    }
}
