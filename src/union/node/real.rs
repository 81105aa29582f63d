//! The object on a disk that is behind a node.

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::object::WritableObject;
use crate::layer::stat::Stat;
use crate::union::error::{Context, Result};
use crate::union::node::inode::{DirState, FileState, Inode, Real};
use crate::union::node::stack::Found;
use crate::union::{Union, fail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Weak;

impl Union {
    /// Whether what the disk has now is what an inode of a volume stands for.
    pub(in crate::union) fn stands_for(&self, inode: &Inode, stat: &Stat) -> bool {
        inode.volume().is_some_and(|volume| {
            self.volume_ino(stat) == inode.st_ino && inode.birth.agrees(self.birth_of(volume, stat))
        })
    }

    /// Asks the disk what a name of a volume's directory is now, and notes that in its slot.
    pub(in crate::union) fn refresh(
        &self,
        state: &mut DirState,
        name: &[u8],
    ) -> Result<Option<Stat>> {
        let Some(dir) = state.upper.clone() else {
            return Ok(None);
        };
        let found = match dir.stat_entry(name) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).context("stat", name),
        };
        let Some(listing) = &mut state.listing else {
            return fail(Errno::STALE);
        };
        if found.is_none() && listing.get(name).is_none() {
            return Ok(None);
        }
        listing.sweep();
        listing.update(&Name::from(name), |slot| {
            if slot.mount.is_some() {
                return;
            }
            let now = found.map(|stat| Found {
                kind: stat.kind(),
                ino: stat.ino,
            });
            let is_another = || {
                let known = found.zip(slot.child.upgrade());
                known.is_some_and(|(stat, inode)| !self.stands_for(&inode, &stat))
            };
            if slot.merged.upper != now || is_another() {
                slot.child = Weak::new();
            }
            slot.merged.upper = now;
            slot.st_ino = found.map_or(0, |stat| self.volume_ino(&stat));
        });
        Ok(found)
    }

    /// The object behind a file, to be changed. In a volume it must still be the one that it was.
    /// Errors: ESTALE.
    pub(in crate::union) fn object_of(
        &self,
        inode: &Inode,
        state: &FileState,
    ) -> Result<WritableObject> {
        match &state.real {
            Real::Orphan(object) => Ok(object.clone()),
            Real::Lower { .. } => fail(Errno::STALE),
            Real::Upper { dir, name } if !inode.is_shared() => {
                dir.object(name).context("open", name)
            }
            Real::Upper { .. } => self.find_again(inode, state).map(|(_, object)| object),
        }
    }

    /// The object of a file of a volume, and what stat(2) says about it: by its open descriptor,
    /// else under any name that is known.
    fn find_again(&self, inode: &Inode, state: &FileState) -> Result<(Stat, WritableObject)> {
        let Real::Upper { dir, name } = &state.real else {
            return fail(Errno::STALE);
        };
        let open = inode.file().and_then(|file| file.data.get());
        if let Some(fd) = open {
            let object = dir.wrap(fd);
            return Ok((object.stat().context("fstat", b".")?, object));
        }
        let others = state
            .links
            .iter()
            .filter_map(|link| Some((link.upper.as_ref()?, &link.place.name)));
        for (dir, name) in std::iter::once((dir, name)).chain(others) {
            let object = match dir.object(name) {
                Ok(object) => object,
                Err(Errno::NOENT | Errno::STALE | Errno::NOTDIR) => continue,
                Err(errno) => return Err(errno).context("open", name),
            };
            let stat = object.stat().context("fstat", name)?;
            if self.stands_for(inode, &stat) && stat.kind() == inode.kind {
                return Ok((stat, object));
            }
        }
        fail(Errno::STALE)
    }

    /// What the disk says about the object behind a file.
    pub(in crate::union) fn stat_of(&self, inode: &Inode, state: &FileState) -> Result<Stat> {
        match &state.real {
            Real::Upper { .. } if inode.is_shared() => {
                self.find_again(inode, state).map(|(stat, _)| stat)
            }
            real => crate::union::node::real::real_stat(real),
        }
    }

    /// What the disk says about a directory of a volume, which must still be the one that it was.
    /// Errors: ESTALE.
    pub(in crate::union) fn stat_of_dir(&self, inode: &Inode, dir: &WritableDir) -> Result<Stat> {
        match dir.stat() {
            Ok(stat) if !inode.is_shared() || self.stands_for(inode, &stat) => Ok(stat),
            Ok(_) => fail(Errno::STALE),
            Err(Errno::NOENT) if inode.is_shared() => fail(Errno::STALE),
            Err(errno) => Err(errno).context("stat", b"."),
        }
    }
}

impl Union {
    /// With `noatime`, reading through the descriptor leaves the access time alone. Only the file's
    /// owner and root may ask for that; for others the disk's own mount options decide.
    pub(in crate::union) fn keep_atime(&self, fd: &OwnedFd) {
        if self.rules.noatime
            && let Err(errno) = rustix::fs::fcntl_setfl(fd, OFlags::NOATIME)
        {
            log::debug!("noatime: {errno}");
        }
    }
}

/// What the disk says about the object behind a file.
pub(in crate::union) fn real_stat(real: &Real) -> Result<Stat> {
    match real {
        Real::Lower { dir, name } => dir.stat_entry(name).context("stat", name),
        Real::Upper { dir, name } => dir.stat_entry(name).context("stat", name),
        Real::Orphan(object) => object.stat().context("fstat", b"."),
    }
}
