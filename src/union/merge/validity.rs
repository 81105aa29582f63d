//! How long an answer may be cached.

use crate::layer::stat::Stat;
use crate::union::merge::renew::ChangedBy;
use crate::union::node::ids::NodeId;
use crate::union::node::inode::Inode;
use crate::union::types::Validity;
use crate::union::{CacheMode, Union};

impl Union {
    /// How long it may be cached what is, and what is not, in a directory.
    #[must_use]
    pub fn names_validity(&self, dir: NodeId) -> Validity {
        if self.rules.cache == CacheMode::Static && !self.has_volumes() {
            return Validity::Kept;
        }
        match self.nodes.table.get(dir) {
            Ok(inode) if inode.is_shared() => Validity::Shared,
            Ok(inode) if self.rules.cache == CacheMode::Static || inode.is_watched() => {
                Validity::Kept
            }
            _ => Validity::Checked,
        }
    }

    /// How long the attributes of a directory may be cached, and its name. `upper`: it is in the
    /// upper.
    pub(in crate::union) fn dir_validity(&self, inode: &Inode, upper: bool) -> Validity {
        if inode.is_shared() {
            return Validity::Shared;
        }
        let watched = || {
            let above = inode.place();
            inode.is_watched() && above.is_none_or(|place| place.parent.is_watched())
        };
        if self.rules.cache == CacheMode::Static || (upper && self.writable.is_some()) || watched()
        {
            Validity::Kept
        } else {
            Validity::Checked
        }
    }

    /// How long the attributes of a file may be cached, and its name. A file with several names may
    /// be changed under one that is not watched, and so may one whose bytes are elsewhere.
    pub(in crate::union) fn file_validity(
        &self,
        inode: &Inode,
        place: ChangedBy<'_>,
        stat: &Stat,
    ) -> Validity {
        if inode.is_shared() {
            return Validity::Shared;
        }
        if self.rules.cache == crate::union::config::CacheMode::Static {
            return Validity::Kept;
        }
        let told = match place {
            ChangedBy::Upper => self.writable.is_some(),
            ChangedBy::Lower(links) => {
                stat.nlink == 1 && links.iter().all(|link| link.place.parent.is_watched())
            }
            ChangedBy::Elsewhere => false,
        };
        if told {
            return Validity::Kept;
        }
        // The kernel compares size and mtime, which any process can put back.
        if let Some(live) = &self.others.live
            && live.saw(inode.id, stat)
        {
            self.notify_node(inode.id);
        }
        Validity::Checked
    }
}
