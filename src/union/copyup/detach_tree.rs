//! Copies a directory tree up and makes it independent of the layers below, so that it can be
//! renamed in one piece.

use std::sync::Arc;

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::marks::Mark;
use crate::layer::marks::write::{remove_redirect, remove_whiteout_file};
use crate::layer::stat::Kind;
use crate::union::Union;
use crate::union::copyup::copy::restore_dir_times;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::Inode;
use crate::union::work::writable::Writable;

impl Union {
    /// Copies up everything below a directory, so that it can be renamed as a whole. Every step
    /// leaves the merged view as it is, so a crash or a failure halfway (ENOSPC) costs space only.
    pub(in crate::union) fn copy_up_tree(&self, inode: &Arc<Inode>) -> Result<()> {
        let mut todo = vec![Arc::clone(inode)];
        while let Some(dir) = todo.pop() {
            self.copy_up_dir(&dir)?;
            for name in self.names_to_copy(&dir)? {
                let Some(child) = self.child(&dir, &name)? else {
                    continue;
                };
                if child.inode.kind == Kind::Dir {
                    todo.push(child.inode);
                } else {
                    self.copy_up_file(&child.inode, None)?;
                }
            }
        }
        Ok(())
    }

    /// The entries of a directory that may have something below.
    fn names_to_copy(&self, inode: &Arc<Inode>) -> Result<Vec<Name>> {
        let Some(mut state) = inode.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        self.load(&mut state)?;
        if state.lowers.is_empty() {
            return Ok(Vec::new());
        }
        self.load_all(&mut state)?;
        let Some(listing) = &state.listing else {
            return fail(Errno::STALE);
        };
        let names = listing
            .after(0)
            .filter(|(_, slot)| match slot.kind() {
                Some(Kind::Dir) => true,
                // One of the upper may have its bytes below, where the new place would not find
                // them.
                Some(Kind::File) => slot.merged.upper.is_none() || state.impure,
                _ => slot.merged.upper.is_none(),
            })
            .map(|(name, _)| Arc::clone(name))
            .collect();
        Ok(names)
    }

    /// Makes a directory whose whole content is in the upper independent of the layers below:
    /// opaque on disk, then without the whiteouts that are not needed any more. `false` when
    /// something below is not in the upper yet.
    pub(in crate::union) fn detach_tree(
        &self,
        writable: &Writable,
        inode: &Arc<Inode>,
    ) -> Result<bool> {
        // The whole tree stays in memory until its lower parts are forgotten.
        let mut tree = Vec::new();
        if !self.is_all_upper(inode, &mut tree)? {
            return Ok(false);
        }
        let upper = {
            let Some(state) = inode.lock_dir() else {
                return fail(Errno::NOTDIR);
            };
            if state.lowers.is_empty() {
                return Ok(true);
            }
            match &state.upper {
                Some(upper) => upper.clone(),
                None => return Ok(false),
            }
        };
        let times = upper.stat().context("stat", b".")?;
        writable.make_opaque(&upper)?;
        restore_dir_times(&upper, &times);
        self.drop_lowers(inode)?;
        Ok(true)
    }

    /// Whether everything below a directory is in the upper; collects the directories in `tree`.
    fn is_all_upper(&self, inode: &Arc<Inode>, tree: &mut Vec<Arc<Inode>>) -> Result<bool> {
        tree.push(Arc::clone(inode));
        let mut next = 0;
        while let Some(dir) = tree.get(next).cloned() {
            next += 1;
            let Some(names) = self.directories_if_upper(&dir)? else {
                return Ok(false);
            };
            for name in names {
                if let Some(child) = self.child(&dir, &name)?
                    && child.inode.kind == Kind::Dir
                {
                    tree.push(child.inode);
                }
            }
        }
        Ok(true)
    }

    /// The directories in a directory that has lower parts; `None` when it, or an entry of it, is
    /// not in the upper.
    fn directories_if_upper(&self, inode: &Arc<Inode>) -> Result<Option<Vec<Name>>> {
        let Some(mut state) = inode.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        self.load(&mut state)?;
        if state.upper.is_none() {
            return Ok(None);
        }
        if state.lowers.is_empty() {
            return Ok(Some(Vec::new()));
        }
        self.load_all(&mut state)?;
        let Some(listing) = &state.listing else {
            return Ok(None);
        };
        if listing
            .after(0)
            .any(|(_, slot)| slot.merged.upper.is_none())
        {
            return Ok(None);
        }
        let directories = listing
            .after(0)
            .filter(|(_, slot)| slot.kind() == Some(Kind::Dir))
            .map(|(name, _)| Name::clone(name))
            .collect();
        Ok(Some(directories))
    }

    /// Forgets the lower parts of a tree that lies below an opaque directory now, and removes the
    /// whiteouts in it.
    fn drop_lowers(&self, inode: &Arc<Inode>) -> Result<()> {
        let mut todo = vec![Arc::clone(inode)];
        while let Some(dir) = todo.pop() {
            self.drop_lowers_of(&dir, &mut todo)?;
        }
        Ok(())
    }

    /// The same for one directory; adds those in it to `todo`.
    fn drop_lowers_of(&self, inode: &Inode, todo: &mut Vec<Arc<Inode>>) -> Result<()> {
        let Some(mut state) = inode.lock_dir() else {
            return fail(Errno::NOTDIR);
        };
        let (Some(upper), false) = (state.upper.clone(), state.lowers.is_empty()) else {
            return Ok(());
        };
        // Before the whiteouts go: an absolute redirect leads below an opaque parent, too.
        upper
            .this()
            .and_then(|this| remove_redirect(&this))
            .context("remove redirect", b".")?;
        state.lowers.clear();
        let Some(listing) = &mut state.listing else {
            return Ok(());
        };
        let times = upper.stat().context("stat", b".")?;
        let names: Vec<Name> = listing.all().map(|(name, _)| Name::clone(name)).collect();
        for name in names {
            listing.update(&name, |slot| {
                slot.merged.lower = None;
                slot.merged.upper_redirect = None;
                let gone = match slot.merged.mark.take() {
                    Some(Mark::Beside) => {
                        Some(upper.fd().and_then(|fd| remove_whiteout_file(fd, &name)))
                    }
                    Some(Mark::InPlace) => Some(upper.unlink(&name)),
                    None => None,
                };
                if let Some(Err(errno)) = gone {
                    log::warn!("unlink whiteout of {}: {errno}", name.escape_ascii());
                }
                if let Some(child) = slot.child.upgrade()
                    && child.kind == Kind::Dir
                {
                    todo.push(child);
                }
            });
        }
        restore_dir_times(&upper, &times);
        drop(state);
        self.notify_attributes(inode);
        Ok(())
    }
}
