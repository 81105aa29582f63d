//! From a name in a directory to an inode.

use crate::union::types::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::Weak;

use rustix::io::Errno;

use crate::layer::dir::Name;
use crate::layer::stat::{Kind, Stat};
use crate::union::error::{Result, fail};
use crate::union::merge::instantiate::Instance;
use crate::union::node::inode::{DirState, Inode, Node, Place};
use crate::union::node::listing::Slot;
use crate::union::{NAME_MAX, Union};

/// An inode, and what stat(2) said if it had to be asked on the way.
pub(in crate::union) struct Child {
    pub(in crate::union) inode: Arc<Inode>,
    pub(in crate::union) stat: Option<Stat>,
}

impl Child {
    pub(in crate::union) fn known(inode: Arc<Inode>) -> Self {
        Self { inode, stat: None }
    }
}

impl Union {
    /// Frees what is kept for an inode that the transport does not know any more.
    pub(in crate::union) fn forget_inode(&self, inode: Arc<Inode>) {
        // The parents' slots hold weak references, which keep the memory: clear them too.
        let places: Vec<Place> = match &inode.node {
            Node::Dir(_) => inode.place().into_iter().collect(),
            Node::File(file) => crate::sync::lock(&file.state)
                .links
                .iter()
                .map(|link| link.place.clone())
                .collect(),
        };
        self.remember_forgotten(&inode);
        if inode.kind == Kind::Dir {
            self.streams.forget(inode.id);
        }
        let node = inode.id;
        drop(inode);
        if let Some(live) = &self.others.live {
            live.forget(node);
        }
        for place in places {
            if let Some(mut state) = place.parent.lock_dir()
                && let Some(listing) = &mut state.listing
                && let Some(slot) = listing.get_mut(&place.name)
                && slot.child.strong_count() == 0
            {
                slot.child = Weak::new();
                if place.parent.is_shared() && slot.mount.is_none() {
                    listing.update(&place.name, |slot| slot.merged.upper = None);
                }
            }
        }
    }

    /// Counts a lookup and gathers the reply.
    pub(in crate::union) fn entry(&self, child: &Child) -> Result<Entry> {
        let attr = self.attr_with(&child.inode, child.stat.as_ref())?;
        self.nodes.table.add_lookup(&child.inode);
        Ok(Entry {
            node: child.inode.id,
            attr,
        })
    }

    /// The inode of a name, without counting a lookup.
    pub(in crate::union) fn child(
        &self,
        parent: &Arc<Inode>,
        name: &[u8],
    ) -> Result<Option<Child>> {
        if name.len() > NAME_MAX {
            return fail(Errno::NAMETOOLONG);
        }
        loop {
            let shared = {
                let Some(mut state) = parent.lock_dir() else {
                    return fail(Errno::NOTDIR);
                };
                self.load_name(&mut state, name)?;
                let found = match parent.is_shared() {
                    true => self.refresh(&mut state, name)?,
                    false => None,
                };
                match self.child_locked(parent, &mut state, name)? {
                    Instance::None => return Ok(None),
                    Instance::Ready(mut child) => {
                        if child.inode.is_on_file_system_of(parent) {
                            child.stat = found.or(child.stat);
                        }
                        return Ok(Some(child));
                    }
                    Instance::SharedLower(shared) => shared,
                }
            };
            // Its other names lie in other directories: they are looked for without holding this
            // one's lock.
            if let Some(inode) = self.instantiate_shared(&shared)? {
                let mut state = match parent.lock_dir() {
                    Some(state) => state,
                    None => return fail(Errno::NOTDIR),
                };
                if let Some(slot) = self.slot_mut(&mut state, name)?
                    && slot.merged.upper.is_none()
                    && slot.merged.lower.as_ref().is_some_and(|lower| {
                        lower.top == shared.key.0 && lower.found.ino == shared.found_ino
                    })
                {
                    slot.child = Arc::downgrade(&inode);
                    // The index may not know this name: below another mount's redirect, for
                    // instance.
                    if let Some(mut file) = inode.lock_file()
                        && !file.is_upper()
                    {
                        file.add_link(parent, &shared.place.name, None);
                    }
                    return Ok(Some(Child {
                        inode,
                        stat: Some(shared.stat),
                    }));
                }
            }
        }
    }

    /// The slot of a visible name.
    pub(in crate::union) fn slot_mut<'a>(
        &self,
        state: &'a mut DirState,
        name: &[u8],
    ) -> Result<Option<&'a mut Slot>> {
        self.load_name(state, name)?;
        Ok(state
            .listing
            .as_mut()
            .and_then(|listing| listing.get_mut(name))
            .filter(|slot| slot.is_visible()))
    }

    /// As [`Union::child`], for a directory whose state is locked and loaded.
    pub(in crate::union) fn child_locked(
        &self,
        parent: &Arc<Inode>,
        state: &mut DirState,
        name: &[u8],
    ) -> Result<Instance> {
        let Some((key, slot)) = state
            .listing
            .as_ref()
            .and_then(|listing| listing.visible_entry(name))
        else {
            return Ok(Instance::None);
        };
        if let Some(mount) = &slot.mount {
            let inode = mount.inode.upgrade();
            return Ok(inode.map_or(Instance::None, |inode| Instance::Ready(Child::known(inode))));
        }
        if let Some(inode) = slot.child.upgrade() {
            return Ok(Instance::Ready(Child::known(inode)));
        }
        let name = Name::clone(key);
        let kind = slot.kind().unwrap_or(Kind::File);
        let instance = if kind == Kind::Dir {
            let inode = self.instantiate_dir(parent, state, slot, &name)?;
            Instance::Ready(Child::known(inode))
        } else {
            self.instantiate_file(parent, state, slot, &name)?
        };
        if let Instance::Ready(child) = &instance
            && let Some(slot) = state.listing.as_mut().and_then(|l| l.get_mut(&name))
        {
            slot.child = Arc::downgrade(&child.inode);
        }
        Ok(instance)
    }
}

/// Opens a layer's root directory.
pub(crate) fn open_root(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => open(path, flags, Mode::empty()),
        other => other,
    }
}
