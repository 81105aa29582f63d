//! Attributes: what stat(2) on the mount shows, and setting them.

use crate::union::SetAttr;
use crate::union::node::real::real_stat;
use crate::union::types::Attr;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::layer::object::{SetTime, WritableObject};
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::file::privileges::{Asker, drop_after_chown};
use crate::union::node::inode::{DirNode, FileNode, Inode, Node};

impl Default for SetAttr {
    fn default() -> Self {
        Self {
            mode: None,
            uid: None,
            gid: None,
            size: None,
            atime: SetTime::Keep,
            mtime: SetTime::Keep,
            drop_setid: false,
        }
    }
}

impl Union {
    /// As [`Union::setattr_by`].
    pub(in crate::union) fn inode_setattr(
        &self,
        inode: &Arc<Inode>,
        set: &SetAttr,
        asker: &dyn Asker,
    ) -> Result<Attr> {
        self.check_writable(inode)?;
        match &inode.node {
            Node::Dir(dir) => self.setattr_dir(inode, dir, set),
            Node::File(file) => self.setattr_file(inode, file, set, asker),
        }
    }

    fn setattr_dir(&self, inode: &Arc<Inode>, dir: &DirNode, set: &SetAttr) -> Result<Attr> {
        if set.size.is_some() {
            return fail(Errno::ISDIR);
        }
        if let Some(removed_dir) = &mut lock(&dir.state).removed {
            let ids = self.ids_of(inode);
            return Ok(removed_dir.setattr(&SetAttr {
                uid: set.uid.map(|id| ids.seen_uid(ids.disk_uid(id))),
                gid: set.gid.map(|id| ids.seen_gid(ids.disk_gid(id))),
                ..*set
            }));
        }
        self.copy_up_dir(inode)?;
        let mut state = lock(&dir.state);
        // Setgid and group decide what new entries inherit.
        state.inheritance = None;
        let Some(upper) = &state.upper else {
            return fail(Errno::STALE);
        };
        let object = upper.this().context("open directory", b".")?;
        self.apply(inode, &object, set)?;
        self.dir_attr(inode, &mut state)
    }

    fn setattr_file(
        &self,
        inode: &Arc<Inode>,
        file: &FileNode,
        set: &SetAttr,
        asker: &dyn Asker,
    ) -> Result<Attr> {
        if let Some(size) = set.size {
            if inode.kind != Kind::File {
                return fail(Errno::INVAL);
            }
            self.truncate(inode, size)?;
        } else if self.changes_nothing(inode, set)? {
            return self.attr_with(inode, None);
        } else {
            self.copy_up_file(inode, None)?;
        }
        let _times = lock(&file.copy_up);
        let state = lock(&file.state);
        if set.size.is_some() && set.drop_setid {
            // A mode that is set as well counts as it is.
            let belongs = |group| set.mode.is_some() || asker.belongs(group);
            self.drop_setid(inode, &state, &belongs)?;
        }
        let chown = set.uid.or(set.gid).is_some();
        let drops_setgid =
            chown && set.mode.is_none() && self.chown_drops_setgid(inode, &state, asker)?;
        if chown || set.mode.is_some() || set.atime != SetTime::Keep || set.mtime != SetTime::Keep {
            let object = self.object_of(inode, &state)?;
            self.apply(inode, &object, set)?;
        }
        if drops_setgid {
            self.drop_setid(inode, &state, &|_| false)?;
        }
        self.file_attr(inode, &state, None)
    }

    /// Whether only times are set, to what they are. The kernel says so of a file whose times it
    /// keeps itself, when it was unlinked for instance: no reason to copy it up.
    fn changes_nothing(&self, inode: &Inode, set: &SetAttr) -> Result<bool> {
        if set.mode.or(set.uid).or(set.gid).is_some() {
            return Ok(false);
        }
        let Some(state) = inode.lock_file() else {
            return Ok(false);
        };
        if state.is_upper() {
            return Ok(false);
        }
        let stat = real_stat(&state.real)?;
        let same = |set: SetTime, is| set == SetTime::Keep || set == SetTime::At(is);
        Ok(same(set.atime, stat.atime) && same(set.mtime, stat.mtime))
    }

    /// Owner before mode, since changing the owner clears setuid and setgid; times last, since all
    /// else changes them.
    fn apply(&self, inode: &Inode, object: &WritableObject, set: &SetAttr) -> Result<()> {
        let ids = self.ids_of(inode);
        let uid = set.uid.map(|id| ids.disk_uid(id));
        let gid = set.gid.map(|id| ids.disk_gid(id));
        if uid.is_some() || gid.is_some() {
            object.chown(uid, gid).context("chown", b".")?;
            if object.is_recorded() && inode.kind != Kind::Dir {
                drop_after_chown(object)?;
                self.drop_capability_of(inode, object)?;
            }
        }
        if let Some(mode) = set.mode {
            object.chmod(mode & 0o7777).context("chmod", b".")?;
            self.acl_follows_mode(inode, object, mode)?;
        }
        if set.atime != SetTime::Keep || set.mtime != SetTime::Keep {
            object
                .utimens(set.atime, set.mtime)
                .context("utimensat", b".")?;
        }
        Ok(())
    }

    fn truncate(&self, inode: &Arc<Inode>, size: u64) -> Result<()> {
        self.copy_up_file(inode, Some(size))?;
        self.drop_capability(inode)?;
        let fd = self.data_fd(inode, true)?;
        match rustix::fs::ftruncate(&fd, size) {
            // A descriptor opened before the file became read-only for us cannot be distinguished
            // here.
            Err(Errno::INVAL | Errno::BADF) => {
                let fd = self.open_upper_data(inode, OFlags::WRONLY)?;
                rustix::fs::ftruncate(&fd, size)
            }
            other => other,
        }
        .context("ftruncate", b".")
    }
}
