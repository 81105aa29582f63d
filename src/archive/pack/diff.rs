//! The changes in an upper directory as a layer.
//!
//! The upper may be in use: what goes while it is read is left out. Only the upper is read, so the
//! cost is that of the changes. Of each directory the opaque mark comes first, whiteouts before the
//! entries, all sorted; marks of every form are written as `.wh.` entries. A directory beside which
//! its own whiteout lies is opaque (semantics of the union: a whiteout never hides anything of its
//! own layer).
//!
//! A directory that was renamed on a union with redirects is written with all that it shows, and as
//! opaque, since a layer has no way to refer to another place. A file of which the upper has the
//! attributes only (metacopy) is written with its bytes. These two, alone, read the lower layers.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::attributes::{is_metacopy, names_of, own_device, shown_xattrs};
use super::content::{FdContent, NodeContent};
use super::export::{Exporter, Links};
use super::options::{Pack, Packed, check_name};
use super::stream::{Archive, packed};
use crate::archive::error::{AtEntry as _, Context as _, Error, Result, unless_gone};
use crate::archive::listing::LayerListing;
use crate::archive::merged::{find, open_union};
use crate::archive::tar::{EntryKind, TarEntry};
use crate::cancel;
use crate::layer::dir::Name;
use crate::layer::marks::read::is_redirected;
use crate::layer::marks::{DirMarks, NAME_MAX, OPAQUE_FILE, WH_PREFIX};
use crate::layer::stat::{Kind, Stat, Time};
use crate::layer::xattr::XattrPath;
use crate::layer::{FdCache, ReadOnlyDir};
use crate::union::{Config, Union, reads_plain_names};

/// Descriptors that stay open while a tree is walked.
const DESCRIPTORS: usize = 64;

/// Writes the changes in `upper` as a layer. `lowers`, newest first, are only needed (and only
/// read) where a renamed directory, or a file without its bytes, refers to them.
///
/// # Errors
/// A name that a layer cannot hold, and failures of the disk; each names the entry.
pub fn diff(
    upper: &Path,
    lowers: &[PathBuf],
    out: impl Write,
    options: &Pack<'_>,
) -> Result<Packed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::open(upper, flags, Mode::empty()).map_err(|errno| {
        Error::io(
            format!("cannot open the upper '{}'", upper.display()),
            errno,
        )
    })?;
    packed(out, options, |archive| {
        let root = ReadOnlyDir::alone(fd, &FdCache::new(DESCRIPTORS));
        let mut differ = Differ {
            archive,
            options,
            links: HashMap::new(),
            plain_names: reads_plain_names(&root),
            upper,
            lowers,
            expanded: None,
        };
        differ.tree(&root)?;
        differ.other_names()
    })
}

/// A directory that is being walked.
struct Level {
    dir: ReadOnlyDir,
    /// So many bytes of the path that is walked are its own.
    end: usize,
    marks: DirMarks,
    whiteouts: BTreeSet<Name>,
    /// What was not looked at yet.
    names: std::collections::btree_set::IntoIter<Name>,
}

struct Differ<'a> {
    archive: &'a mut Archive,
    options: &'a Pack<'a>,
    /// The first name of each object that has several: device and inode number.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// `.wh.` names are ordinary ones.
    plain_names: bool,
    upper: &'a Path,
    lowers: &'a [PathBuf],
    /// Read where the upper refers to the layers below.
    expanded: Option<Expanded>,
}

/// The upper with what is below it, and the renamed directories that were written as it shows them.
struct Expanded {
    union: Union,
    paths: Vec<Vec<u8>>,
    links: Links,
}

impl Expanded {
    /// Opens it when it is first needed.
    fn of<'a>(
        slot: &'a mut Option<Self>,
        upper: &Path,
        lowers: &[PathBuf],
    ) -> Result<&'a mut Self> {
        match slot {
            Some(expanded) => Ok(expanded),
            none => Ok(none.insert(Self {
                union: open_union(&Config {
                    lowers: lowers.to_vec(),
                    upper: Some(upper.to_owned()),
                    read_only: true,
                    ..Config::default()
                })?,
                paths: Vec::new(),
                links: Links::new(),
            })),
        }
    }
}

impl Differ<'_> {
    /// The root and all below it, however deep that is.
    fn tree(&mut self, root: &ReadOnlyDir) -> Result<()> {
        let stat = root.stat().context("stat", b".")?;
        let mut path = b"./".to_vec();
        let mut levels = Vec::new();
        levels.extend(self.directory(root, &path, &stat, false)?);
        path.clear();
        while let Some(level) = levels.last_mut() {
            cancel::check()?;
            path.truncate(level.end);
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            path.extend_from_slice(&name);
            let hidden = level.whiteouts.contains(&name);
            let read = self.entry(&level.dir, &name, &path, &level.marks);
            // A mount of the upper may have removed it meanwhile.
            let Some(is_dir) = unless_gone(&path, read)? else {
                continue;
            };
            if let Some((child, stat)) = is_dir {
                path.push(b'/');
                let read = self.directory(&child, &path, &stat, hidden);
                levels.extend(unless_gone(&path, read)?.flatten());
            }
        }
        Ok(())
    }

    /// A directory with its marks; `path` ends with a slash. `hidden` says that its own whiteout
    /// lies beside it. Returns what is to be written of its entries. When it is gone it may be in
    /// the archive, with nothing in it.
    fn directory(
        &mut self,
        dir: &ReadOnlyDir,
        path: &[u8],
        stat: &Stat,
        hidden: bool,
    ) -> Result<Option<Level>> {
        let xattrs = dir.xattrs().context("open", path)?;
        let names = xattrs.list().context("listxattr", path)?;
        let entry = self.described(path, EntryKind::Dir, stat, &xattrs, &names)?;
        if is_redirected(&names) {
            self.write(&entry)?;
            self.expand(path)?;
            return Ok(None);
        }
        let listing = LayerListing::of(dir, &xattrs, &names, self.plain_names).at_entry(path)?;
        let holds_something = !(listing.entries.is_empty() && listing.whiteouts.is_empty());
        // The archive that the layer was made of did not describe it: its metadata is not the
        // layer's.
        let is_implied = holds_something
            && entry.xattrs.is_empty()
            && dir.is_implied().context("getxattr", path)?;
        if !is_implied {
            self.write(&entry)?;
        }
        let below = if path == b"./" { b"" } else { path };
        if listing.opaque || hidden {
            self.mark(below, OPAQUE_FILE)?;
        }
        for name in &listing.whiteouts {
            if !listing.entries.contains(name) {
                self.mark(below, &[WH_PREFIX, name].concat())?;
            }
        }
        Ok(Some(Level {
            dir: dir.clone(),
            end: below.len(),
            marks: listing.marks,
            whiteouts: listing.whiteouts,
            names: listing.entries.into_iter(),
        }))
    }

    /// Writes an entry, or returns it when it is a directory. When it is gone nothing was written.
    fn entry(
        &mut self,
        dir: &ReadOnlyDir,
        name: &Name,
        path: &[u8],
        marks: &DirMarks,
    ) -> Result<Option<(ReadOnlyDir, Stat)>> {
        let stat = dir.stat_entry(name).context("stat", name)?;
        self.refuse_mark_names(path, name)?;
        if stat.kind() == Kind::Dir {
            return Ok(Some((dir.child(name), stat)));
        }
        self.leaf(dir, name, path, marks, stat).at_entry(path)?;
        Ok(None)
    }

    fn leaf(
        &mut self,
        dir: &ReadOnlyDir,
        name: &Name,
        path: &[u8],
        marks: &DirMarks,
        stat: Stat,
    ) -> Result<()> {
        let xattrs = dir.xattrs_of(name).context("open", name)?;
        // What is read anyway is asked through its descriptor, which costs no way through /proc.
        let file = match stat.kind() {
            Kind::File if stat.size > 0 => Some(dir.open_entry(name).context("open", name)?),
            _ => None,
        };
        let names = match &file {
            Some(file) => names_of(file),
            None => xattrs.list(),
        };
        let names = names.context("listxattr", name)?;
        let is_device = marks.impure && stat.kind() == Kind::File && own_device(&names);
        let what = match stat.kind() {
            _ if is_device => EntryKind::Char(0),
            Kind::File | Kind::Dir => EntryKind::File(stat.size),
            Kind::Symlink => EntryKind::Symlink(dir.read_link(name).context("readlink", name)?),
            Kind::Fifo => EntryKind::Fifo,
            Kind::Socket => EntryKind::Socket,
            Kind::Char => EntryKind::Char(stat.rdev),
            Kind::Block => EntryKind::Block(stat.rdev),
        };
        let mut entry = self.described(path, what, &stat, &xattrs, &names)?;
        if stat.nlink > 1
            && let Some(first) = self.links.get(&(stat.dev, stat.ino))
        {
            entry.what = EntryKind::HardLink(first.clone());
            entry.xattrs = Vec::new();
            return self.write(&entry);
        }
        match (&entry.what, file) {
            (&EntryKind::File(size), Some(_)) if is_metacopy(&stat, marks, &names) => {
                self.metacopy(&entry, size, path)?;
            }
            (&EntryKind::File(size), Some(file)) => {
                self.archive.tar.file(&entry, size, &mut FdContent(&file))?;
                self.archive.entries += 1;
            }
            _ => self.write(&entry)?,
        }
        // Other names lead to what is in the archive.
        if stat.nlink > 1 {
            self.links.insert((stat.dev, stat.ino), path.to_vec());
        }
        Ok(())
    }

    /// A file of which the upper has the attributes only.
    fn metacopy(&mut self, entry: &TarEntry, size: u64, path: &[u8]) -> Result<()> {
        if self.lowers.is_empty() {
            return Err(Error::refused(
                "it has its attributes only (metacopy), and its bytes are in a lower layer",
            )
            .with_hint("name the lower layers with --lower"));
        }
        let expanded = Expanded::of(&mut self.expanded, self.upper, self.lowers)?;
        let union = &expanded.union;
        let node = find(union, path)?;
        let mut content = NodeContent {
            union,
            node: node.id(),
        };
        self.archive.tar.file(entry, size, &mut content)?;
        self.archive.entries += 1;
        Ok(())
    }

    fn refuse_mark_names(&self, path: &[u8], name: &[u8]) -> Result<()> {
        match self.plain_names {
            true => check_name(path, name),
            false => Ok(()),
        }
    }

    /// An entry with the attributes that the disk, or a record, says.
    fn described(
        &self,
        path: &[u8],
        what: EntryKind,
        stat: &Stat,
        xattrs: &XattrPath,
        names: &[u8],
    ) -> Result<TarEntry> {
        Ok(TarEntry {
            path: path.to_vec(),
            what,
            mode: stat.perm(),
            uid: stat.uid,
            gid: stat.gid,
            mtime: self.options.times.of(stat.mtime),
            xattrs: shown_xattrs(xattrs, names).at_entry(path)?,
        })
    }

    fn write(&mut self, entry: &TarEntry) -> Result<()> {
        // The root is no change.
        self.archive.entries += u64::from(entry.path != b"./");
        self.archive.tar.entry(entry)
    }

    /// A whiteout or opaque mark. It says nothing of when it was made, so that layers do not differ
    /// by that.
    fn mark(&mut self, directory: &[u8], name: &[u8]) -> Result<()> {
        debug_assert!(name.len() <= NAME_MAX + WH_PREFIX.len());
        self.write(&TarEntry {
            path: [directory, name].concat(),
            what: EntryKind::File(0),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        })
    }

    /// Writes what a renamed directory shows, as an opaque one.
    fn expand(&mut self, path: &[u8]) -> Result<()> {
        if self.lowers.is_empty() {
            return Err(Error::refused("it was renamed and refers to a lower layer")
                .with_hint("name the lower layers with --lower")
                .at(path));
        }
        self.mark(path, OPAQUE_FILE)?;
        let expanded = Expanded::of(&mut self.expanded, self.upper, self.lowers)?;
        expanded.paths.push(path.to_vec());
        let (union, links) = (&expanded.union, &mut expanded.links);
        Exporter::new(union, self.archive, self.options, links).below_path(path)
    }

    /// Files in renamed directories may have names elsewhere: those are changes then, too. Walks
    /// the whole tree, but only where there are such files.
    fn other_names(&mut self) -> Result<()> {
        let Some(expanded) = &mut self.expanded else {
            return Ok(());
        };
        let (union, links) = (&expanded.union, &mut expanded.links);
        Exporter::new(union, self.archive, self.options, links).other_names(&expanded.paths)
    }
}
