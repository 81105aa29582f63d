//! The union without a mount: its node operations, behind what the kernel does for a path.

use std::collections::HashMap;
use std::path::PathBuf;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use unionmount::layer::SetTime;
use unionmount::layer::stat::{Kind, Time as CoreTime};
use unionmount::union::config::{Config, WhiteoutForm};
use unionmount::union::{Attr, Caller, Entry, New, NodeId, RenameMode, SetAttr, Union};

use super::driver::{Driver, Form, Piece, Subject};
use super::ops::{Do, Mode, Op};
use super::plain::fallocate_flags;
use super::stack::{At, Name, Time, bytes, split};
use super::tree::{Object, Tree};

type Answer<T> = Result<T, Errno>;

pub struct Core {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    union: Option<Union>,
    pub(super) form: Form,
    /// Lookups that the union counts for us.
    counted: HashMap<NodeId, u64>,
    held: Vec<NodeId>,
    listing: Option<(NodeId, u64)>,
    pub(super) absent: Vec<Name>,
    /// A node id means one object, as long as the union lives.
    pub(super) ids: HashMap<NodeId, u64>,
}

impl Core {
    pub fn new(lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf, absent: &[Name]) -> Self {
        Self {
            lowers,
            upper,
            work,
            union: None,
            form: Form::default(),
            counted: HashMap::new(),
            held: Vec::new(),
            listing: None,
            absent: absent.to_vec(),
            ids: HashMap::new(),
        }
    }

    pub(super) fn union(&self) -> &Union {
        self.union.as_ref().unwrap()
    }

    pub(super) fn count(&mut self, entry: &Entry) {
        *self.counted.entry(entry.node).or_default() += 1;
    }

    pub(super) fn lookup(&mut self, dir: NodeId, name: &[u8]) -> Answer<Option<Entry>> {
        let found = self.union().lookup(dir, name).map_err(|e| e.errno())?;
        if let Some(entry) = &found {
            self.count(entry);
        }
        Ok(found)
    }

    /// The directory of a path and the name in it.
    fn entry<'a>(&mut self, at: &'a [u8]) -> Answer<(NodeId, &'a [u8])> {
        let (dir, name) = split(at).unwrap_or((b"", b"."));
        let mut node = NodeId::ROOT;
        for part in dir.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            let entry = self.lookup(node, part)?.ok_or(Errno::NOENT)?;
            match entry.attr.kind() {
                Kind::Dir => node = entry.node,
                Kind::Symlink => return Err(Errno::LOOP),
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok((node, name))
    }

    fn find(&mut self, at: &[u8]) -> Answer<Entry> {
        let (dir, name) = self.entry(at)?;
        self.lookup(dir, name)?.ok_or(Errno::NOENT)
    }

    fn dir(&mut self, at: &[u8]) -> Answer<NodeId> {
        let entry = self.find(at)?;
        match entry.attr.kind() {
            Kind::Dir => Ok(entry.node),
            Kind::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn file(&mut self, at: &[u8]) -> Answer<Entry> {
        let entry = self.find(at)?;
        match entry.attr.kind() {
            Kind::File => Ok(entry),
            _ => Err(Errno::INVAL),
        }
    }

    fn held_node(&self, which: usize) -> Answer<NodeId> {
        match self.held.len() {
            0 => Err(Errno::BADF),
            len => Ok(self.held[which % len]),
        }
    }

    fn held_file(&self, which: usize) -> Answer<NodeId> {
        let node = self.held_node(which)?;
        let attr = self.union().getattr(node).map_err(|e| e.errno())?;
        match attr.kind() {
            Kind::File => Ok(node),
            _ => Err(Errno::INVAL),
        }
    }

    fn set(&self, node: NodeId, set: &SetAttr) -> Answer<()> {
        let done = self.union().setattr(node, set);
        done.map(drop).map_err(|e| e.errno())
    }

    fn make(&mut self, at: &[u8], new: &New<'_>) -> Answer<()> {
        let (dir, name) = self.entry(at)?;
        self.make_in(dir, name, new)
    }

    fn make_in(&mut self, dir: NodeId, name: &[u8], new: &New<'_>) -> Answer<()> {
        let made = self.union().make(dir, name, new, &Caller::default());
        let entry = made.map_err(|e| e.errno())?;
        self.count(&entry);
        Ok(())
    }

    fn link(&mut self, node: NodeId, to: &[u8]) -> Answer<()> {
        let (dir, name) = self.entry(to)?;
        if self.lookup(dir, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        let made = self.union().link(node, dir, name);
        let entry = made.map_err(|e| e.errno())?;
        self.count(&entry);
        Ok(())
    }

    fn rename(&mut self, op: &Op, mode: Mode) -> Answer<()> {
        let (from, old) = self.entry(&op.at)?;
        let (to, new) = self.entry(&op.to)?;
        let source = self.lookup(from, old)?.ok_or(Errno::NOENT)?;
        let target = self.lookup(to, new)?;
        // The kernel sees loops in its own cache, before it asks.
        let within = |inner: &At, outer: &At| inner.starts_with(&[&outer[..], b"/"].concat());
        if mode == Mode::NoReplace && target.is_some() {
            return Err(Errno::EXIST);
        }
        if mode == Mode::Exchange && target.is_none() {
            return Err(Errno::NOENT);
        }
        if within(&op.to, &op.at) {
            return Err(Errno::INVAL);
        }
        if target.is_some() && within(&op.at, &op.to) {
            return Err(match mode {
                Mode::Exchange => Errno::INVAL,
                _ => Errno::NOTEMPTY,
            });
        }
        // It also knows that they are one file: nothing is done then.
        if target.is_some_and(|t| t.node == source.node) && mode != Mode::NoReplace {
            return Ok(());
        }
        let mode = match mode {
            Mode::Replace => RenameMode::Replace,
            Mode::NoReplace => RenameMode::NoReplace,
            Mode::Exchange => RenameMode::Exchange,
        };
        let done = self.union().rename(from, old, to, new, mode);
        done.map_err(|e| e.errno())
    }

    /// What the kernel refuses before it asks a file system (xattr(7), `xattr_permission`).
    fn check_xattr(&self, attr: &Attr, name: &[u8]) -> Answer<()> {
        let user = name.starts_with(b"user.");
        if user && !matches!(attr.kind(), Kind::File | Kind::Dir) {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    fn forget_all(&mut self) {
        for (node, count) in std::mem::take(&mut self.counted) {
            let kept = self.held.iter().filter(|held| **held == node).count() as u64
                + u64::from(self.listing.is_some_and(|(held, _)| held == node));
            if kept > 0 {
                self.counted.insert(node, kept);
            }
            if count > kept {
                self.union().forget(node, count - kept);
            }
        }
    }

    fn do_held(&mut self, op: &Op) -> Answer<()> {
        match &op.what {
            Do::HeldWrite(which, offset, len, seed) => {
                let node = self.held_file(*which)?;
                let done = self.union().write(node, *offset, &bytes(*len, *seed));
                done.map_err(|e| e.errno())
            }
            Do::HeldTruncate(which, size) => {
                let node = self.held_file(*which)?;
                self.set(node, &size_to(*size))
            }
            Do::HeldChmod(which, mode) => {
                let node = self.held_node(*which)?;
                self.set(node, &mode_to(*mode))
            }
            Do::HeldSetTime(which, time) => {
                let node = self.held_node(*which)?;
                self.set(node, &time_to(Some(*time)))
            }
            Do::HeldLink(which) => {
                let node = self.held_node(*which)?;
                self.link(node, &op.to)
            }
            Do::HeldMkdir(which, name) => {
                let node = self.held_node(*which)?;
                let attr = self.union().getattr(node).map_err(|e| e.errno())?;
                if attr.kind() != Kind::Dir {
                    return Err(Errno::NOTDIR);
                }
                self.make_in(node, name, &New::Dir { mode: 0o755 })
            }
            Do::Release(which) => {
                self.held_node(*which)?;
                self.held.remove(*which % self.held.len());
                Ok(())
            }
            Do::Forget => {
                self.forget_all();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn kind_of(kind: Kind) -> char {
    match kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::Char => 'c',
        Kind::Block => 'b',
    }
}

fn size_to(size: u64) -> SetAttr {
    SetAttr {
        size: Some(size),
        ..SetAttr::default()
    }
}

fn mode_to(mode: u32) -> SetAttr {
    SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    }
}

fn time_to(time: Option<Time>) -> SetAttr {
    SetAttr {
        mtime: match time {
            Some((secs, nanos)) => SetTime::At(CoreTime { secs, nanos }),
            None => SetTime::Now,
        },
        ..SetAttr::default()
    }
}

impl Driver for Core {
    fn apply(&mut self, op: &Op) -> Answer<()> {
        let node = |kind, mode| New::Node {
            kind,
            mode,
            rdev: 0,
        };
        let done = match &op.what {
            Do::Create(mode) => self.make(&op.at, &node(Kind::File, *mode)),
            // mkdir(2) takes the permission bits and the sticky bit only.
            Do::Mkdir(mode) => self.make(
                &op.at,
                &New::Dir {
                    mode: mode & 0o1777,
                },
            ),
            Do::Fifo(mode) => self.make(&op.at, &node(Kind::Fifo, *mode)),
            Do::Symlink(target) => self.make(&op.at, &New::Symlink { target }),
            Do::Link => {
                let from = self.find(&op.at)?;
                self.link(from.node, &op.to)
            }
            Do::Unlink => {
                let (dir, name) = self.entry(&op.at)?;
                self.union().unlink(dir, name).map_err(|e| e.errno())
            }
            Do::Rmdir => {
                let (dir, name) = self.entry(&op.at)?;
                self.union().rmdir(dir, name).map_err(|e| e.errno())
            }
            Do::Rename(mode) => self.rename(op, *mode),
            Do::Write(offset, len, seed) => {
                let file = self.file(&op.at)?;
                let done = self.union().write(file.node, *offset, &bytes(*len, *seed));
                done.map_err(|e| e.errno())
            }
            Do::Append(len, seed) => {
                let file = self.file(&op.at)?;
                let data = bytes(*len, *seed);
                let done = self.union().write(file.node, file.attr.size, &data);
                done.map_err(|e| e.errno())
            }
            Do::Truncate(size) => {
                let file = self.file(&op.at)?;
                self.set(file.node, &size_to(*size))
            }
            Do::Fallocate(space, offset, len) => {
                let file = self.file(&op.at)?;
                let mode = fallocate_flags(*space).bits();
                let done = self.union().fallocate(file.node, mode, *offset, *len);
                done.map_err(|e| e.errno())
            }
            Do::Fsync => {
                let file = self.file(&op.at)?;
                self.union().fsync(file.node, false).map_err(|e| e.errno())
            }
            Do::Chmod(mode) => {
                let found = self.find(&op.at)?;
                if found.attr.kind() == Kind::Symlink {
                    return Err(Errno::OPNOTSUPP);
                }
                self.set(found.node, &mode_to(*mode))
            }
            Do::Chown(uid, gid) => {
                let found = self.find(&op.at)?;
                let set = SetAttr {
                    uid: *uid,
                    gid: *gid,
                    ..SetAttr::default()
                };
                self.set(found.node, &set)
            }
            Do::SetTime(time) => {
                let found = self.find(&op.at)?;
                self.set(found.node, &time_to(*time))
            }
            Do::SetXattr(name, value) => {
                let found = self.find(&op.at)?;
                self.check_xattr(&found.attr, name)?;
                let done = self
                    .union()
                    .setxattr(found.node, name, value, XattrFlags::empty());
                done.map_err(|e| e.errno())
            }
            Do::RemoveXattr(name) => {
                let found = self.find(&op.at)?;
                self.check_xattr(&found.attr, name)?;
                let done = self.union().removexattr(found.node, name);
                done.map_err(|e| e.errno())
            }
            Do::Hold => {
                let found = self.find(&op.at)?;
                if !matches!(found.attr.kind(), Kind::File | Kind::Dir) {
                    return Err(Errno::INVAL);
                }
                self.held.push(found.node);
                Ok(())
            }
            Do::List => {
                self.listing = Some((self.dir(&op.at)?, 0));
                Ok(())
            }
            Do::Unnamed(mode) => {
                let dir = self.dir(&op.at)?;
                let made = self.union().tmpfile(dir, *mode, &Caller::default());
                let entry = made.map_err(|e| e.errno())?;
                self.count(&entry);
                self.held.push(entry.node);
                Ok(())
            }
            _ => self.do_held(op),
        };
        if self.form.cold {
            self.forget_all();
        }
        done
    }

    fn more(&mut self, count: usize) -> Answer<Vec<Piece>> {
        let mut pieces = Vec::new();
        let Some((node, mut cookie)) = self.listing else {
            return Ok(pieces);
        };
        let done = self.union().readdir(node, cookie, |entry| {
            if pieces.len() == count {
                return false;
            }
            cookie = entry.cookie;
            pieces.push(Piece {
                name: entry.name.to_vec(),
                kind: kind_of(entry.kind),
            });
            true
        });
        done.map_err(|e| e.errno())?;
        self.listing = Some((node, cookie));
        Ok(pieces)
    }

    fn snapshot(&mut self) -> Result<Tree, String> {
        let mut tree = Tree::new();
        let attr = self
            .union()
            .getattr(NodeId::ROOT)
            .map_err(|e| e.to_string())?;
        tree.insert(At::new(), self.object(NodeId::ROOT, &attr)?);
        self.walk(NodeId::ROOT, b"", &mut tree)?;
        if self.form.cold {
            self.forget_all();
        }
        Ok(tree)
    }

    fn held(&mut self) -> Result<Vec<Object>, String> {
        let nodes = self.held.clone();
        nodes
            .into_iter()
            .map(|node| {
                let attr = self.union().getattr(node);
                let attr = attr.map_err(|e| format!("getattr of a held node: {e}"))?;
                let mut object = self.object(node, &attr)?;
                if object.kind == 'd' {
                    object.xattrs.clear();
                }
                Ok(object)
            })
            .collect()
    }

    fn release_all(&mut self) {
        self.held.clear();
        self.listing = None;
    }
}

impl Subject for Core {
    fn stop(&mut self) -> Result<(), String> {
        self.release_all();
        self.counted.clear();
        self.ids.clear();
        self.union = None;
        Ok(())
    }

    fn start(&mut self, form: Form) -> Result<(), String> {
        self.form = form;
        let config = Config {
            lowers: self.lowers.clone(),
            upper: Some(self.upper.clone()),
            work: Some(self.work.clone()),
            whiteout: if form.char_marks {
                WhiteoutForm::Char
            } else {
                WhiteoutForm::Wh
            },
            redirect_dir: form.redirect,
            volatile: !form.sync,
            ..Config::default()
        };
        self.union = Some(Union::open(&config).map_err(|e| e.to_string())?);
        Ok(())
    }
}
