//! What a container changed: A, C and D lines as `docker diff` has them.
//!
//! Only directories that are in the upper can hold changes. Each is compared as it is seen with and without the
//! upper, so that every form of whiteout counts, and nothing but what a user sees. Each change is told when it is found:
//! what is kept are the names of the directories on the way. What is only in the upper is not looked up in the union, which
//! would remember it.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use serde::Serialize;

use super::error::{Doing, Result, StoreError};
use crate::archive::listing::Listing;
use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::layer::{FdCache, LowerDir};
use crate::union::{Attr, Config, Entry, NodeId, Union, reads_plain_names};

/// Descriptors that stay open while the upper is walked.
const DESCRIPTORS: usize = 64;

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
    let dir = LowerDir::root(1, dir, &FdCache::new(DESCRIPTORS));
    let mut walk = Walk {
        plain_names: reads_plain_names(&dir),
        merged: &merged,
        base: &base,
        tell,
        above: Vec::new(),
        ended: false,
    };
    walk.dir(&dir, Some(NodeId::ROOT), Some(NodeId::ROOT), Path::new("/"))
}

struct Walk<'a> {
    /// `.wh.` names of the upper are ordinary ones.
    plain_names: bool,
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
        upper: &LowerDir,
        merged: Option<NodeId>,
        base: Option<NodeId>,
        path: &Path,
    ) -> Result<()> {
        let Listing {
            entries, whiteouts, ..
        } = Listing::read(upper, self.plain_names).map_err(|error| {
            StoreError::new(
                format!("cannot read '{}' of the upper: {error}", path.display()),
                "run 'unionmount system check'",
            )
        })?;
        let mut names: Vec<Name> = entries.union(&whiteouts).map(Name::clone).collect();
        drop(whiteouts);
        // An opaque directory hides what its upper does not mention.
        if let Some(base) = base {
            names.extend(self.hidden(merged, base, path)?);
            names.sort_unstable();
            names.dedup();
        }
        for name in names {
            if self.ended {
                break;
            }
            let in_upper = entries.contains(&name);
            self.entry(upper, merged, base, path, &name, in_upper)?;
        }
        Ok(())
    }

    /// Names that a directory has without the upper and not with it.
    fn hidden(&self, merged: Option<NodeId>, base: NodeId, path: &Path) -> Result<Vec<Name>> {
        let mut hidden = names(self.base, base, path)?;
        if let Some(merged) = merged {
            let mut shown = names(self.merged, merged, path)?;
            shown.sort_unstable();
            hidden.retain(|name| shown.binary_search(name).is_err());
            hidden.shrink_to_fit();
        }
        Ok(hidden)
    }

    /// One name; `in_upper` says that the upper has something of that name.
    fn entry(
        &mut self,
        upper: &LowerDir,
        merged: Option<NodeId>,
        base: Option<NodeId>,
        parent: &Path,
        name: &Name,
        in_upper: bool,
    ) -> Result<()> {
        let path = parent.join(OsStr::from_bytes(name));
        let below = match open_below(upper, name) {
            _ if !in_upper => None,
            // A mount of the upper has removed it meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            below => below.doing("open", &path)?,
        };
        let before = look(self.base, base, name, &path)?;
        if before.is_none() && in_upper {
            self.note(&path, What::Added);
            return match below {
                Some(below) => self.dir(&below, None, None, &path),
                None => Ok(()),
            };
        }
        let now = look(self.merged, merged, name, &path)?;
        let what = match (&before, &now) {
            (None, None) => return Ok(()),
            (Some(_), None) => What::Deleted,
            (None, Some(_)) => What::Added,
            (Some(_), Some(_)) => What::Changed,
        };
        let (is_dir, was_dir) = (is_dir(now.as_ref()), is_dir(before.as_ref()));
        if below.is_none() && what == What::Changed {
            // A whiteout in the upper beside an entry that shows again, or the same entry of a layer below.
            let same = |now: &Entry, before: &Entry| now.attr.ino == before.attr.ino;
            if let (Some(now), Some(before)) = (&now, &before)
                && same(now, before)
                && !in_upper
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

/// A directory of the upper, open for now; `None` when it is something else.
fn open_below(upper: &LowerDir, name: &Name) -> rustix::io::Result<Option<LowerDir>> {
    if upper.stat_on_disk(name)?.kind() != Kind::Dir {
        return Ok(None);
    }
    let below = upper.child(name);
    below.fd()?;
    Ok(Some(below))
}

fn is_dir(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.attr.kind() == Kind::Dir)
}

/// Whether a directory looks the same: then only what is in it was changed, if anything.
fn alike(now: Option<&Entry>, before: Option<&Entry>) -> bool {
    let seen = |attr: &Attr| (attr.mode, attr.uid, attr.gid, attr.mtime);
    match (now, before) {
        (Some(now), Some(before)) => seen(&now.attr) == seen(&before.attr),
        _ => false,
    }
}

/// The names that a directory shows.
fn names(union: &Union, dir: NodeId, path: &Path) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    let listed = union.readdir(dir, 0, |entry| {
        if &*entry.name != b"." && &*entry.name != b".." {
            names.push(Name::clone(&entry.name));
        }
        true
    });
    listed.map_err(|error| unreadable(path, &error))?;
    Ok(names)
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
