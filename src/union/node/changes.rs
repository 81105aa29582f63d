//! Notification of changes that others made to the layers, for a kernel that caches names and
//! attributes.
//!
//! With `cache=auto` a directory is read again when its layers changed. Each difference is notified
//! once, name by name, so that the kernel drops it from its cache at once, and a process that
//! watches a file of the mount (inotify(7)) is notified of its removal. Changed attributes and
//! bytes are notified by node.
//!
//! What this mount does is seen by the kernel itself, as far as it is what a request is about.
//! Attributes of other objects, which change beside that (a copy-up gives directories another
//! ctime, a rename copies up what lies below), are notified at once: else stat(2) would say one
//! thing before a directory is read and another after it.

use crate::union::types::Change;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{RwLock, Weak};

use crate::layer::dir::Name;
use crate::sync::{read, write};
use crate::union::Union;
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;

type Notify = Box<dyn Fn(NodeId) + Send + Sync>;

/// The callback that invalidates the attributes that the kernel has cached. Lock order: read-locked
/// while the callback runs (see [`Union::notify_attributes`]); written only when the callback is
/// set.
#[derive(Default)]
pub(in crate::union) struct Attributes(RwLock<Option<Notify>>);

impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attributes")
    }
}

impl Union {
    /// Sets the callback to notify that the cached attributes of a node are not valid any more;
    /// replaces the one before. It is called while requests are served, and must not wait for one.
    pub fn notify_attributes_to(&self, tell: impl Fn(NodeId) + Send + Sync + 'static) {
        *write(&self.others.attributes.0) = Some(Box::new(tell));
    }

    /// Notifies that a change on the disk changed the attributes of an object that is not the
    /// subject of the request. Called when the change is done, without locks: attributes that were
    /// read before it are not valid any more.
    pub(in crate::union) fn notify_attributes(&self, inode: &Inode) {
        if inode.id == NodeId::ROOT || inode.lookups() > 0 {
            self.notify_attributes_of(inode.id);
        }
    }

    /// As [`Union::notify_attributes`], of a node that may not be known.
    pub(in crate::union) fn notify_attributes_of(&self, node: NodeId) {
        if let Some(tell) = &*read(&self.others.attributes.0) {
            tell(node);
        }
    }

    /// The channel on which changes are notified from now on; `None` where layers do not change,
    /// and for every call but the first.
    pub fn changes(&self) -> Option<Receiver<Change>> {
        if !self.may_change_below() {
            return None;
        }
        let (sender, receiver) = channel();
        self.others.changes.set(sender).ok().map(|()| receiver)
    }

    /// Notifies that a name differs. Called with the directory locked: nothing is done here but to
    /// note it.
    pub(in crate::union) fn tell(
        &self,
        parent: Option<NodeId>,
        name: &Name,
        gone: Option<&Weak<Inode>>,
    ) {
        let Some(parent) = parent else { return };
        let child = gone.and_then(Weak::upgrade);
        self.note(Change::Name {
            parent,
            name: Name::clone(name),
            gone: gone.is_some(),
            // Not what is about to be forgotten.
            child: child
                .filter(|child| child.lookups.load(Ordering::Relaxed) > 0)
                .map(|child| child.id),
        });
    }

    /// Notifies that attributes and bytes, or the listing, differ.
    pub(in crate::union) fn notify_node(&self, node: NodeId) {
        self.note(Change::Node(node));
    }

    /// Notifies that entries below a directory are not valid for as long as was answered.
    pub(in crate::union) fn notify_below(&self, dir: &Inode) {
        if let Some(place) = dir.place() {
            self.note(Change::Below {
                parent: place.parent.id,
                name: place.name,
            });
        }
    }

    fn note(&self, change: Change) {
        if let Some(changes) = self.others.changes.get()
            && changes.send(change).is_err()
        {
            log::debug!("there is no transport for changes any more");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sync::lock;
    use crate::union::config::{CacheMode, Config};
    use crate::union::tests::testing::{Stack, file, find, mkdir};
    use crate::union::{Caller, RenameMode, Validity};

    /// A change beside a request is notified once per copy-up; changes in the upper's directories
    /// are not notified.
    #[test]
    fn attributes_are_told_of_copy_ups_alone() {
        const ROOT: NodeId = NodeId::ROOT;
        let stack = Stack::new();
        stack.file("old/a/b/f", "old");
        stack.file("old/a/c/g", "old");
        let union = stack.open();
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        union.notify_attributes_to(move |node| lock(&hears).push(node));
        let dir = mkdir(&union, "d", 0o755);
        let made = union.make(dir, b"f", &file(0o600), &Caller::default());
        let made = made.unwrap().node;
        union.write(made, 0, b"new").unwrap();
        union.link(made, dir, b"g").unwrap();
        let mode = RenameMode::Replace;
        union.rename(dir, b"g", ROOT, b"h", mode).unwrap();
        union.unlink(dir, b"f").unwrap();
        assert!(lock(&told).is_empty());
        let nodes = ["a", "a/b", "a/b/f"].map(|path| find(&union, path).node);
        union.write(nodes[2], 0, b"new").unwrap();
        for node in nodes.into_iter().chain([ROOT]) {
            assert!(lock(&told).contains(&node));
        }
        lock(&told).clear();
        union.write(nodes[2], 0, b"again").unwrap();
        assert!(lock(&told).is_empty());
        // A renamed directory brings up what is in it, and takes marks away from it.
        let below = ["a/c", "a/c/g"].map(|path| find(&union, path).node);
        union.rename(ROOT, b"a", ROOT, b"z", mode).unwrap();
        assert!(below.iter().all(|node| lock(&told).contains(node)));
    }

    #[test]
    fn what_others_change_is_told_once() {
        let stack = Stack::new();
        let old = stack.file("old/f", "old");
        stack.file("old/stays", "same");
        assert!(stack.open().changes().is_none(), "static layers");
        let config = Config {
            cache: CacheMode::Auto,
            upper: None,
            ..stack.config()
        };
        let union = Union::open(&config).unwrap();
        let heard = union.changes().unwrap();
        assert!(union.changes().is_none(), "there is one listener");
        let child = find(&union, "f").node;
        assert_eq!(union.names_validity(NodeId::ROOT), Validity::Kept);
        std::fs::remove_file(old).unwrap();
        stack.file("old/new", "new");
        // No thread receives it here, except the one that a transport starts.
        union.hear_once();
        assert!(union.lookup(NodeId::ROOT, b"f").unwrap().is_none());
        let mut told: Vec<_> = heard.try_iter().collect();
        told.sort_by_key(|change| match change {
            Change::Name { name, .. } => name.to_vec(),
            _ => b"z".to_vec(),
        });
        let change = |name: &[u8], gone, child| Change::Name {
            parent: NodeId::ROOT,
            name: Name::from(name),
            gone,
            child,
        };
        assert_eq!(
            told,
            [
                change(b"f", true, Some(child)),
                change(b"new", false, None),
                Change::Node(NodeId::ROOT)
            ]
        );
    }
}
