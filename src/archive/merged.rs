//! A merged tree, as the entries of an archive.

use std::io;

use rustix::io::Errno;

use super::error::{AtEntry as _, Error, Result};
use super::tar::{EntryKind, TarEntry, Xattr};
use crate::union::{Attr, Config, NodeId, NodeRef, Union};

pub(super) fn open_union(config: &Config) -> Result<Union> {
    Union::open(config).map_err(|err| Error::refused(err.to_string()))
}

/// The object at a path of a union.
pub(super) fn find<'u>(union: &'u Union, path: &[u8]) -> Result<NodeRef<'u>> {
    let mut node = union.root();
    for name in path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
    {
        let found = union.find(node.id(), name).map_err(failed).at_entry(path)?;
        let Some(entry) = found else {
            return Err(Error::io("lookup", Errno::NOENT).at(path));
        };
        node = entry.node;
    }
    Ok(node)
}

/// What a union shows of an object, but for its data.
pub(super) fn description(
    union: &Union,
    node: NodeId,
    path: &[u8],
    what: EntryKind,
    attr: &Attr,
) -> Result<TarEntry> {
    Ok(TarEntry {
        path: path.to_vec(),
        what,
        mode: attr.mode & 0o7777,
        uid: attr.uid,
        gid: attr.gid,
        mtime: attr.mtime,
        xattrs: xattrs(union, node).map_err(failed).at_entry(path)?,
    })
}

fn xattrs(union: &Union, node: NodeId) -> crate::union::Result<Vec<Xattr>> {
    let mut xattrs = Vec::new();
    let list = union.listxattr(node)?;
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if is_kept(name) {
            match union.getxattr(node, name) {
                Err(error) if error.errno() == Errno::NODATA => {}
                value => xattrs.push((name.to_vec(), value?)),
            }
        }
    }
    Ok(sorted(xattrs))
}

pub(super) fn failed(err: crate::union::Error) -> Error {
    Error::io(
        "the merged tree cannot be read",
        io::Error::from(err.errno()),
    )
}

/// Whether an xattr of the merged view belongs into an archive: not what describes this machine
/// rather than the file.
pub(super) fn is_kept(name: &[u8]) -> bool {
    const OF_THIS_MACHINE: [&[u8]; 2] = [b"security.selinux", b"security.evm"];
    const ACLS: &[u8] = b"system.posix_acl_";
    !OF_THIS_MACHINE.contains(&name) && (!name.starts_with(b"system.") || name.starts_with(ACLS))
}

/// Xattrs in the one order that they are written in.
pub(super) fn sorted(mut xattrs: Vec<Xattr>) -> Vec<Xattr> {
    xattrs.sort();
    xattrs
}
