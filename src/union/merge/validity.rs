//! How long an answer may be cached.

use crate::layer::stat::Stat;
use crate::union::merge::renew::Told;
use crate::union::node::inode::{Inode, NodeId};
use crate::union::types::Belief;
use crate::union::{CacheMode, Union};

impl Union {
    /// How long it may be cached what is, and what is not, in a directory.
    #[must_use]
    pub fn belief_in_names(&self, dir: NodeId) -> Belief {
        if self.rules.cache == CacheMode::Static && !self.has_volumes() {
            return Belief::Kept;
        }
        match self.nodes.table.get(dir) {
            Ok(inode) if inode.volume.is_some() => Belief::Shared,
            Ok(inode) if self.rules.cache == CacheMode::Static || inode.is_watched() => {
                Belief::Kept
            }
            _ => Belief::Checked,
        }
    }

    /// How long the attributes of a directory may be cached, and its name. `upper`: it is in the upper.
    pub(in crate::union) fn belief_in_dir(&self, inode: &Inode, upper: bool) -> Belief {
        if inode.volume.is_some() {
            return Belief::Shared;
        }
        let watched = || {
            let above = inode.place();
            inode.is_watched() && above.is_none_or(|place| place.parent.is_watched())
        };
        if self.rules.cache == CacheMode::Static || (upper && self.writable.is_some()) || watched()
        {
            Belief::Kept
        } else {
            Belief::Checked
        }
    }

    /// How long the attributes of a file may be cached, and its name. A file with several names may be changed under one
    /// that is not watched, and so may one whose bytes are elsewhere.
    pub(in crate::union) fn belief_in_file(
        &self,
        inode: &Inode,
        place: Told<'_>,
        stat: &Stat,
    ) -> Belief {
        if inode.volume.is_some() {
            return Belief::Shared;
        }
        if self.rules.cache == crate::union::config::CacheMode::Static {
            return Belief::Kept;
        }
        let told = match place {
            Told::Upper => self.writable.is_some(),
            Told::Lower(links) => {
                stat.nlink == 1 && links.iter().all(|link| link.place.parent.is_watched())
            }
            Told::Elsewhere => false,
        };
        if told {
            return Belief::Kept;
        }
        // The kernel compares size and mtime, which any process can put back.
        if let Some(live) = &self.others.live
            && live.saw(inode.id, stat)
        {
            self.tell_node(inode.id);
        }
        Belief::Checked
    }
}
