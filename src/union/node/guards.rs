//! Locking two inodes at a time, always in the order that is written in `inode.rs`.

use std::sync::{Arc, MutexGuard};

use crate::union::node::inode::{DirState, FileState, Inode};

/// The locked states of both parents, which may be one directory.
pub(in crate::union) struct Parents<'a> {
    from: MutexGuard<'a, DirState>,
    to: Option<MutexGuard<'a, DirState>>,
}

impl Parents<'_> {
    pub(in crate::union) fn from(&mut self) -> &mut DirState {
        &mut self.from
    }

    pub(in crate::union) fn to(&mut self) -> &mut DirState {
        self.to.as_mut().unwrap_or(&mut self.from)
    }
}

/// Locks both parents: an ancestor first, else the one with the smaller node id.
pub(in crate::union) fn lock_parents<'a>(
    from: &'a Arc<Inode>,
    to: &'a Arc<Inode>,
) -> Option<Parents<'a>> {
    if Arc::ptr_eq(from, to) {
        return Some(Parents {
            from: from.lock_dir()?,
            to: None,
        });
    }
    let from_first = if from.is_ancestor_of(to) {
        true
    } else if to.is_ancestor_of(from) {
        false
    } else {
        from.id < to.id
    };
    if from_first {
        let a = from.lock_dir()?;
        let b = to.lock_dir()?;
        return Some(Parents {
            from: a,
            to: Some(b),
        });
    }
    let b = to.lock_dir()?;
    let a = from.lock_dir()?;
    Some(Parents {
        from: a,
        to: Some(b),
    })
}

/// The locked states of the renamed and the replaced file, as far as they are files.
pub(in crate::union) struct Files<'a> {
    source: Option<MutexGuard<'a, FileState>>,
    target: Option<MutexGuard<'a, FileState>>,
}

impl Files<'_> {
    pub(in crate::union) fn source(&mut self) -> Option<&mut FileState> {
        self.source.as_deref_mut()
    }

    pub(in crate::union) fn target(&mut self) -> Option<&mut FileState> {
        self.target.as_deref_mut()
    }
}

pub(in crate::union) fn lock_files<'a>(
    source: &'a Inode,
    target: Option<&'a Arc<Inode>>,
) -> Files<'a> {
    match target {
        Some(target) if target.id < source.id => {
            let target = target.lock_file();
            Files {
                source: source.lock_file(),
                target,
            }
        }
        _ => Files {
            source: source.lock_file(),
            target: target.and_then(|target| target.lock_file()),
        },
    }
}
