//! The names of one merged directory, as they are now.
//!
//! A directory is read as a whole, once, at its first use; from then on the listing is kept up to
//! date by the operations of this mount. So a lookup of any name, there or not, costs no system
//! call, creating a file does not depend on the size of its directory, and lookup and readdir can
//! never disagree.
//!
//! Every visible name has a cookie: a name that becomes visible gets a larger one than all before
//! it. readdir(3) goes from the largest to the smallest, and continues behind a cookie. So a
//! position stays valid while entries come and go, without any state per open directory; and a
//! reader of a directory comes to its end, regardless of renames and creations in it meanwhile:
//! those lie behind where the reader began, and show when it begins anew (rewinddir(3)).

use std::collections::{BTreeMap, HashMap};
use std::sync::Weak;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::layer::dir::Name;
use crate::layer::stat::{Kind, Time};
use crate::union::node::inode::Inode;
use crate::union::node::mount_point::Mounted;
use crate::union::node::stack::{Merged, Merger};

/// The first cookie of an entry; 1 and 2 stand behind `.` and `..`.
const FIRST_COOKIE: u64 = 3;

/// One name of a directory.
#[derive(Debug, Default)]
pub(in crate::union) struct Slot {
    /// The position, which is where readdir continues behind the name; 0 while it is not visible.
    pub(in crate::union) cookie: u64,
    /// What the layers have.
    pub(in crate::union) merged: Merged,
    /// A volume that is shown instead of all that.
    pub(in crate::union) mount: Option<Box<Mounted>>,
    /// `st_ino` of what is visible.
    pub(in crate::union) st_ino: u64,
    /// The inode, if it is held.
    pub(in crate::union) child: Weak<Inode>,
}

impl Slot {
    /// Whether the name exists in the merged view.
    #[must_use]
    pub(in crate::union) fn is_visible(&self) -> bool {
        self.mount.is_some()
            || self.merged.upper.is_some()
            || (self.merged.mark.is_none() && self.merged.lower.is_some())
    }

    /// The type of what is visible.
    #[must_use]
    pub(in crate::union) fn kind(&self) -> Option<Kind> {
        if let Some(mount) = &self.mount {
            return Some(mount.kind);
        }
        match (&self.merged.upper, &self.merged.mark, &self.merged.lower) {
            (Some(upper), _, _) => Some(upper.kind),
            (None, None, Some(lower)) => Some(lower.found.kind),
            _ => None,
        }
    }

    /// Whether a lower entry would show if the upper had nothing of this name.
    #[must_use]
    pub(in crate::union) fn covers_lower(&self) -> bool {
        self.merged.lower.is_some()
    }

    /// Whether the upper's directory of this name hides the lower one (a whiteout stands beside
    /// it).
    #[must_use]
    pub(in crate::union) fn is_opaque_slot(&self) -> bool {
        self.merged.mark.is_some()
    }
}

impl AsMut<Merged> for Slot {
    fn as_mut(&mut self) -> &mut Merged {
        &mut self.merged
    }
}

/// When a layer's directory last changed; compared to see whether it did again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::union) struct Stamp {
    /// Its inode.
    pub(in crate::union) ino: u64,
    /// Its modification time.
    pub(in crate::union) mtime: Time,
    /// Its change time.
    pub(in crate::union) ctime: Time,
}

impl Stamp {
    /// Whether the last change is so young that another one might have the same time (a tick of the
    /// kernel).
    pub(in crate::union) fn is_fresh(&self) -> bool {
        const TICK: Duration = Duration::from_millis(20);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.is_ok_and(|now| {
            let changed = u64::try_from(self.ctime.secs).unwrap_or(0);
            now < Duration::new(changed, self.ctime.nanos) + TICK
        })
    }
}

/// All names of a directory.
#[derive(Debug)]
pub(in crate::union) struct Listing {
    slots: HashMap<Name, Slot>,
    order: BTreeMap<u64, Name>,
    next_cookie: u64,
    /// How many names are worth a sweep.
    sweep_at: usize,
    /// The state of the layers' directories when they were read (only kept when they may change).
    pub(in crate::union) stamps: Vec<Stamp>,
    /// When they were last compared.
    pub(in crate::union) checked: Instant,
}

impl Default for Listing {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            order: BTreeMap::new(),
            next_cookie: FIRST_COOKIE,
            sweep_at: 0,
            stamps: Vec::new(),
            checked: Instant::now(),
        }
    }
}

impl Listing {
    /// Of what the layers have, in their order. `number` returns `st_ino`.
    pub(in crate::union) fn of(
        merger: Merger<Slot>,
        number: impl Fn(&Name, &Merged) -> u64,
    ) -> Self {
        let (slots, order) = merger.finish();
        let mut listing = Self {
            slots,
            ..Self::default()
        };
        // The first of a layer's directory is the first to be read: disks like to be asked in their
        // own order.
        for name in order.into_iter().rev() {
            listing.update(&name, |slot| slot.st_ino = number(&name, &slot.merged));
        }
        listing
    }

    /// The slot of a name, visible or not.
    #[must_use]
    pub(in crate::union) fn get(&self, name: &[u8]) -> Option<&Slot> {
        self.slots.get(name)
    }

    /// The same to be changed; visibility must not change (see [`Listing::update`]).
    pub(in crate::union) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Slot> {
        self.slots.get_mut(name)
    }

    /// The slot of a name if the name exists in the merged view, with the listing's own copy of the
    /// name.
    #[must_use]
    pub(in crate::union) fn visible_entry(&self, name: &[u8]) -> Option<(&Name, &Slot)> {
        self.slots
            .get_key_value(name)
            .filter(|(_, slot)| slot.is_visible())
    }

    /// Changes in any way what is known of a name, and keeps the order of entries right: a name
    /// that becomes visible goes to the front, one that vanishes leaves its place. A slot that says
    /// nothing is dropped.
    pub(in crate::union) fn update(&mut self, name: &Name, change: impl FnOnce(&mut Slot)) {
        let slot = self.slots.entry(Name::clone(name)).or_default();
        change(slot);
        let visible = slot.is_visible();
        if visible && slot.cookie == 0 {
            slot.cookie = self.next_cookie;
            self.next_cookie += 1;
            self.order.insert(slot.cookie, Name::clone(name));
        } else if !visible && slot.cookie != 0 {
            self.order.remove(&slot.cookie);
            slot.cookie = 0;
            slot.child = Weak::new();
        }
        if !visible && slot.merged.mark.is_none() && slot.merged.lower.is_none() {
            self.slots.remove(name);
        }
    }

    /// Forgets names whose inodes are not held any more, now and then: for a directory that is not
    /// listed here, but only remembers what was looked up (`volume.rs`).
    pub(in crate::union) fn sweep(&mut self) {
        const SMALL: usize = 256;
        if self.slots.len() < self.sweep_at.max(SMALL) {
            return;
        }
        self.slots
            .retain(|_, slot| slot.mount.is_some() || slot.child.strong_count() > 0);
        let slots = &self.slots;
        self.order.retain(|_, name| slots.contains_key(name));
        self.sweep_at = 2 * self.slots.len();
    }

    /// What is known of a name.
    pub(in crate::union) fn take(mut self, name: &[u8]) -> Option<Slot> {
        self.slots.remove(name)
    }

    /// Visible names behind `cookie`, in order, with their slots: all of them behind one that is of
    /// no name.
    pub(in crate::union) fn after(&self, cookie: u64) -> impl Iterator<Item = (&Name, &Slot)> {
        let end = match cookie {
            0..FIRST_COOKIE => u64::MAX,
            cookie => cookie,
        };
        self.order
            .range(..end)
            .rev()
            .filter_map(|(_, name)| Some((name, self.slots.get(name)?)))
    }

    /// All slots, visible or not.
    pub(in crate::union) fn all(&self) -> impl Iterator<Item = (&Name, &Slot)> {
        self.slots.iter()
    }

    /// Whether nothing is visible.
    #[must_use]
    pub(in crate::union) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes over the cookies and inodes of an older listing of the same directory, for names that
    /// are still the same entry, by `same`, which is called with both. `differ` is called with the
    /// others.
    pub(in crate::union) fn inherit(
        &mut self,
        mut older: Self,
        mut same: impl FnMut(&Name, &Slot, &mut Slot) -> bool,
        mut differ: impl FnMut(&Name, Option<&Weak<Inode>>),
    ) {
        self.next_cookie = self.next_cookie.max(older.next_cookie);
        self.order.clear();
        let mut fresh = Vec::new();
        for (name, slot) in &mut self.slots {
            slot.cookie = 0;
            if !slot.is_visible() {
                continue;
            }
            match older.slots.remove(name) {
                Some(old) if old.cookie != 0 => {
                    slot.cookie = old.cookie;
                    self.order.insert(old.cookie, Name::clone(name));
                    if same(name, &old, slot) {
                        slot.child = old.child;
                    } else {
                        differ(name, None);
                    }
                }
                _ => fresh.push(Name::clone(name)),
            }
        }
        for name in fresh {
            differ(&name, None);
            self.update(&name, |_| {});
        }
        for (name, old) in older.slots.into_iter().filter(|(_, old)| old.cookie != 0) {
            differ(&name, Some(&old.child));
        }
    }
}

#[cfg(test)]
mod tests;
