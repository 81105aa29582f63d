//! Making, removing and moving things in volumes: at once, on the volume's own disk.
//!
//! # Crash
//! A volume has no work directory, so not everything can be built beside. A regular file is made
//! without a name (`O_TMPFILE`) and gets one when it has its owner, mode and labels: killed before,
//! there is nothing. Where the disk has no such files, and for everything else, it is made under
//! its name and given to its owner in the next step (unless the daemon is that owner, when there is
//! one step only): killed between, it belongs to the daemon's user, has no labels, and lacks setuid
//! and setgid. All else is one system call.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::object::WritableObject;
use crate::layer::stat::Kind;
use crate::layer::{FdSlot, WritableDir};
use crate::sync::lock;
use crate::union::error::{Context, Result, fail};
use crate::union::merge::instantiate::Instance;
use crate::union::merge::lookup::Child;
use crate::union::namespace::new_object::NewMetadata;
use crate::union::node::inode::{DirState, Inheritance, Inode, Real};
use crate::union::{Caller, Entry, NAME_MAX, New, Union};

impl Union {
    /// The directory of a volume, to be changed. Errors: ENAMETOOLONG, EROFS, ENOTDIR, ENOENT when
    /// it was removed.
    pub(super) fn volume_dir(
        &self,
        inode: &Inode,
        name: &[u8],
        state: &DirState,
    ) -> Result<WritableDir> {
        if name.len() > NAME_MAX {
            return fail(Errno::NAMETOOLONG);
        }
        self.check_writable(inode)?;
        match &state.upper {
            Some(dir) if state.removed.is_none() => Ok(dir.clone()),
            _ => fail(Errno::NOENT),
        }
    }

    /// What entries of a directory inherit, as it is now: another process may have changed that.
    fn inheritance_now(&self, dir: &WritableDir, state: &mut DirState) -> Result<Inheritance> {
        state.inheritance = None;
        self.inheritance(dir, state)
    }

    /// The entry of a name as the disk has it now, with its inode.
    pub(super) fn found(
        &self,
        parent: &Arc<Inode>,
        state: &mut DirState,
        name: &[u8],
    ) -> Result<Option<Child>> {
        let stat = self.refresh(state, name)?;
        match self.child_locked(parent, state, name)? {
            Instance::Ready(mut child) => {
                if child.inode.is_on_file_system_of(parent) {
                    child.stat = stat.or(child.stat);
                }
                Ok(Some(child))
            }
            Instance::None | Instance::SharedLower(_) => Ok(None),
        }
    }

    /// As [`Union::make`], in a volume.
    pub(in crate::union) fn make_in_volume(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        new: &New<'_>,
        caller: &Caller<'_>,
    ) -> Result<Child> {
        let Some(mut state) = parent.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let dir = self.volume_dir(parent, name, &state)?;
        self.load(&mut state)?;
        let inheritance = self.inheritance_now(&dir, &mut state)?;
        let looks = self.looks(self.ids_of(parent), new, caller, &inheritance);
        let ours = looks.uid == self.rules.daemon.0
            && (inheritance.group.is_some() || looks.gid == self.rules.daemon.1)
            && caller.security.is_empty();
        if ours {
            new.make_in(&dir, name, looks.mode)
                .context("create", name)?;
        } else {
            self.make_for(parent, &dir, name, new, &looks, &inheritance, caller)?;
        }
        match self.found(parent, &mut state, name)? {
            Some(child) => Ok(child),
            // Another process has removed it already.
            None => fail(Errno::NOENT),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a step of `make_in_volume`, with all that it worked out"
    )]
    fn make_for(
        &self,
        parent: &Inode,
        dir: &WritableDir,
        name: &[u8],
        new: &New<'_>,
        looks: &NewMetadata,
        inheritance: &Inheritance,
        caller: &Caller<'_>,
    ) -> Result<()> {
        let keeping = self.keeping_of(parent)?;
        let dress = |object: &WritableObject| {
            self.apply_new_metadata(keeping, object, new.kind(), looks, inheritance, caller)
        };
        if new.kind() == Kind::File {
            match self.unnamed_in(dir, looks.mode) {
                Ok(fd) => {
                    dress(&dir.wrap(Arc::clone(&fd)))?;
                    return dir.link_fd(&fd, name).context("link", name);
                }
                Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno).context("open O_TMPFILE", name),
            }
        }
        new.make_in(dir, name, looks.mode & !0o6000)
            .context("create", name)?;
        let dressed = dir
            .object(name)
            .context("open", name)
            .and_then(|object| dress(&object));
        if dressed.is_err() {
            let removed = if new.kind() == Kind::Dir {
                dir.rmdir(name)
            } else {
                dir.unlink(name)
            };
            if let Err(errno) = removed {
                log::warn!("remove half-made {}: {errno}", name.escape_ascii());
            }
        }
        dressed
    }

    fn unnamed_in(&self, dir: &WritableDir, mode: u32) -> rustix::io::Result<Arc<OwnedFd>> {
        // A slot makes room when too many descriptors are open.
        FdSlot::new(&self.layers.fds).get_or_open(|| dir.create_unnamed(mode))
    }

    /// As [`Union::tmpfile`], in a volume.
    pub(in crate::union) fn tmpfile_in_volume(
        &self,
        parent: &Arc<Inode>,
        mode: u32,
        caller: &Caller<'_>,
    ) -> Result<Entry> {
        let Some(mut state) = parent.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let dir = self.volume_dir(parent, b"", &state)?;
        let inheritance = self.inheritance_now(&dir, &mut state)?;
        drop(state);
        let new = New::Node {
            kind: Kind::File,
            mode,
            rdev: 0,
        };
        let looks = self.looks(self.ids_of(parent), &new, caller, &inheritance);
        let fd = self
            .unnamed_in(&dir, looks.mode)
            .context("open O_TMPFILE", b".")?;
        let object = dir.wrap(Arc::clone(&fd));
        let keeping = self.keeping_of(parent)?;
        self.apply_new_metadata(keeping, &object, Kind::File, &looks, &inheritance, caller)?;
        self.keep_atime(&fd);
        let stat = object.stat().context("fstat", b".")?;
        let st_ino = parent.volume().map_or(0, |_| self.volume_ino(&stat));
        let volume = self.membership_of(parent, &stat);
        let node = self.new_file_node(Real::Orphan(object));
        let inode = self.new_inode(volume, st_ino, Kind::File, node);
        if let Some(file) = inode.file() {
            file.data.put(fd);
        }
        let stat = Some(stat);
        self.entry(&Child { inode, stat })
    }

    /// As [`Union::link`], within a volume.
    pub(in crate::union) fn link_in_volume(
        &self,
        inode: &Arc<Inode>,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Entry> {
        let stat = {
            let Some(mut state) = parent.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            let dir = self.volume_dir(parent, name, &state)?;
            self.load(&mut state)?;
            let Some(mut file) = inode.lock_file() else {
                return fail(Errno::PERM);
            };
            let object = self.object_of(inode, &file)?;
            dir.link_fd(object.fd(), name).context("link", name)?;
            let stat = object.stat().context("fstat", name)?;
            let name = Name::from(name);
            file.add_link(parent, &name, Some(dir.clone()));
            if matches!(file.real, Real::Orphan(_)) {
                file.real = Real::Upper {
                    dir: dir.clone(),
                    name: Arc::clone(&name),
                };
            }
            self.remember_shared((dir.source(), stat.dev, stat.ino), inode);
            drop(file);
            self.put_child(&mut state, &name, inode)?;
            stat
        };
        self.entry(&Child {
            inode: Arc::clone(inode),
            stat: Some(stat),
        })
    }

    /// Notes in the slot of a name which inode was put there, if it is still what the disk has.
    pub(super) fn put_child(
        &self,
        state: &mut DirState,
        name: &Name,
        inode: &Arc<Inode>,
    ) -> Result<()> {
        let found = self.refresh(state, name)?;
        let same = found.is_some_and(|stat| self.stands_for(inode, &stat));
        if same && let Some(slot) = state.listing.as_mut().and_then(|l| l.get_mut(name)) {
            slot.child = Arc::downgrade(inode);
        }
        Ok(())
    }

    /// As [`Union::unlink`] and [`Union::rmdir`], in a volume.
    pub(in crate::union) fn remove_in_volume(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
        is_rmdir: bool,
    ) -> Result<()> {
        let Some(mut state) = parent.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let dir = self.volume_dir(parent, name, &state)?;
        self.load(&mut state)?;
        let Some(child) = self.found(parent, &mut state, name)? else {
            return fail(Errno::NOENT);
        };
        let inode = child.inode;
        self.check_no_mount(&inode, false)?;
        match (is_rmdir, inode.kind) {
            (true, Kind::Dir) => {
                let Some(mut gone) = inode.lock_dir() else {
                    return fail(Errno::NOTDIR);
                };
                // Before anything is removed: what fails then has changed nothing.
                let removed_dir = self.removed_dir_of(&inode, &mut gone)?;
                dir.rmdir(name).context("rmdir", name)?;
                gone.set_removed(removed_dir);
            }
            (true, _) => return fail(Errno::NOTDIR),
            (false, Kind::Dir) => return fail(Errno::ISDIR),
            (false, _) => {
                let Some(file) = inode.file() else {
                    return fail(Errno::ISDIR);
                };
                let mut held = lock(&file.state);
                self.keep_alive(&inode, file, &mut held, parent, name, &dir)?;
                dir.unlink(name).context("unlink", name)?;
                held.drop_link(parent, name);
            }
        }
        self.refresh(&mut state, name)?;
        Ok(())
    }
}
