//! Names: looking up, making, listing, removing and renaming.

use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::union::Union;
use crate::union::error::{Result, fail};
use crate::union::merge::lookup::Child;
use crate::union::namespace::link::fail_for_directory;
use crate::union::namespace::rename::Rename;
use crate::union::node::ids::NodeId;
use crate::union::node::inode::EntryName;
use crate::union::types::{Caller, DirEntry, Entry, New, RenameMode};

impl Union {
    /// Looks a name up and counts one lookup on what it finds; `None` when there is nothing.
    /// Errors: ENOTDIR, ENAMETOOLONG, ESTALE for a node id without lookups, and what the disk
    /// answers.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Entry>> {
        match name {
            b"." => self.lookup_self(parent).map(Some),
            b".." => self.lookup_parent(parent).map(Some),
            _ => {
                let parent = self.nodes.table.get(parent)?;
                let look = || {
                    let found = self.child(&parent, name)?;
                    found.map(|child| self.entry(&child)).transpose()
                };
                match look() {
                    // The file that was known was replaced just now: the name means another one.
                    Err(error) if error.errno() == Errno::STALE && self.others.live.is_some() => {
                        look()
                    }
                    found => found,
                }
            }
        }
    }

    /// Finds a node again by its id, and counts one lookup on it: what a file server and
    /// open_by_handle_at(2) ask for, as a lookup of `.` that may be one of a file
    /// (FUSE_EXPORT_SUPPORT in `fuse.h`). Errors: ESTALE for a node id without lookups of which
    /// there is no note either, and what the disk answers.
    pub fn lookup_self(&self, node: NodeId) -> Result<Entry> {
        let inode = match (self.nodes.table.get(node), &self.nodes.notes) {
            (Err(_), Some(notes)) => self.find_again_by(notes, node)?,
            (found, _) => found?,
        };
        self.entry(&Child::known(inode))
    }

    /// The directory that a directory is in, with one lookup counted on it; the root is in itself.
    /// Errors: ESTALE for a node id without lookups, ENOTDIR for a file, ENOENT for a removed
    /// directory, and what the disk answers.
    pub fn lookup_parent(&self, node: NodeId) -> Result<Entry> {
        let inode = self.nodes.table.get(node)?;
        match inode.lock_dir() {
            None => return fail(Errno::NOTDIR),
            Some(state) if state.removed.is_some() => return fail(Errno::NOENT),
            Some(_) => {}
        }
        let parent = match inode.place() {
            Some(place) => place.parent,
            None => inode,
        };
        self.entry(&Child::known(parent))
    }

    /// Takes lookups away that [`Union::lookup`] and the like counted. At zero the node id becomes
    /// invalid and memory and descriptors are freed.
    pub fn forget(&self, node: NodeId, count: u64) {
        if node != NodeId::ROOT
            && let Some(inode) = self.nodes.table.forget(node, count)
        {
            self.forget_inode(inode);
        }
    }

    /// Makes an entry and counts one lookup on it.
    /// Errors: EEXIST, ENAMETOOLONG, EPERM for a name that would be a whiteout, ENOENT in a removed
    /// directory, EROFS, those of [`Union::setxattr`] for the caller's
    /// security xattrs, ENOSPC and what the disk answers.
    pub fn make(
        &self,
        parent: NodeId,
        name: &[u8],
        new: &New<'_>,
        caller: &Caller<'_>,
    ) -> Result<Entry> {
        let parent = self.nodes.table.get(parent)?;
        let made = match parent.volume() {
            Some(_) => self.make_in_volume(&parent, name, new, caller),
            None => self.make_in_layers(&parent, name, new, caller),
        };
        self.entry(&made?)
    }

    /// Makes a regular file without a name, owned and permitted as [`Union::make`] would make it in
    /// `parent`, and counts one lookup on it. It has 0 links, and goes away when it is forgotten
    /// before [`Union::link`] gave it a name. Its `st_ino` is that of a file made in the upper,
    /// from the beginning. Errors: ENOTDIR, ENOENT in a removed directory, EROFS, EOPNOTSUPP where
    /// the upper's disk has no such files, those of [`Union::setxattr`] for the caller's security
    /// xattrs, ENOSPC and what the disk answers.
    pub fn tmpfile(&self, parent: NodeId, mode: u32, caller: &Caller<'_>) -> Result<Entry> {
        let parent = self.nodes.table.get(parent)?;
        match parent.volume() {
            Some(_) => self.tmpfile_in_volume(&parent, mode, caller),
            None => self.tmpfile_in_layers(&parent, mode, caller),
        }
    }

    /// Adds another name to a file and counts one lookup on it. Errors: EPERM for a directory or a
    /// name that would be a whiteout, EEXIST, ENOENT when the file has no name any more (one that
    /// never had any gets its first: [`Union::tmpfile`]), EMLINK, EXDEV from or into a volume,
    /// EROFS, and what the disk answers.
    pub fn link(&self, node: NodeId, parent: NodeId, name: &[u8]) -> Result<Entry> {
        let inode = self.nodes.table.get(node)?;
        fail_for_directory(&inode)?;
        let parent = self.nodes.table.get(parent)?;
        if !inode.is_on_file_system_of(&parent) || self.is_mount(&inode) {
            return fail(Errno::XDEV);
        }
        match parent.volume() {
            Some(_) => self.link_in_volume(&inode, &parent, name),
            None => self.link_in_layers(&inode, &parent, name),
        }
    }

    /// Removes a name of anything but a directory. A process that has the file open keeps it.
    /// Errors: ENOENT, EISDIR, EROFS, EBUSY for what a volume is shown at, and what the disk
    /// answers.
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        let parent = self.nodes.table.get(parent)?;
        match parent.volume() {
            Some(_) => self.remove_in_volume(&parent, name, false),
            None => self.unlink_in_layers(&parent, name),
        }
    }

    /// Removes an empty directory. Errors: ENOENT, ENOTDIR, ENOTEMPTY, EROFS, EBUSY, what the disk
    /// answers.
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        let parent = self.nodes.table.get(parent)?;
        match parent.volume() {
            Some(_) => self.remove_in_volume(&parent, name, true),
            None => self.rmdir_in_layers(&parent, name),
        }
    }

    /// Calls `each` for the entries behind `cookie` (0: from the start, `.` and `..` first) until
    /// it returns `false`. Cookies stay valid while entries come and go, and what comes during a
    /// reading is not shown before it begins anew: each reading ends (see `listing.rs`). Errors:
    /// ENOTDIR, ESTALE, EACCES for a directory that a layer does not let the daemon read, what the
    /// disk answers.
    pub fn readdir(
        &self,
        node: NodeId,
        cookie: u64,
        mut each: impl FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        self.walk(node, cookie, |entry| Ok(each(entry)))
    }

    /// Calls `each` with all names that [`Union::readdir`] shows of a directory, in the same order,
    /// and disturbs none of its readers. Errors: as [`Union::readdir`].
    pub fn list_names(&self, node: NodeId, mut each: impl FnMut(&[u8])) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        match inode.volume() {
            Some(_) => self.names_in_volume(&inode, each),
            None => self.walk_layers(&inode, 0, |entry| {
                each(&entry.name);
                Ok(true)
            }),
        }
    }

    /// As [`Union::readdir`], with the attributes of each entry that is `wanted`. A lookup is
    /// counted on those that `each` takes; `.` and `..` come without, entries that vanished
    /// meanwhile not at all.
    pub fn readdirplus(
        &self,
        node: NodeId,
        cookie: u64,
        wanted: impl Fn(&DirEntry) -> bool,
        mut each: impl FnMut(&DirEntry, Option<Entry>) -> bool,
    ) -> Result<()> {
        let parent = self.nodes.table.get(node)?;
        self.walk(node, cookie, |entry| {
            if matches!(&*entry.name, b"." | b"..") || !wanted(entry) {
                return Ok(each(entry, None));
            }
            // Other threads may have removed it: then there is nothing to show any more.
            let found: Option<Child> = match self.child(&parent, &entry.name) {
                Err(error) if error.errno() == Errno::NOENT => None,
                other => other?,
            };
            let Some(child) = found else { return Ok(true) };
            let entry_reply = match self.entry(&child) {
                Ok(reply) => reply,
                Err(error) if error.errno() == Errno::NOENT => return Ok(true),
                Err(error) => return Err(error),
            };
            let taken = each(entry, Some(entry_reply));
            if !taken {
                self.forget(entry_reply.node, 1);
            }
            Ok(taken)
        })
    }

    fn walk(
        &self,
        node: NodeId,
        cookie: u64,
        each: impl FnMut(&DirEntry) -> Result<bool>,
    ) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        if inode.kind != Kind::Dir {
            return fail(Errno::NOTDIR);
        }
        match inode.volume() {
            Some(_) => self.walk_volume(&inode, cookie, each),
            None => self.walk_layers(&inode, cookie, each),
        }
    }

    /// Renames `from_name` in `from` to `to_name` in `to`. Errors: ENOENT, EEXIST, ENOTEMPTY,
    /// ENOTDIR, EISDIR, EINVAL for a directory into itself, EPERM for a name that would be a
    /// whiteout, EXDEV from or into a volume, EBUSY for what a volume is shown at or below, EROFS,
    /// ENOSPC (the copies made so far stay, unseen), what the disk answers.
    pub fn rename(
        &self,
        from: NodeId,
        from_name: &[u8],
        to: NodeId,
        to_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.rename_entry(from, from_name, to, to_name, mode, None)
    }

    /// As [`Union::rename`], and leaves a character device 0/0 under the old name, which is how
    /// another overlay on this mount hides what it renamed (`RENAME_WHITEOUT` of renameat2(2)).
    /// Both happen at once (see `namespace/rename/whiteout.rs`); where the upper's disk has no such
    /// devices, in two steps: killed between, the device is missing. Errors: those of
    /// [`Union::rename`]; EINVAL for an exchange.
    pub fn rename_with_whiteout_device(
        &self,
        from: NodeId,
        from_name: &[u8],
        to: NodeId,
        to_name: &[u8],
        mode: RenameMode,
        caller: &Caller<'_>,
    ) -> Result<()> {
        if mode == RenameMode::Exchange {
            return fail(Errno::INVAL);
        }
        self.rename_entry(from, from_name, to, to_name, mode, Some(caller))
    }

    fn rename_entry(
        &self,
        from: NodeId,
        from_name: &[u8],
        to: NodeId,
        to_name: &[u8],
        mode: RenameMode,
        whiteout_for: Option<&Caller<'_>>,
    ) -> Result<()> {
        let (from, to) = (self.nodes.table.get(from)?, self.nodes.table.get(to)?);
        let from = EntryName {
            parent: &from,
            name: from_name,
        };
        let to = EntryName {
            parent: &to,
            name: to_name,
        };
        if !from.parent.is_on_file_system_of(to.parent) {
            return fail(Errno::XDEV);
        }
        if !from.parent.is_shared() {
            return self.rename_in_layers(Rename {
                from,
                to,
                mode,
                whiteout_for,
            });
        }
        self.rename_in_volume(from, to, mode, whiteout_for.is_some())
    }
}
