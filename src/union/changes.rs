//! Changes that somebody else made to the layers, for a kernel that caches what it was told.
//!
//! With `cache=auto` a directory is read again when its layers changed. What differs then is told once, name by name;
//! the kernel, which would ask again within the lifetime of its caches, so learns it at once, and whoever watches a
//! file (inotify(7)) hears that it is gone.

use std::sync::Weak;
use std::sync::mpsc::{Receiver, channel};

use super::Union;
use super::inode::{Inode, NodeId};
use crate::layer::dir::Name;

/// A name that means something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The directory.
    pub parent: NodeId,
    /// The name.
    pub name: Name,
    /// It means nothing any more.
    pub gone: bool,
    /// What it meant, if the kernel knows that.
    pub child: Option<NodeId>,
}

impl Union {
    /// Where changes will be told from now on; `None` where layers do not change, and for all but the first who asks.
    pub fn changes(&self) -> Option<Receiver<Change>> {
        if !self.may_change_below() {
            return None;
        }
        let (sender, receiver) = channel();
        self.changes.set(sender).ok().map(|()| receiver)
    }

    /// Tells that a name differs. Called with the directory locked: nothing is done here but to note it.
    pub(super) fn tell(&self, parent: Option<NodeId>, name: &Name, gone: Option<&Weak<Inode>>) {
        let (Some(changes), Some(parent)) = (self.changes.get(), parent) else {
            return;
        };
        let change = Change {
            parent,
            name: Name::clone(name),
            gone: gone.is_some(),
            child: gone.and_then(Weak::upgrade).map(|child| child.id),
        };
        if changes.send(change).is_err() {
            log::debug!("nobody hears of changes any more");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::{CacheMode, Config};
    use super::super::testing::{Stack, find};
    use super::*;

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
        std::fs::remove_file(old).unwrap();
        stack.file("old/new", "new");
        std::thread::sleep(std::time::Duration::from_millis(450));
        assert!(union.lookup(NodeId::ROOT, b"f").unwrap().is_none());
        let mut told: Vec<_> = heard.try_iter().collect();
        told.sort_by_key(|change| change.name.to_vec());
        let change = |name: &[u8], gone, child| Change {
            parent: NodeId::ROOT,
            name: Name::from(name),
            gone,
            child,
        };
        assert_eq!(
            told,
            [change(b"f", true, Some(child)), change(b"new", false, None)]
        );
    }
}
