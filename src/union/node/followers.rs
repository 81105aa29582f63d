//! Which directories of the merged tree follow which watches of lower directories (`cache=auto`).

use crate::layer::ReadOnlyDir;
use crate::layer::dir::Dir;
use crate::layer::dir::Name;
use crate::layer::stat::Stat;
use crate::layer::stat::Time;
use crate::layer::watch::WatchNo;
use crate::layer::watch::Watcher;
use crate::layer::watch::tells_all;
use crate::sync::lock;
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;
use dashmap::DashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;

/// What was touched in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::union) enum Touched {
    /// Anything.
    All,
    /// These names.
    Names(HashSet<Name>),
}

impl Touched {
    pub(in crate::union) fn has(&self, name: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
        }
    }
}

/// What a directory of the merged tree keeps when its layers are edited.
#[derive(Debug)]
pub(in crate::union) struct LiveDir {
    live: Arc<Live>,
    me: Weak<Inode>,
    watches: Vec<WatchNo>,
    /// Lower directories behind an opaque one, which may go.
    pub(in crate::union) covered: Vec<ReadOnlyDir>,
    /// What was touched since it was read.
    pub(in crate::union) touched: Option<Touched>,
}

impl LiveDir {
    pub(in crate::union) fn touch(&mut self, touched: Touched) {
        self.touched = match (self.touched.take(), touched) {
            (None, touched) => Some(touched),
            (Some(Touched::Names(mut known)), Touched::Names(names)) => {
                known.extend(names);
                Some(Touched::Names(known))
            }
            _ => Some(Touched::All),
        };
    }

    /// Has the directory read again soon, by the thread that receives change notifications.
    pub(in crate::union) fn read_again(&self) {
        self.live.read_again(&self.me);
    }

    /// The directory itself.
    pub(in crate::union) fn inode(&self) -> Option<Arc<Inode>> {
        self.me.upgrade()
    }

    /// Watches these directories, and no others any more. Returns whether all of them can be
    /// watched.
    pub(in crate::union) fn watch<'a>(&mut self, dirs: impl Iterator<Item = &'a Dir>) -> bool {
        let mut all = true;
        let mut watches = Vec::new();
        for dir in dirs {
            match self.live.follow(dir, &self.me) {
                Some(watch) if watches.contains(&watch) => {}
                Some(watch) => watches.push(watch),
                None => all = false,
            }
        }
        for old in std::mem::replace(&mut self.watches, watches) {
            if !self.watches.contains(&old) {
                self.live.leave(old, &self.me);
            }
        }
        all
    }
}

impl Drop for LiveDir {
    fn drop(&mut self) {
        for watch in &self.watches {
            self.live.leave(*watch, &self.me);
        }
    }
}

/// Which inodes follow which watch.
#[derive(Debug)]
pub(in crate::union) struct Live {
    pub(in crate::union) watcher: Option<Watcher>,
    /// Lock order: after a directory's state; held over the system call that adds or removes a
    /// watch; no other lock is taken under it.
    followers: Mutex<HashMap<WatchNo, Vec<Weak<Inode>>>>,
    /// Directories of which other lower directories are now a part: they are read again, and what
    /// is below them. Lock order: locked for a statement; no other lock is taken under it.
    pub(in crate::union) restacked: Mutex<Vec<Weak<Inode>>>,
    wake: OwnedFd,
    /// When files that are not watched were last seen to be changed.
    /// Lock order: a shard is locked for a statement; no other lock is taken under it.
    seen: DashMap<NodeId, Time>,
    /// All lower layers can be watched, as long as there are watches.
    pub(in crate::union) trusted: bool,
}

impl Live {
    /// For a union of these layers. Errors: EMFILE, ENFILE.
    pub(in crate::union) fn new(lowers: &[ReadOnlyDir]) -> rustix::io::Result<Arc<Self>> {
        let watcher = Watcher::new()
            .inspect_err(|errno| log::info!("no inotify: {errno}; layers are looked at instead"))
            .ok();
        let watchable = |dir: &ReadOnlyDir| dir.fd().is_ok_and(|fd| tells_all(&fd));
        Ok(Arc::new(Self {
            trusted: watcher.is_some() && lowers.iter().all(watchable),
            watcher,
            followers: Mutex::default(),
            restacked: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            seen: DashMap::new(),
        }))
    }

    pub(in crate::union) fn dir(self: &Arc<Self>, me: Weak<Inode>) -> Box<LiveDir> {
        Box::new(LiveDir {
            live: Arc::clone(self),
            me,
            watches: Vec::new(),
            covered: Vec::new(),
            touched: None,
        })
    }

    fn follow(&self, dir: &Dir, me: &Weak<Inode>) -> Option<WatchNo> {
        let watcher = self.watcher.as_ref()?;
        let fd = dir.fd().ok()?;
        // Held over the call: a watch that another thread ends meanwhile must not be taken for the
        // new one.
        let mut followers = lock(&self.followers);
        let watch = watcher
            .watch(&fd)
            .inspect_err(|errno| log::debug!("not watched: {errno}"))
            .ok()?;
        let those = followers.entry(watch).or_insert_with(|| {
            watcher.count();
            Vec::new()
        });
        if !those.iter().any(|other| other.ptr_eq(me)) {
            those.push(Weak::clone(me));
        }
        Some(watch)
    }

    fn leave(&self, watch: WatchNo, me: &Weak<Inode>) {
        let mut followers = lock(&self.followers);
        if let Some(those) = followers.get_mut(&watch) {
            those.retain(|other| !other.ptr_eq(me));
            if those.is_empty() {
                followers.remove(&watch);
                if let Some(watcher) = &self.watcher {
                    watcher.end(watch);
                }
            }
        }
    }

    /// The directories of the merged tree that a watch is about.
    pub(in crate::union) fn of(&self, watch: WatchNo) -> Vec<Arc<Inode>> {
        let followers = lock(&self.followers);
        let those = followers.get(&watch).into_iter().flatten();
        those.filter_map(Weak::upgrade).collect()
    }

    /// How many watches there are.
    #[cfg(test)]
    pub(in crate::union) fn watches(&self) -> usize {
        lock(&self.followers).len()
    }

    /// Has a directory read again soon.
    fn read_again(&self, dir: &Weak<Inode>) {
        lock(&self.restacked).push(Weak::clone(dir));
        if let Err(errno) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            log::debug!("eventfd: {errno}");
        }
    }

    /// Whether a file that is not watched was changed since the last call.
    pub(in crate::union) fn saw(&self, node: NodeId, stat: &Stat) -> bool {
        self.seen
            .insert(node, stat.ctime)
            .is_some_and(|before| before != stat.ctime)
    }

    pub(in crate::union) fn forget(&self, node: NodeId) {
        self.seen.remove(&node);
    }

    /// Waits until something happens.
    pub(in crate::union) fn wait(&self, timeout: Option<&Timespec>) -> rustix::io::Result<()> {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        if let Some(watcher) = &self.watcher {
            fds.push(PollFd::new(watcher, PollFlags::IN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        match rustix::io::read(&self.wake, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}
