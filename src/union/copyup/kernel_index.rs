//! The index of kernel overlayfs (`overlayfs.rst`, "Inode index"): which file of the upper is the
//! copy of a layer's file that has several names.
//!
//! With `index=on` the kernel copies such a file up under one name, and finds it under the others
//! by a hard link in the work directory. Here all names are in the upper (`merge/hardlink.rs`): a
//! writable mount adds those that only the index knows, and the kernel reads the result as well.
//!
//! # Crash
//! Each name is added by one link(2), and the entry of the index goes last. Killed meanwhile, the
//! next mount goes on.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::{Name, Source};
use crate::layer::stat::{Kind, Stat};
use crate::union::Union;
use crate::union::copyup::copy::restore_dir_times;
use crate::union::error::{Context, Result};
use crate::union::node::inode::Place;
use crate::union::node::stack::Found;
use crate::union::work::writable::Writable;

/// Where the kernel remembers of which file a copy is one.
const ORIGIN_XATTRS: [&[u8]; 2] = [b"trusted.overlay.origin", b"user.overlay.origin"];

/// The inode number in an origin: a `struct ovl_fb` of the kernel's `overlayfs.h`, which ends with
/// a file handle of the layer's disk. `None` for disks whose handles are not known.
fn inode_number(origin: &[u8]) -> Option<u64> {
    const MAGIC: u8 = 0xfb;
    /// Version, magic, length, flags, type, UUID.
    const HEADER: usize = 21;
    const INO32_GEN: u8 = 0x01;
    const INO64_GEN: u8 = 0x81;
    const BTRFS: u8 = 0x4d;
    let handle = origin.get(HEADER..)?;
    if origin[0] != 0 || origin[1] != MAGIC || usize::from(origin[2]) != origin.len() {
        return None;
    }
    match origin[4] {
        INO32_GEN => Some(u32::from_ne_bytes(*handle.first_chunk()?).into()),
        INO64_GEN | BTRFS => Some(u64::from_ne_bytes(*handle.first_chunk()?)),
        _ => None,
    }
}

impl Union {
    /// Adds the names that only the index in `work` knows. What cannot be added is logged, and
    /// shows the layer's file.
    pub(in crate::union) fn adopt_index(&self, work: &Path) {
        let Some(writable) = &self.writable else {
            return;
        };
        let index = match open_index(work) {
            Ok(fd) => WritableDir::root_with(Arc::new(fd), &self.layers.fds, None),
            Err(Errno::NOENT) => return,
            Err(errno) => return log::warn!("index of kernel overlayfs: {errno}"),
        };
        let mut entries = Vec::new();
        let listed = index.for_each(|name, _, _| entries.push(Name::from(name)));
        if let Err(errno) = listed {
            log::warn!("index of kernel overlayfs: {errno}");
        }
        for entry in entries {
            if let Err(error) = self.adopt(writable, &index, &entry) {
                log::warn!(
                    "index of kernel overlayfs, {}: {error}",
                    entry.escape_ascii()
                );
            }
        }
    }

    fn adopt(&self, writable: &Writable, index: &WritableDir, entry: &Name) -> Result<()> {
        let stat = index.stat_on_disk(entry).context("stat", entry)?;
        if stat.kind() == Kind::Dir || stat.is_whiteout_device() {
            return Ok(());
        }
        let xattrs = index.xattrs_of(entry).context("open directory", entry)?;
        let origin = ORIGIN_XATTRS
            .iter()
            .find_map(|xattr| xattrs.get_opt(xattr).ok().flatten());
        let Some(ino) = origin.as_deref().and_then(inode_number) else {
            return Ok(());
        };
        let mut complete = true;
        for lower in &self.layers.lowers {
            let (places, all) = self.places_of(lower.source(), ino)?;
            complete &= all;
            for place in places {
                self.adopt_name(writable, index, entry, &stat, &place)?;
            }
        }
        if complete {
            // It counts as a link of the file, and the kernel finds all names without it now.
            index.unlink(entry).context("unlink", entry)?;
        }
        Ok(())
    }

    fn adopt_name(
        &self,
        writable: &Writable,
        index: &WritableDir,
        entry: &Name,
        stat: &Stat,
        place: &Place,
    ) -> Result<()> {
        let dir = self.copy_up_dir(&place.parent)?;
        let Some(mut state) = place.parent.lock_dir() else {
            return Ok(());
        };
        // Such a copy may have the attributes only, which is looked for in directories that say so.
        self.mark_impure(writable, &dir, &mut state)?;
        let before = dir.stat().context("stat", b".")?;
        dir.despite_mode(|| index.link(entry, &dir, &place.name))
            .context("link", &place.name)?;
        restore_dir_times(&dir, &before);
        if let Some(listing) = &mut state.listing {
            listing.update(&place.name, |slot| {
                slot.merged.upper = Some(Found {
                    kind: stat.kind(),
                    ino: stat.ino,
                });
                slot.st_ino = self.nodes.numbers.of(Source::Upper, stat.dev, stat.ino);
            });
        }
        Ok(())
    }
}

fn open_index(work: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let work = rustix::fs::open(work, flags.difference(OFlags::NOFOLLOW), Mode::empty())?;
    openat(&work, "index", flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_known_disks_name_an_inode() {
        let origin = |kind, handle: &[u8]| {
            let mut origin = vec![0, 0xfb, 0, 0, kind];
            origin.extend_from_slice(&[7; 16]);
            origin.extend_from_slice(handle);
            if let Ok(len) = u8::try_from(origin.len()) {
                origin[2] = len;
            }
            origin
        };
        let short = [&12u32.to_ne_bytes()[..], &[1; 4]].concat();
        let long = [&(1u64 << 40 | 5).to_ne_bytes()[..], &[1; 4]].concat();
        assert_eq!(inode_number(&origin(1, &short)), Some(12));
        assert_eq!(inode_number(&origin(0x81, &long)), Some(1 << 40 | 5));
        let mut odd = origin(1, &short);
        odd[1] = 0;
        let detach_tree = &origin(0x81, &long)[..24];
        for value in [&odd[..], detach_tree, b"", b"y", &origin(9, &long)] {
            assert_eq!(inode_number(value), None);
        }
    }
}
