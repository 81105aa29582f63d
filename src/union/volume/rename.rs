//! Renaming in a volume.

use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::namespace::rename::check_presence;
use crate::union::namespace::rename::steps::{
    End, Ends, dir_of, move_entry, move_link, settle, swap_entries,
};
use crate::union::node::guards::{lock_files, lock_parents};
use crate::union::node::inode::{EntryName, Inode};
use crate::union::types::RenameMode;

impl Union {
    /// As [`Union::rename`], within a volume, with any flags that the disk knows.
    pub(in crate::union) fn rename_in_volume(
        &self,
        from: EntryName<'_>,
        to: EntryName<'_>,
        mode: RenameMode,
        leaves_whiteout: bool,
    ) -> Result<()> {
        let (from, from_name) = (from.parent, from.name);
        let (to, to_name) = (to.parent, to.name);
        let _shape = lock(&self.renames);
        let Some(mut parents) = lock_parents(from, to) else {
            return fail(Errno::NOTDIR);
        };
        let ends = Ends {
            from: End {
                parent: from,
                dir: self.volume_dir(from, from_name, parents.from())?,
                name: Name::from(from_name),
            },
            to: End {
                parent: to,
                dir: self.volume_dir(to, to_name, parents.to())?,
                name: Name::from(to_name),
            },
        };
        self.load(parents.from())?;
        self.load(parents.to())?;
        let Some(source) = self.found(from, parents.from(), from_name)? else {
            return fail(Errno::NOENT);
        };
        let source = source.inode;
        let target = self.found(to, parents.to(), to_name)?.map(|c| c.inode);
        self.check_rename(&ends, &source, target.as_ref(), mode)?;
        if self.is_same(&source, target.as_ref()) {
            return Ok(());
        }
        match (mode, &target) {
            (RenameMode::Exchange, Some(target)) => exchange(&ends, &source, target)?,
            _ => {
                let mut flags = match mode {
                    RenameMode::NoReplace => RenameFlags::NOREPLACE,
                    _ => RenameFlags::empty(),
                };
                flags.set(RenameFlags::WHITEOUT, leaves_whiteout);
                self.move_in_volume(&ends, &source, target.as_ref(), flags)?;
            }
        }
        self.put_child(parents.to(), &ends.to.name, &source)?;
        match target.filter(|_| mode == RenameMode::Exchange) {
            Some(target) => self.put_child(parents.from(), &ends.from.name, &target)?,
            None => {
                self.refresh(parents.from(), &ends.from.name)?;
            }
        }
        self.count_name_change();
        Ok(())
    }

    /// Refuses to move what a volume is shown at, and a directory into itself. The disk refuses the
    /// second as well, but it cannot be asked: the states are locked already.
    fn check_rename(
        &self,
        Ends { from, to }: &Ends<'_>,
        source: &Arc<Inode>,
        target: Option<&Arc<Inode>>,
        mode: RenameMode,
    ) -> Result<()> {
        check_presence(target.is_some(), mode)?;
        self.check_no_mount(source, true)?;
        if let Some(target) = target {
            self.check_no_mount(target, true)?;
        }
        if source.kind == Kind::Dir && source.is_ancestor_of(to.parent) {
            return fail(Errno::INVAL);
        }
        if target.is_some_and(|target| target.is_ancestor_of(from.parent)) {
            return fail(match mode {
                RenameMode::Exchange => Errno::INVAL,
                _ => Errno::NOTEMPTY,
            });
        }
        Ok(())
    }

    /// Two names of one file: rename(2) does nothing.
    fn is_same(&self, source: &Arc<Inode>, target: Option<&Arc<Inode>>) -> bool {
        target.is_some_and(|target| {
            Arc::ptr_eq(source, target)
                || (source.kind != Kind::Dir && source.st_ino == target.st_ino)
        })
    }

    fn move_in_volume(
        &self,
        Ends { from, to }: &Ends<'_>,
        source: &Arc<Inode>,
        replaced: Option<&Arc<Inode>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let dead_dir = match replaced.filter(|target| target.kind == Kind::Dir) {
            Some(target) => match target.lock_dir() {
                Some(mut state) => {
                    let removed_dir = self.removed_dir_of(target, &mut state)?;
                    Some((state, removed_dir))
                }
                None => None,
            },
            None => None,
        };
        let mut files = lock_files(source, replaced);
        if let (Some(target), Some(file)) = (replaced, replaced.and_then(|target| target.file()))
            && let Some(state) = files.target()
        {
            self.keep_alive(target, file, state, to.parent, &to.name, &to.dir)?;
        }
        move_entry(source, from, to, flags).context("rename", &from.name)?;
        let buried = dead_dir.map(|(mut state, removed_dir)| {
            state.set_removed(removed_dir);
            state
        });
        if let Some(state) = files.target() {
            state.drop_link(to.parent, &to.name);
        }
        if let Some(state) = files.source() {
            move_link(state, from, to);
        }
        drop(files);
        drop(buried);
        settle(source, to);
        Ok(())
    }
}

fn exchange(Ends { from, to }: &Ends<'_>, source: &Arc<Inode>, target: &Arc<Inode>) -> Result<()> {
    let dirs = (dir_of(source), dir_of(target));
    let mut files = lock_files(source, Some(target));
    swap_entries(dirs, from, to).context("rename", &from.name)?;
    if let Some(state) = files.source() {
        move_link(state, from, to);
    }
    if let Some(state) = files.target() {
        move_link(state, to, from);
    }
    drop(files);
    settle(source, to);
    settle(target, from);
    Ok(())
}
