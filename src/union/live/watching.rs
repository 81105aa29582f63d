//! Watches lower directories that others edit while they are mounted (`cache=auto`).
//!
//! Each directory of the merged tree that was read has its lower directories watched
//! (`layer/watch.rs`). A thread receives the events of these watches ([`Union::follow`]), reads
//! again what changed, and notifies the transport of the differences (`node/changes.rs`). While
//! nothing happens all answers stay valid as on a union whose layers do not change.
//!
//! A directory that cannot be watched, for its disk or since there are no watches left, is looked
//! at again now and then (`merge/renew.rs`), and [`crate::union::Validity`] says how long the
//! transport may cache an answer.
//!
//! The thread holds the lock of one directory at a time, in the order that is written in
//! `node/inode.rs`, and none over a message to the kernel: that is another thread's work.

use crate::union::node::followers::{Live, Touched};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::layer::watch::{Event, WatchNo, What};
use crate::sync::lock;
use crate::union::Union;
use crate::union::node::inode::{Inode, Node};

/// How long it is waited for more when something happened: who unpacks an archive makes many
/// changes at once.
const GATHER: Duration = Duration::from_millis(20);
/// The longest pause between two checks, regardless of their cost: changes are to show within a
/// second.
const LONGEST: Duration = Duration::from_millis(300);

/// What happened in one watched directory.
#[derive(Debug, Default)]
struct Heard {
    /// The directory itself, or its marks.
    itself: bool,
    over: bool,
    names: HashSet<Name>,
    contents: HashSet<Name>,
}

impl Heard {
    fn add(&mut self, event: Event<'_>) {
        match (event.what, event.name) {
            (What::Content, Some(name)) => {
                self.contents.insert(Name::from(name));
            }
            (What::Attributes, Some(name)) => {
                self.contents.insert(Name::from(name));
                // An xattr may have made it a mark.
                self.names.insert(Name::from(name));
            }
            (What::Name, Some(name)) => {
                self.names.insert(Name::from(name));
            }
            (What::Over, _) => self.over = true,
            _ => self.itself = true,
        }
    }
}

impl Union {
    /// Receives notifications of what others do to the layers, for as long as the process lives.
    /// For a thread of its own; returns at once where layers do not change, or [`Union::changes`]
    /// was not asked for.
    pub fn follow(&self) {
        let (Some(live), Some(_)) = (&self.others.live, self.others.changes.get()) else {
            return;
        };
        loop {
            let waited = live.wait(None);
            if let Err(errno) = waited {
                log::error!(
                    "wait for changes of the layers: {errno}; they are not heard of any more"
                );
                return;
            }
            std::thread::sleep(GATHER);
            let begun = Instant::now();
            self.hear(live);
            // Never busy for more than a part of the time, however fast the layers change.
            std::thread::sleep((begun.elapsed() * 3).min(LONGEST));
        }
    }

    /// What [`Union::follow`] does when something happened.
    #[cfg(test)]
    pub(in crate::union) fn hear_once(&self) {
        if let Some(live) = &self.others.live {
            self.hear(live);
        }
    }

    /// Reads again what was touched.
    fn hear(&self, live: &Live) {
        let mut heard: HashMap<WatchNo, Heard> = HashMap::new();
        let mut overflow = false;
        if let Some(watcher) = &live.watcher {
            let read = watcher.read(|event| match event.what {
                What::Overflow => overflow = true,
                _ => heard.entry(event.watch).or_default().add(event),
            });
            if let Err(errno) = read {
                log::warn!("read changes of the layers: {errno}");
                overflow = true;
            }
        }
        if overflow {
            log::info!(
                "more changes of the layers than were remembered: all of them are looked at"
            );
            self.look_at_everything();
        } else {
            for (watch, heard) in &heard {
                for dir in live.of(*watch) {
                    self.touched(&dir, heard);
                    if heard.over
                        && let Some(place) = dir.place()
                    {
                        let itself = true;
                        let heard = Heard {
                            itself,
                            ..Heard::default()
                        };
                        self.touched(&place.parent, &heard);
                    }
                }
            }
        }
        loop {
            let again = std::mem::take(&mut *lock(&live.restacked));
            if again.is_empty() {
                return;
            }
            for dir in again.iter().filter_map(Weak::upgrade) {
                self.read_again(&dir, Touched::All);
            }
        }
    }

    fn touched(&self, dir: &Arc<Inode>, heard: &Heard) {
        let mut children = Vec::new();
        if let Some(state) = dir.lock_dir()
            && let Some(listing) = &state.listing
        {
            let lower = |name| listing.get(name).filter(|slot| slot.merged.upper.is_none());
            let those = heard.contents.iter();
            children.extend(those.filter_map(|name| lower(name)?.child.upgrade()));
        }
        for child in children {
            self.notify_node(child.id);
        }
        if heard.itself || heard.over {
            self.read_again(dir, Touched::All);
        } else if !heard.names.is_empty() {
            self.read_again(dir, Touched::Names(heard.names.clone()));
        }
    }

    /// Reads a directory again, if it was read. Differences are notified.
    fn read_again(&self, dir: &Arc<Inode>, touched: Touched) {
        let Some(mut state) = dir.lock_dir() else {
            return;
        };
        if state.removed.is_some() {
            return;
        }
        if state.listing.is_none() {
            self.notify_node(dir.id);
            return;
        }
        if let Some(live) = &mut state.live {
            live.touch(touched);
        }
        // It is tried again at the next request, which then gets the error.
        if let Err(error) = self.load(&mut state) {
            log::debug!("read a changed directory: {error}");
            self.notify_node(dir.id);
        }
    }

    /// What happened is not known: everything may have.
    pub(in crate::union) fn look_at_everything(&self) {
        let mut all = self.nodes.table.all();
        // A directory is known before what is in it, mostly; where not, the directory above has it
        // read once more.
        all.sort_unstable_by_key(|inode| inode.id);
        for inode in all {
            match inode.node {
                Node::Dir(_) => self.read_again(&inode, Touched::All),
                Node::File(_) => self.notify_node(inode.id),
            }
        }
    }

    /// Whether others may change files below, and these changes are notified.
    #[must_use]
    pub fn is_told_of_changes(&self) -> bool {
        self.others.live.as_ref().is_some_and(|live| live.trusted)
    }
}

impl Inode {
    /// Whether everything that happens in this directory's lower directories is notified.
    pub(in crate::union) fn is_watched(&self) -> bool {
        self.kind == Kind::Dir
            && self
                .dir()
                .is_some_and(|dir| dir.watched.load(Ordering::Acquire))
    }
}
