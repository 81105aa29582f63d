//! Replies to READDIR and READDIRPLUS: as many entries as fit.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fuser::{Errno, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::answer::absent;
use super::convert::{attr, errno, file_type};
use super::shared::{Call, Shared, generation};
use crate::union::{DirEntry, Entry};

impl Shared {
    /// Names, types and inode numbers.
    pub(super) fn list(&self, ino: INodeNo, offset: u64, reply: ReplyDirectory) {
        let reply = RefCell::new(Some(reply));
        let listed = catch_unwind(AssertUnwindSafe(|| {
            self.union.readdir(self.node(ino)?, offset, |entry| {
                reply.borrow_mut().as_mut().is_some_and(|reply| {
                    !reply.add(
                        INodeNo(entry.ino),
                        entry.cookie,
                        file_type(entry.kind),
                        OsStr::from_bytes(&entry.name),
                    )
                })
            })
        }));
        let Some(reply) = reply.take() else { return };
        match listed {
            Ok(Ok(())) => reply.ok(),
            Ok(Err(error)) => {
                self.report(Call::on("readdir", ino), &error);
                reply.error(errno(&error));
            }
            Err(_) => {
                log::error!("readdir: panicked; answered EIO");
                reply.error(Errno::EIO);
            }
        }
    }

    /// The same with attributes; the kernel counts a lookup on each entry that it gets.
    pub(super) fn list_with_attributes(
        &self,
        ino: INodeNo,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let reply = RefCell::new(Some(reply));
        let added = Cell::new(false);
        let listed = catch_unwind(AssertUnwindSafe(|| {
            self.union.readdirplus(
                self.node(ino)?,
                offset,
                |_| true,
                |entry, found| {
                    let mut reply = reply.borrow_mut();
                    let Some(reply) = reply.as_mut() else {
                        return false;
                    };
                    let full = self.add_entry(reply, entry, found.as_ref());
                    added.set(added.get() || (found.is_some() && !full));
                    !full
                },
            )
        }));
        let Some(reply) = reply.take() else { return };
        match listed {
            Ok(Ok(())) => reply.ok(),
            // What was added is counted: it must be sent. The next call meets the same error first.
            _ if added.get() => reply.ok(),
            Ok(Err(error)) => {
                self.report(Call::on("readdirplus", ino), &error);
                reply.error(errno(&error));
            }
            Err(_) => {
                log::error!("readdirplus: panicked; answered EIO");
                reply.error(Errno::EIO);
            }
        }
    }

    /// Adds an entry to a listing, of which the kernel counts a lookup on `found`. Returns whether
    /// there was no room.
    fn add_entry(
        &self,
        reply: &mut ReplyDirectoryPlus,
        entry: &DirEntry,
        found: Option<&Entry>,
    ) -> bool {
        let name = OsStr::from_bytes(&entry.name);
        let Some(found) = found else {
            // `.` and `..`: the kernel takes number and type only.
            let mut bare = absent();
            bare.ino = INodeNo(entry.ino);
            bare.kind = file_type(entry.kind);
            let (valid, generation) = (Duration::ZERO, Generation(0));
            return reply.add(bare.ino, entry.cookie, name, &valid, &bare, generation);
        };
        let wire = self.ids.count_lookup(found);
        let full = reply.add(
            INodeNo(wire.id),
            entry.cookie,
            name,
            &self.listed_lifetime(wire, found.attr.validity),
            &attr(&found.attr, wire.id),
            generation(found),
        );
        if full {
            // The union takes back its own count of an entry that was not taken.
            self.ids.forget(wire.id, 1);
        }
        full
    }
}
