//! Entries: looking them up, making, moving, linking.

use rustix::io::Errno;

use super::server::{Server, fail};
use crate::fuse::proto::InHeader;
use crate::fuse::proto::operation::Context;
use crate::fuse::proto::reply::{Body, device, entry_out, no_entry};
use crate::fuse::proto::wire::{CreateIn, EntryOut, MkdirIn, MknodIn};
use crate::layer::stat::Kind;
use crate::union::{Caller, Entry, New, NodeId, RenameMode, Result, Union};

/// Flags of RENAME2 (renameat2(2)).
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;

/// What the flags of a rename ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuse) struct Rename {
    pub(in crate::fuse) mode: RenameMode,
    /// A whiteout device takes the place of what is moved (`RENAME_WHITEOUT`).
    pub(in crate::fuse) leaves_whiteout: bool,
}

impl Rename {
    /// `None` for flags that are unknown, or contradict each other.
    pub(in crate::fuse) fn from_flags(flags: u32) -> Option<Self> {
        let leaves_whiteout = flags & RENAME_WHITEOUT != 0;
        let mode = match flags & !RENAME_WHITEOUT {
            0 => RenameMode::Replace,
            RENAME_NOREPLACE => RenameMode::NoReplace,
            RENAME_EXCHANGE if !leaves_whiteout => RenameMode::Exchange,
            _ => return None,
        };
        Some(Self {
            mode,
            leaves_whiteout,
        })
    }

    /// Renames `from`, a name in a directory, to `to`.
    pub(in crate::fuse) fn run(
        self,
        union: &Union,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        caller: &Caller<'_>,
    ) -> Result<()> {
        if self.leaves_whiteout {
            return union
                .rename_with_whiteout_device(from.0, from.1, to.0, to.1, self.mode, caller);
        }
        union.rename(from.0, from.1, to.0, to.1, self.mode)
    }
}

/// For whom something is made.
fn caller<'a>(header: &InHeader, umask: u32, context: &'a Context<'a>) -> Caller<'a> {
    Caller {
        uid: header.uid,
        gid: header.gid,
        umask,
        security: context.xattrs(),
    }
}

impl Server {
    pub(super) fn lookup(&self, parent: NodeId, name: &[u8], body: &mut Body<'_>) -> Result<()> {
        match self.union.lookup(parent, name)? {
            Some(entry) => {
                if entry.attr.kind() != Kind::Dir {
                    self.predictor.looked_up(parent);
                }
                self.put_entry(&entry, body)
            }
            None => Ok(body.put(&no_entry(
                self.agreed.name_lifetime(self.union.names_validity(parent)),
            ))?),
        }
    }

    /// A reply that names a node: the kernel counts one lookup on it.
    pub(super) fn put_entry(&self, entry: &Entry, body: &mut Body<'_>) -> Result<()> {
        Ok(body.put(&self.entry(entry))?)
    }

    pub(super) fn entry(&self, entry: &Entry) -> EntryOut {
        let validity = entry.attr.validity;
        let lifetime = self.attr_lifetime(entry.node, validity);
        EntryOut {
            generation: self.agreed.generation,
            attr_valid: lifetime.as_secs(),
            attr_valid_nsec: lifetime.subsec_nanos(),
            ..entry_out(entry, self.agreed.name_lifetime(validity))
        }
    }

    fn make(
        &self,
        header: &InHeader,
        name: &[u8],
        new: &New<'_>,
        caller: &Caller<'_>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let entry = self.union.make(NodeId(header.nodeid), name, new, caller)?;
        self.put_entry(&entry, body)
    }

    pub(super) fn symlink(
        &self,
        header: &InHeader,
        name: &[u8],
        target: &[u8],
        context: &Context<'_>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let caller = caller(header, 0, context);
        self.make(header, name, &New::Symlink { target }, &caller, body)
    }

    pub(super) fn mknod(
        &self,
        header: &InHeader,
        arg: &MknodIn,
        name: &[u8],
        context: &Context<'_>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let new = New::Node {
            kind: Kind::from_mode(arg.mode),
            mode: arg.mode,
            rdev: device(arg.rdev),
        };
        let caller = caller(header, arg.umask, context);
        self.make(header, name, &new, &caller, body)
    }

    pub(super) fn mkdir(
        &self,
        header: &InHeader,
        arg: &MkdirIn,
        name: &[u8],
        context: &Context<'_>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let caller = caller(header, arg.umask, context);
        self.make(header, name, &New::Dir { mode: arg.mode }, &caller, body)
    }

    /// CREATE: makes and opens. Where no opens are wanted, ENOSYS: the kernel goes on with MKNOD
    /// and opens by itself.
    pub(super) fn create(
        &self,
        header: &InHeader,
        arg: &CreateIn,
        name: &[u8],
        context: &Context<'_>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        if self.agreed.zero_message_open {
            return fail(Errno::NOSYS);
        }
        let new = New::Node {
            kind: Kind::File,
            mode: arg.mode,
            rdev: 0,
        };
        let caller = caller(header, arg.umask, context);
        let entry = self
            .union
            .make(NodeId(header.nodeid), name, &new, &caller)?;
        self.put_created(&entry, body)
    }

    /// TMPFILE: a file without a name, open.
    pub(super) fn tmpfile(
        &self,
        header: &InHeader,
        arg: &CreateIn,
        context: &Context<'_>,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let caller = caller(header, arg.umask, context);
        let entry = self
            .union
            .tmpfile(NodeId(header.nodeid), arg.mode, &caller)?;
        self.put_created(&entry, body)
    }

    pub(super) fn rename(
        &self,
        header: &InHeader,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
        flags: u32,
    ) -> Result<()> {
        let parent = NodeId(header.nodeid);
        let Some(rename) = Rename::from_flags(flags) else {
            return fail(Errno::INVAL);
        };
        let context = Context::default();
        let caller = caller(header, 0, &context);
        rename.run(&self.union, (parent, name), (new_parent, new_name), &caller)
    }

    pub(super) fn link(
        &self,
        node: NodeId,
        parent: NodeId,
        name: &[u8],
        body: &mut Body<'_>,
    ) -> Result<()> {
        let entry = self.union.link(node, parent, name)?;
        self.put_entry(&entry, body)
    }
}
