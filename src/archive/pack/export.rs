//! A merged tree as one flat archive, read through the union itself: nothing is mounted, and an
//! upper is only read. It may be in use: what goes while it is read is left out.

use std::collections::HashMap;
use std::io::Write;

use super::content::NodeContent;
use super::options::{Pack, Packed, check_name};
use super::stream::{Archive, packed};
use crate::archive::error::{AtEntry as _, Result, unless_gone};
use crate::archive::merged::{description, failed, find, open_union};
use crate::archive::tar::{EntryKind, TarEntry};
use crate::cancel;
use crate::layer::dir::Name;
use crate::layer::stat::Kind;
use crate::union::{Attr, Config, EntryRef, NodeId, NodeRef, Union};

/// Writes everything that a union shows as one flat archive. Nothing is mounted; an upper is only
/// read.
///
/// # Errors
/// A name that would be taken for a whiteout, and failures of the disk; each names the entry.
pub fn export(union: &Config, out: impl Write, options: &Pack<'_>) -> Result<Packed> {
    let config = Config {
        read_only: true,
        work: None,
        ..union.clone()
    };
    let union = open_union(&config)?;
    packed(out, options, |archive| {
        Exporter::new(&union, archive, options, &mut Links::new()).all()?;
        // The root is no entry of its own.
        archive.entries = archive.entries.saturating_sub(1);
        Ok(())
    })
}

/// The objects that have several names, by `st_ino`.
pub(super) type Links = HashMap<u64, Linked>;

/// An object that was written and has several names.
pub(super) struct Linked {
    first: Vec<u8>,
    written: u32,
    all: u32,
}

/// Writes what a union shows.
pub(super) struct Exporter<'a> {
    union: &'a Union,
    archive: &'a mut Archive,
    options: &'a Pack<'a>,
    links: &'a mut Links,
}

impl<'a> Exporter<'a> {
    pub(super) fn new(
        union: &'a Union,
        archive: &'a mut Archive,
        options: &'a Pack<'a>,
        links: &'a mut Links,
    ) -> Self {
        Self {
            union,
            archive,
            options,
            links,
        }
    }

    /// The root and everything below it.
    fn all(&mut self) -> Result<()> {
        let attr = self.union.getattr(NodeId::ROOT).map_err(failed)?;
        let root = self.described(NodeId::ROOT, b"./", EntryKind::Dir, &attr)?;
        self.write(&root)?;
        self.below(self.union.root(), b"")
    }

    /// Everything below a directory, which is named by a path that ends with a slash.
    pub(super) fn below_path(&mut self, path: &[u8]) -> Result<()> {
        self.below(find(self.union, path)?, path)
    }

    /// Writes the names that objects have besides those that were written below `written`
    /// directories, with the directories they are in. An entry that was written before is replaced
    /// by its later one.
    pub(super) fn other_names(&mut self, written: &[Vec<u8>]) -> Result<()> {
        self.links.retain(|_, linked| linked.written < linked.all);
        if self.links.is_empty() {
            return Ok(());
        }
        let attr = self.union.getattr(NodeId::ROOT).map_err(failed)?;
        let names = self.names(NodeId::ROOT, b"")?;
        let mut above = vec![Above {
            level: Level::new(self.union.root(), 0, names),
            attr,
            written: true,
        }];
        let mut path = Vec::new();
        while let Some(dir) = above.last_mut() {
            cancel::check()?;
            path.truncate(dir.level.end);
            let (parent, Some(name)) = (dir.level.node.id(), dir.level.names.next()) else {
                above.pop();
                continue;
            };
            path.extend_from_slice(&name);
            let Some(entry) = self.look_up(parent, &name, &path)? else {
                continue;
            };
            let EntryRef { node, attr } = entry;
            if attr.kind() == Kind::Dir {
                path.push(b'/');
                if !written.contains(&path)
                    && let Some(names) = unless_gone(&path, self.names(node.id(), &path))?
                {
                    above.push(Above {
                        level: Level::new(node, path.len(), names),
                        attr,
                        written: false,
                    });
                }
            } else if attr.nlink > 1 && self.links.contains_key(&attr.ino) {
                let done = self
                    .directories_to(&mut above, &path)
                    .and_then(|()| self.entry(node.id(), &path, &attr).at_entry(&path));
                unless_gone(&path, done)?;
            }
        }
        Ok(())
    }

    /// Writes the directories that lead to an entry at `path`.
    fn directories_to(&mut self, above: &mut [Above<'_>], path: &[u8]) -> Result<()> {
        for dir in above.iter_mut().filter(|dir| !dir.written) {
            let path = &path[..dir.level.end];
            let entry = self.described(dir.level.node.id(), path, EntryKind::Dir, &dir.attr)?;
            self.write(&entry)?;
            dir.written = true;
        }
        Ok(())
    }

    /// Everything in a directory; `path` is empty or ends with a slash. However deep it is: what is
    /// kept for a level on the way is the names that are left in it.
    fn below(&mut self, dir: NodeRef<'_>, path: &[u8]) -> Result<()> {
        let names = self.names(dir.id(), path)?;
        let mut path = path.to_vec();
        let mut levels = vec![Level::new(dir, path.len(), names)];
        while let Some(level) = levels.last_mut() {
            cancel::check()?;
            path.truncate(level.end);
            let (dir, Some(name)) = (level.node.id(), level.names.next()) else {
                levels.pop();
                continue;
            };
            path.extend_from_slice(&name);
            check_name(&path, &name)?;
            let Some(entry) = self.entry_with_retries(dir, &name, &path)? else {
                continue;
            };
            if entry.attr.kind() != Kind::Dir {
                continue;
            }
            path.push(b'/');
            if let Some(names) = unless_gone(&path, self.names(entry.node.id(), &path))? {
                levels.push(Level::new(entry.node, path.len(), names));
            }
        }
        Ok(())
    }

    /// Writes the entry of a name, and returns it. A file that another one took the place of
    /// meanwhile is looked up again: a name that is there all the time is in the archive. `None`
    /// when it is gone.
    fn entry_with_retries(
        &mut self,
        dir: NodeId,
        name: &[u8],
        path: &[u8],
    ) -> Result<Option<EntryRef<'a>>> {
        /// So often in a row it may be replaced before it is read.
        const ATTEMPTS: u32 = 8;
        for attempt in 1..=ATTEMPTS {
            let Some(entry) = self.look_up(dir, name, path)? else {
                return Ok(None);
            };
            match self
                .entry(entry.node.id(), path, &entry.attr)
                .at_entry(path)
            {
                Err(error) if error.is_gone() && attempt < ATTEMPTS => {}
                done => return unless_gone(path, done.map(|()| entry)),
            }
        }
        Ok(None)
    }

    /// What has a name; `None` when it was removed meanwhile, by a mount of the same upper.
    fn look_up(&self, dir: NodeId, name: &[u8], path: &[u8]) -> Result<Option<EntryRef<'a>>> {
        let found = self.union.find(dir, name).map_err(failed).at_entry(path);
        unless_gone(path, found).map(Option::flatten)
    }

    /// The names in a directory, sorted.
    fn names(&self, dir: NodeId, path: &[u8]) -> Result<Vec<Name>> {
        let mut names: Vec<Name> = Vec::new();
        self.union
            .readdir(dir, 0, |entry| {
                if !matches!(&entry.name[..], b"." | b"..") {
                    names.push(Name::clone(&entry.name));
                }
                true
            })
            .map_err(failed)
            .at_entry(path)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Writes one entry, of a directory nothing but itself. When it is gone nothing was written.
    fn entry(&mut self, node: NodeId, path: &[u8], attr: &Attr) -> Result<()> {
        let what = match attr.kind() {
            Kind::Dir => {
                let path = [path, b"/"].concat();
                let entry = self.described(node, &path, EntryKind::Dir, attr)?;
                return self.write(&entry);
            }
            Kind::File => EntryKind::File(attr.size),
            Kind::Symlink => EntryKind::Symlink(self.union.readlink(node).map_err(failed)?),
            Kind::Fifo => EntryKind::Fifo,
            Kind::Socket => EntryKind::Socket,
            Kind::Char => EntryKind::Char(attr.rdev),
            Kind::Block => EntryKind::Block(attr.rdev),
        };
        if attr.nlink > 1
            && let Some(linked) = self.links.get_mut(&attr.ino)
        {
            linked.written += 1;
            let first = EntryKind::HardLink(linked.first.clone());
            let mut entry = self.described(node, path, first, attr)?;
            entry.xattrs = Vec::new();
            return self.write(&entry);
        }
        let entry = self.described(node, path, what, attr)?;
        match entry.what {
            EntryKind::File(size) if size > 0 => {
                let mut content = NodeContent {
                    union: self.union,
                    node,
                };
                self.archive.tar.file(&entry, size, &mut content)?;
                self.archive.entries += 1;
            }
            _ => self.write(&entry)?,
        }
        // Other names lead to what is in the archive.
        if attr.nlink > 1 {
            let linked = Linked {
                first: path.to_vec(),
                written: 1,
                all: attr.nlink,
            };
            self.links.insert(attr.ino, linked);
        }
        Ok(())
    }

    fn described(
        &self,
        node: NodeId,
        path: &[u8],
        what: EntryKind,
        attr: &Attr,
    ) -> Result<TarEntry> {
        let entry = description(self.union, node, path, what, attr)?;
        Ok(TarEntry {
            mtime: self.options.times.of(entry.mtime),
            ..entry
        })
    }

    fn write(&mut self, entry: &TarEntry) -> Result<()> {
        self.archive.entries += 1;
        self.archive.tar.entry(entry)
    }
}

/// A directory that is being walked.
struct Level<'u> {
    node: NodeRef<'u>,
    /// So many bytes of the path that is walked are its own.
    end: usize,
    /// What was not looked at yet.
    names: std::vec::IntoIter<Name>,
}

impl<'u> Level<'u> {
    fn new(node: NodeRef<'u>, end: usize, names: Vec<Name>) -> Self {
        Self {
            node,
            end,
            names: names.into_iter(),
        }
    }
}

/// A directory on the way to an entry.
struct Above<'u> {
    level: Level<'u>,
    attr: Attr,
    written: bool,
}
