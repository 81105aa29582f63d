//! Remembering on disk what `st_ino` a copy had before it was copied up (see
//! [`crate::union::node::identity`]).
//!
//! Where `trusted.` xattrs are permitted, every object carries its own. An ordinary user has only
//! `user.` xattrs, which exist on files and directories alone (xattr(7)): the origin of a symlink,
//! pipe, socket or device is then kept in an xattr of its directory that is named after the copy's
//! inode number, and goes where the copy goes.

use crate::layer::dir::Dir;
use crate::layer::dir::Name;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::marks::{USER_PREFIX, WHITEOUT_RENAME, own_xattr};
use crate::layer::object::WritableObject;
use crate::layer::stat::Kind;
use crate::layer::xattr::XattrPath;
use crate::union::Union;
use crate::union::error::{Context, Result};
use crate::union::node::identity::{decode_origin, encode_origin};
use crate::union::work::writable::Writable;

/// Whether objects of a type can carry xattrs with this prefix.
fn carries_its_own(kind: Kind, prefix: &str) -> bool {
    prefix != USER_PREFIX || matches!(kind, Kind::File | Kind::Dir)
}

fn child_xattr(ino: u64) -> String {
    format!("{USER_PREFIX}child.{ino:x}")
}

/// The origin of an entry of the upper, if it has one. `dir` leads to the directory's xattrs.
pub(super) fn read_origin(dir: &XattrPath, entry: &XattrPath, kind: Kind, ino: u64) -> Option<u64> {
    let value = own_xattr(entry, "origin").or_else(|| {
        if carries_its_own(kind, USER_PREFIX) {
            return None;
        }
        dir.get_opt(child_xattr(ino).as_bytes()).ok().flatten()
    })?;
    decode_origin(&value, ino)
}

impl Writable {
    /// The type that an object of the merged view has on the upper's disk.
    fn on_disk(&self, kind: Kind) -> Kind {
        match kind {
            Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block
                if self.stage.dir().records().is_some() =>
            {
                Kind::File
            }
            kind => kind,
        }
    }
}

impl Union {
    /// Remembers an origin on the object itself, where its type allows that.
    pub(in crate::union) fn store_origin(
        &self,
        writable: &Writable,
        object: &WritableObject,
        kind: Kind,
        (st_ino, ino): (u64, u64),
    ) -> Result<()> {
        let Some(prefix) = writable
            .abilities
            .own_xattrs
            .filter(|_| !self.rules.no_xattrs)
        else {
            return Ok(());
        };
        if !carries_its_own(writable.on_disk(kind), prefix) {
            return Ok(());
        }
        let xattr = format!("{prefix}origin");
        object
            .set_xattr(
                xattr.as_bytes(),
                &encode_origin(st_ino, ino),
                XattrFlags::empty(),
            )
            .context("setxattr", xattr.as_bytes())
    }

    /// Remembers it on the directory that the object is about to be in, where its type does not. A
    /// directory with no room for more xattrs costs the object its `st_ino` at the next mount,
    /// nothing else.
    pub(in crate::union) fn store_child_origin(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        kind: Kind,
        (st_ino, ino): (u64, u64),
    ) {
        if st_ino == self.nodes.numbers.of_upper(ino) || !self.needs_parent(writable, kind) {
            return;
        }
        let stored = dir.this().and_then(|this| {
            let value = encode_origin(st_ino, ino);
            let set = || this.set_xattr(child_xattr(ino).as_bytes(), &value, XattrFlags::empty());
            dir.despite_mode(set)
        });
        if let Err(errno) = stored {
            log::debug!("origin of a {kind:?} is not stored: {errno}");
        }
    }

    /// Whether the object under a name leaves nothing of itself in its directory when that name
    /// goes: then what the directory remembers of it goes as well (see
    /// [`Union::drop_child_origin`]).
    pub(in crate::union) fn leaves_origin(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        name: &[u8],
        kind: Kind,
    ) -> bool {
        self.needs_parent(writable, kind) && dir.stat_entry(name).is_ok_and(|stat| stat.nlink == 1)
    }

    /// Forgets it when the object has left the directory. What stays after a crash names an inode
    /// that is not in the directory any more.
    pub(in crate::union) fn drop_child_origin(&self, dir: &WritableDir, ino: u64) {
        let dropped = dir
            .this()
            .and_then(|this| this.remove_xattr(child_xattr(ino).as_bytes()));
        match dropped {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => log::debug!("origin of inode {ino}: {errno}"),
        }
    }

    fn needs_parent(&self, writable: &Writable, kind: Kind) -> bool {
        !self.rules.no_xattrs
            && writable
                .abilities
                .own_xattrs
                .is_some_and(|prefix| !carries_its_own(writable.on_disk(kind), prefix))
    }
}

/// The name under which a device of the merged view may stand as the disk's own.
pub(in crate::union) fn announced(dir: &Dir) -> Result<Option<Name>> {
    let xattrs = dir.xattrs().context("open directory", b".")?;
    Ok(own_xattr(&xattrs, WHITEOUT_RENAME).map(Name::from))
}
