//! What a container changed: A, C and D lines as `docker diff` has them.
//!
//! Only directories that are in the upper can hold changes. Each is compared as it is seen with and
//! without the upper, so that every form of whiteout counts, and nothing but what a user sees. Each
//! change is reported when it is found: what is kept are the names of the directories on the way.
//! What is only in the upper is not looked up in the union, which would remember it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Serialize;

use super::listing::names;
use super::metadata::Metadata;
use crate::archive::error::is_gone;
use crate::archive::listing::LayerListing;
use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::layer::{FdCache, ReadOnlyDir};
use crate::store::base::{Context, Result, StoreError};
use crate::union::{Config, EntryRef, NodeRef, Union, reads_plain_names};

/// Descriptors that stay open while the upper is walked.
const DESCRIPTORS: usize = 64;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum ChangeKind {
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

impl ChangeKind {
    /// The letter.
    #[must_use]
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// Reports the changes of a union's upper by path (absolute, as seen in the container), sorted, the
/// directory before what is in it. `report` may end it.
///
/// # Errors
/// The union cannot be opened or read; what was found before was reported.
pub(crate) fn changes(
    view: &Config,
    report: &mut dyn FnMut(&Path, ChangeKind) -> ControlFlow<()>,
) -> Result<()> {
    let merged = Union::open(view)?;
    let base = Union::open(&Config {
        upper: None,
        ..view.clone()
    })?;
    let Some(upper) = &view.upper else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, upper, flags, Mode::empty()).context("open", upper)?;
    let dir = ReadOnlyDir::alone(dir, &FdCache::new(DESCRIPTORS));
    let mut walk = ChangesWalk {
        plain_names: reads_plain_names(&dir),
        merged: &merged,
        base: &base,
        report,
        path: b"/".to_vec(),
        above: Vec::new(),
        ended: false,
    };
    walk.tree(dir)
}

/// A directory of the upper that is being walked.
struct ChangedDir<'u> {
    upper: ReadOnlyDir,
    /// It with the upper, and without.
    merged: Option<NodeRef<'u>>,
    base: Option<NodeRef<'u>>,
    /// So many bytes of the path that is walked are its own, with the slash.
    end: usize,
    /// So many directories above it wait to be reported.
    above: usize,
    /// What the upper has in it.
    entries: BTreeSet<Name>,
    /// What was not looked at yet.
    names: std::vec::IntoIter<Name>,
}

struct ChangesWalk<'a> {
    /// `.wh.` names of the upper are ordinary ones.
    plain_names: bool,
    merged: &'a Union,
    base: &'a Union,
    report: &'a mut dyn FnMut(&Path, ChangeKind) -> ControlFlow<()>,
    /// What is looked at.
    path: Vec<u8>,
    /// Directories on the way whose metadata is the same, by where they end in the path: reported
    /// when something in them is found.
    above: Vec<usize>,
    /// The caller wants no more.
    ended: bool,
}

impl<'u> ChangesWalk<'u> {
    fn tree(&mut self, root: ReadOnlyDir) -> Result<()> {
        let (merged, base) = (self.merged.root(), self.base.root());
        let mut levels = vec![self.level(root, Some(merged), Some(base))?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.end);
            if let Some(name) = level.names.next().filter(|_| !self.ended) {
                self.path.extend_from_slice(&name);
                let in_upper = level.entries.contains(&name);
                let below = self.entry(level, &name, in_upper)?;
                levels.extend(below);
                continue;
            }
            let above = level.above;
            levels.pop();
            if !levels.is_empty() {
                // A change that was found in it reported it already.
                self.above.truncate(above);
            }
        }
        Ok(())
    }

    /// Begins with a directory of the upper, at the path.
    fn level(
        &self,
        upper: ReadOnlyDir,
        merged: Option<NodeRef<'u>>,
        base: Option<NodeRef<'u>>,
    ) -> Result<ChangedDir<'u>> {
        let listing = match LayerListing::read(&upper, self.plain_names) {
            // A mount of the upper has removed it meanwhile.
            Err(error) if error.is_gone() => LayerListing::default(),
            Err(error) => {
                return Err(StoreError::failed(
                    format!("cannot read '{}' of the upper", self.shown().display()),
                    error,
                    "run 'unionmount system check'",
                ));
            }
            Ok(listing) => listing,
        };
        let (entries, whiteouts) = (listing.entries, listing.whiteouts);
        let mut names: Vec<Name> = entries.union(&whiteouts).map(Name::clone).collect();
        drop(whiteouts);
        // An opaque directory hides what its upper does not mention.
        if let Some(base) = &base {
            names.extend(self.hidden(merged.as_ref(), base)?);
            names.sort_unstable();
            names.dedup();
        }
        Ok(ChangedDir {
            upper,
            merged,
            base,
            end: self.path.len(),
            above: self.above.len(),
            entries,
            names: names.into_iter(),
        })
    }

    /// Names that a directory has without the upper and not with it.
    fn hidden(&self, merged: Option<&NodeRef<'u>>, base: &NodeRef<'u>) -> Result<Vec<Name>> {
        let mut hidden = self.names(self.base, base)?;
        if let Some(merged) = merged {
            let mut shown = self.names(self.merged, merged)?;
            shown.sort_unstable();
            hidden.retain(|name| shown.binary_search(name).is_err());
            hidden.shrink_to_fit();
        }
        Ok(hidden)
    }

    /// One name; `in_upper` says that the upper has something of that name. Returns a directory to
    /// continue in.
    fn entry(
        &mut self,
        level: &ChangedDir<'u>,
        name: &Name,
        in_upper: bool,
    ) -> Result<Option<ChangedDir<'u>>> {
        let below = match open_below(&level.upper, name) {
            _ if !in_upper => None,
            // A mount of the upper has removed it meanwhile.
            Err(errno) if is_gone(errno) => return Ok(None),
            below => below.context("open", self.shown())?,
        };
        let before = self.look(self.base, level.base.as_ref(), name)?;
        if before.is_none() && in_upper {
            self.found(ChangeKind::Added);
            return match below {
                Some(below) => self.go_on(below, None, None).map(Some),
                None => Ok(None),
            };
        }
        let now = self.look(self.merged, level.merged.as_ref(), name)?;
        let Some(kind) = kind_of(before.as_ref(), now.as_ref()) else {
            return Ok(None);
        };
        if !in_upper && shows_the_same(before.as_ref(), now.as_ref()) {
            return Ok(None);
        }
        let (is_dir, was_dir) = (is_dir(now.as_ref()), is_dir(before.as_ref()));
        let waits = is_dir && was_dir && alike(now.as_ref(), before.as_ref());
        if !waits {
            self.found(kind);
        }
        let Some(below) = below else {
            return Ok(None);
        };
        // In what is not a directory there is nothing to look up.
        let merged = now.filter(|_| is_dir).map(|entry| entry.node);
        let base = before.filter(|_| was_dir).map(|entry| entry.node);
        let above = self.above.len();
        if waits {
            self.above.push(self.path.len());
        }
        let level = self.go_on(below, merged, base)?;
        Ok(Some(ChangedDir { above, ..level }))
    }

    fn go_on(
        &mut self,
        below: ReadOnlyDir,
        merged: Option<NodeRef<'u>>,
        base: Option<NodeRef<'u>>,
    ) -> Result<ChangedDir<'u>> {
        self.path.push(b'/');
        self.level(below, merged, base)
    }

    /// A change of what is looked at, after the directories above it as changed.
    fn found(&mut self, what: ChangeKind) {
        let above = std::mem::take(&mut self.above);
        let changed = above.iter().map(|end| (*end, ChangeKind::Changed));
        for (end, what) in changed.chain([(self.path.len(), what)]) {
            if self.ended {
                return;
            }
            let path = Path::new(OsStr::from_bytes(&self.path[..end]));
            self.ended = (self.report)(path, what).is_break();
        }
    }

    fn shown(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The names that a directory shows.
    fn names(&self, union: &Union, dir: &NodeRef<'_>) -> Result<Vec<Name>> {
        match names(union, dir.id()) {
            Err(error) if is_gone(error.errno()) => Ok(Vec::new()),
            names => names.map_err(|error| self.unreadable(error)),
        }
    }

    fn look(
        &self,
        union: &'u Union,
        parent: Option<&NodeRef<'u>>,
        name: &[u8],
    ) -> Result<Option<EntryRef<'u>>> {
        let Some(parent) = parent else {
            return Ok(None);
        };
        match union.find(parent.id(), name) {
            Err(error) if is_gone(error.errno()) => Ok(None),
            found => found.map_err(|error| self.unreadable(error)),
        }
    }

    fn unreadable(&self, error: crate::union::Error) -> StoreError {
        StoreError::failed(
            format!("cannot read '{}' of the container", self.shown().display()),
            error,
            "run 'unionmount system check'",
        )
    }
}

/// What happened to a name; `None` when there is and was nothing.
fn kind_of(before: Option<&EntryRef<'_>>, now: Option<&EntryRef<'_>>) -> Option<ChangeKind> {
    match (before, now) {
        (None, None) => None,
        (Some(_), None) => Some(ChangeKind::Deleted),
        (None, Some(_)) => Some(ChangeKind::Added),
        (Some(_), Some(_)) => Some(ChangeKind::Changed),
    }
}

/// Whether a name that the upper does not have as an entry shows what it showed: beside a whiteout
/// that hides nothing, the same entry of a layer below.
fn shows_the_same(before: Option<&EntryRef<'_>>, now: Option<&EntryRef<'_>>) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => before.attr.ino == now.attr.ino,
        _ => false,
    }
}

/// A directory of the upper, open for now; `None` when it is something else.
fn open_below(upper: &ReadOnlyDir, name: &Name) -> rustix::io::Result<Option<ReadOnlyDir>> {
    if upper.stat_on_disk(name)?.kind() != Kind::Dir {
        return Ok(None);
    }
    let below = upper.child(name);
    below.fd()?;
    Ok(Some(below))
}

fn is_dir(entry: Option<&EntryRef<'_>>) -> bool {
    entry.is_some_and(|entry| entry.attr.kind() == Kind::Dir)
}

/// Whether a directory has the same metadata: then only what is in it was changed, if anything.
fn alike(now: Option<&EntryRef<'_>>, before: Option<&EntryRef<'_>>) -> bool {
    match (now, before) {
        (Some(now), Some(before)) => Metadata::from(&now.attr) == Metadata::from(&before.attr),
        _ => false,
    }
}
