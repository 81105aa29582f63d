//! What a container changed: A, C and D lines as `docker diff` has them.
//!
//! Only directories that are in the upper can hold changes. Each is compared as it is seen with and without the
//! upper, so that every form of whiteout counts, and nothing but what a user sees. Each change is told when it is found:
//! what is kept are the names of the directories on the way.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::Serialize;

use super::error::{Doing, Result, StoreError};
use super::remove::entries;
use crate::layer::mark::{NameMeaning, meaning};
use crate::layer::stat::Kind;
use crate::union::{Attr, Config, Entry, NodeId, Union};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum What {
    /// It is new.
    #[serde(rename = "A")]
    Added,
    /// It, or something in it, is different.
    #[serde(rename = "C")]
    Changed,
    /// It is gone.
    #[serde(rename = "D")]
    Deleted,
}

impl What {
    /// The letter.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// Tells the changes of a union's upper by path (absolute, as seen in the container), sorted, the directory before what is
/// in it. `tell` may end it.
///
/// # Errors
/// The union cannot be opened or read; what was found before was told.
pub fn changes(view: &Config, tell: &mut dyn FnMut(&Path, What) -> ControlFlow<()>) -> Result<()> {
    let merged = Union::open(view)?;
    let base = Union::open(&Config {
        upper: None,
        ..view.clone()
    })?;
    let Some(upper) = &view.upper else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, upper, flags, Mode::empty()).doing("open", upper)?;
    let mut walk = Walk {
        merged: &merged,
        base: &base,
        tell,
        above: Vec::new(),
        ended: false,
    };
    walk.dir(&dir, Some(NodeId::ROOT), Some(NodeId::ROOT), Path::new("/"))
}

struct Walk<'a> {
    merged: &'a Union,
    base: &'a Union,
    tell: &'a mut dyn FnMut(&Path, What) -> ControlFlow<()>,
    /// Directories on the way that look the same: told when something in them is found.
    above: Vec<PathBuf>,
    /// Nobody listens any more.
    ended: bool,
}

impl Walk<'_> {
    /// One directory of the upper.
    fn dir(
        &mut self,
        upper: &OwnedFd,
        merged: Option<NodeId>,
        base: Option<NodeId>,
        path: &Path,
    ) -> Result<()> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for (name, _) in entries(upper).doing("read", path)? {
            match meaning(name.to_bytes()) {
                NameMeaning::Plain => names.push(name.to_bytes().to_vec()),
                NameMeaning::Whiteout(hidden) => names.push(hidden.to_vec()),
                NameMeaning::Opaque | NameMeaning::Leftover => {}
            }
        }
        // An opaque directory hides what its upper does not mention.
        if let Some(base) = base {
            names.extend(self.hidden(merged, base, path)?);
        }
        names.sort();
        names.dedup();
        for name in names {
            if self.ended {
                break;
            }
            self.entry(upper, merged, base, path, &name)?;
        }
        Ok(())
    }

    /// Names that a directory has without the upper and not with it.
    fn hidden(&self, merged: Option<NodeId>, base: NodeId, path: &Path) -> Result<Vec<Vec<u8>>> {
        let mut hidden = Vec::new();
        let mut names = Vec::new();
        let listed = self.base.readdir(base, 0, |entry| {
            if &*entry.name != b"." && &*entry.name != b".." {
                names.push(entry.name.to_vec());
            }
            true
        });
        listed.map_err(|error| unreadable(path, &error))?;
        for name in names {
            if look(self.merged, merged, &name, path)?.is_none() {
                hidden.push(name);
            }
        }
        Ok(hidden)
    }

    fn entry(
        &mut self,
        upper: &OwnedFd,
        merged: Option<NodeId>,
        base: Option<NodeId>,
        parent: &Path,
        name: &[u8],
    ) -> Result<()> {
        let path = parent.join(OsString::from_vec(name.to_vec()));
        let now = look(self.merged, merged, name, &path)?;
        let before = look(self.base, base, name, &path)?;
        let what = match (&before, &now) {
            (None, None) => return Ok(()),
            (Some(_), None) => What::Deleted,
            (None, Some(_)) => What::Added,
            (Some(_), Some(_)) => What::Changed,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let below = match openat(upper, name, flags, Mode::empty()) {
            Ok(below) => Some(below),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => None,
            Err(errno) => return Err(errno).doing("open", &path),
        };
        let (is_dir, was_dir) = (is_dir(now.as_ref()), is_dir(before.as_ref()));
        if below.is_none() && what == What::Changed {
            // A whiteout in the upper beside an entry that shows again, or the same entry of a layer below.
            let same = |now: &Entry, before: &Entry| now.attr.ino == before.attr.ino;
            if let (Some(now), Some(before)) = (&now, &before)
                && same(now, before)
                && !in_upper(upper, name)
            {
                return self.forget(now, before);
            }
        }
        let node = |entry: &Option<Entry>, is_dir: bool| entry.filter(|_| is_dir).map(|e| e.node);
        let waits =
            what == What::Changed && is_dir && was_dir && alike(now.as_ref(), before.as_ref());
        if !waits {
            self.note(&path, what);
        }
        if let Some(below) = below {
            let depth = self.above.len();
            if waits {
                self.above.push(path.clone());
            }
            self.dir(&below, node(&now, is_dir), node(&before, was_dir), &path)?;
            // What is found in it takes it away.
            self.above.truncate(depth);
        }
        for (union, entry) in [(self.merged, &now), (self.base, &before)] {
            if let Some(entry) = entry {
                union.forget(entry.node, 1);
            }
        }
        Ok(())
    }

    fn forget(&self, now: &Entry, before: &Entry) -> Result<()> {
        self.merged.forget(now.node, 1);
        self.base.forget(before.node, 1);
        Ok(())
    }

    /// A change, after the directories above it as changed.
    fn note(&mut self, path: &Path, what: What) {
        let above = std::mem::take(&mut self.above);
        let changed = above.iter().map(|dir| (&**dir, What::Changed));
        for (path, what) in changed.chain([(path, what)]) {
            if self.ended {
                return;
            }
            self.ended = (self.tell)(path, what).is_break();
        }
    }
}

fn is_dir(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.attr.kind() == Kind::Dir)
}

fn in_upper(upper: &OwnedFd, name: &[u8]) -> bool {
    use std::os::fd::AsFd as _;
    crate::layer::stat::Stat::of_entry(upper.as_fd(), name)
        .is_ok_and(|stat| !stat.is_whiteout_device())
}

/// Whether a directory looks the same: then only what is in it was changed, if anything.
fn alike(now: Option<&Entry>, before: Option<&Entry>) -> bool {
    let seen = |attr: &Attr| (attr.mode, attr.uid, attr.gid, attr.mtime);
    match (now, before) {
        (Some(now), Some(before)) => seen(&now.attr) == seen(&before.attr),
        _ => false,
    }
}

fn look(union: &Union, parent: Option<NodeId>, name: &[u8], path: &Path) -> Result<Option<Entry>> {
    match parent {
        None => Ok(None),
        Some(parent) => union
            .lookup(parent, name)
            .map_err(|error| unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &crate::union::Error) -> StoreError {
    StoreError::new(
        format!("cannot read '{}' of the container: {error}", path.display()),
        "run 'unionmount system check'",
    )
}
