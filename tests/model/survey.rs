//! Reads the whole tree of a union through its node operations, and makes sure on the way that they
//! agree.

use std::collections::BTreeMap;

use unionmount::layer::stat::Kind;
use unionmount::union::{Attr, NodeId};

use super::core::{Core, kind_of};
use super::ops::show;
use super::stack::{Name, join};
use super::tree::{Object, Tree};

impl Core {
    pub(super) fn object(&self, node: NodeId, attr: &Attr) -> Result<Object, String> {
        let union = self.union();
        let wrong = |what: &str, e: unionmount::union::Error| format!("{what}: {e}");
        let mut object = Object {
            kind: kind_of(attr.kind()),
            mode: attr.mode & 0o7777,
            uid: attr.uid,
            gid: attr.gid,
            nlink: attr.nlink.into(),
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            rdev: attr.rdev,
            mtime: (attr.mtime.secs, attr.mtime.nanos),
            data: Vec::new(),
            xattrs: BTreeMap::new(),
        };
        let list = union.listxattr(node).map_err(|e| wrong("listxattr", e))?;
        for name in list.split(|byte| *byte == 0).filter(|n| !n.is_empty()) {
            let value = union.getxattr(node, name);
            let value = value.map_err(|e| wrong("getxattr", e))?;
            object.xattrs.insert(name.to_vec(), value);
        }
        match attr.kind() {
            Kind::File => {
                // A little more than there should be.
                let mut data = vec![0; attr.size as usize + 10];
                let len = union.read(node, 0, &mut data);
                data.truncate(len.map_err(|e| wrong("read", e))?);
                object.data = data;
            }
            Kind::Symlink => {
                object.data = union.readlink(node).map_err(|e| wrong("readlink", e))?;
            }
            _ => {}
        }
        Ok(object)
    }

    pub(super) fn walk(&mut self, node: NodeId, at: &[u8], tree: &mut Tree) -> Result<(), String> {
        let wrong = |what: &str, e: &dyn std::fmt::Display| format!("{what} {:?}: {e}", show(at));
        let own = self
            .union()
            .getattr(node)
            .map_err(|e| wrong("getattr", &e))?;
        let mut listed = Vec::new();
        let mut plus = Vec::new();
        let done = if self.form.plus {
            self.union().readdirplus(
                node,
                0,
                |_| true,
                |entry, found| {
                    listed.push((entry.name.to_vec(), entry.ino, entry.kind));
                    plus.extend(found);
                    true
                },
            )
        } else {
            self.union().readdir(node, 0, |entry| {
                listed.push((entry.name.to_vec(), entry.ino, entry.kind));
                true
            })
        };
        done.map_err(|e| wrong("readdir", &e))?;
        for entry in &plus {
            self.count(entry);
        }
        if listed.first().map(|(name, ino, _)| (&name[..], *ino)) != Some((b".", own.ino)) {
            return Err(format!(
                "first entry of {:?} is {:?}",
                show(at),
                listed.first()
            ));
        }
        let absent: Vec<Name> = self.absent.clone();
        for name in absent {
            let found = self
                .lookup(node, &name)
                .map_err(|e| wrong("lookup in", &e))?;
            if found.is_some() && !listed.iter().any(|(listed, _, _)| *listed == name) {
                return Err(format!(
                    "lookup finds {:?}, which readdir does not list",
                    show(&join(at, &name))
                ));
            }
        }
        for (i, (name, ino, kind)) in listed.iter().enumerate().skip(2) {
            let here = join(at, name);
            let found = self.lookup(node, name);
            let Some(entry) = found.map_err(|e| wrong("lookup in", &e))? else {
                return Err(format!(
                    "readdir lists {:?}, lookup finds nothing",
                    show(&here)
                ));
            };
            let attr = self
                .union()
                .getattr(entry.node)
                .map_err(|e| wrong("getattr in", &e))?;
            let from_plus = plus.get(i - 2).filter(|_| self.form.plus);
            // Reading a directory may set its atime; and a disk finds blocks for what was written
            // when it is synced, which others may do at any time.
            let same = |other: &Attr| {
                Attr {
                    atime: attr.atime,
                    blocks: attr.blocks,
                    ..*other
                } == attr
            };
            if !same(&entry.attr)
                || from_plus.is_some_and(|p| !same(&p.attr) || p.node != entry.node)
            {
                return Err(format!(
                    "{:?}: lookup says {:?}, getattr {attr:?}, readdirplus {from_plus:?}",
                    show(&here),
                    entry.attr
                ));
            }
            if (attr.ino, attr.kind()) != (*ino, *kind) {
                return Err(format!(
                    "readdir says ino {ino} type {kind:?} of {:?}, getattr {} {:?}",
                    show(&here),
                    attr.ino,
                    attr.kind()
                ));
            }
            let before = self.ids.insert(entry.node, attr.ino);
            if before.is_some_and(|before| before != attr.ino) {
                return Err(format!("node id of {:?} is used again", show(&here)));
            }
            let object = self.object(entry.node, &attr);
            let object = object.map_err(|e| format!("{:?}: {e}", show(&here)))?;
            if tree.insert(here.clone(), object).is_some() {
                return Err(format!("readdir lists {:?} twice", show(&here)));
            }
            if attr.kind() == Kind::Dir {
                self.walk(entry.node, &here, tree)?;
            }
        }
        Ok(())
    }
}
