//! Whether two trees on the disk are the same, entry by entry: names, types, owners, modes, sizes,
//! times, links, xattrs, content.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};

use super::metadata::Metadata;
use crate::layer::descent::Descent;
use crate::layer::marks::{NameMeaning, OPAQUE_XATTRS, meaning};
use crate::layer::stat::{Kind, Stat};
use crate::layer::xattr::XattrPath;
use crate::store::base::{Context, Result, entries};

/// Bytes that are compared at a time.
const BUFFER: usize = 64 * 1024;

/// The first difference between two layers in words; `None` when there is none. Of whiteouts only
/// the names count, and of the directories in `implied` (paths from the root; the root itself is
/// empty) not their metadata.
///
/// # Errors
/// One of them cannot be read.
pub(in crate::store) fn first_difference(
    one: &Path,
    other: &Path,
    implied: &HashSet<Vec<u8>>,
) -> Result<Option<String>> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty()).context("open", path)
    };
    let (first, second) = (open(one)?, open(other)?);
    let mut pairs = Pairs {
        implied,
        inodes: HashMap::new(),
    };
    if !implied.contains(&b""[..]) {
        let stats = (
            Stat::of_fd(&first).context("stat", one)?,
            Stat::of_fd(&second).context("stat", other)?,
        );
        if let Some(difference) = attributes(&stats.0, &stats.1) {
            return Ok(Some(format!("'/': {difference}")));
        }
    }
    pairs.trees(first, second).context("compare", other)
}

/// Which inode of the one tree is which of the other, for files with several names.
struct Pairs<'a> {
    implied: &'a HashSet<Vec<u8>>,
    inodes: HashMap<u64, u64>,
}

/// The names that two directories have in common, or the first difference.
type Names = std::result::Result<std::vec::IntoIter<CString>, String>;

/// What two entries are.
enum Same {
    Yes,
    Dirs(OwnedFd, OwnedFd),
    No(String),
}

impl Pairs<'_> {
    fn trees(&mut self, first: OwnedFd, second: OwnedFd) -> rustix::io::Result<Option<String>> {
        let mut path = PathBuf::from("/");
        let names = match same_names(&first, &second, &path)? {
            Ok(names) => names,
            Err(difference) => return Ok(Some(difference)),
        };
        let (mut one, mut other) = (Descent::begin(first, names), Descent::begin(second, ()));
        while let (Some((first, names)), Some((second, ()))) = (one.last(), other.last()) {
            let Some(name) = names.next() else {
                one.pop()?;
                other.pop()?;
                path.pop();
                continue;
            };
            path.push(OsStr::from_bytes(name.to_bytes()));
            match self.entry(&first, &second, &name, &path)? {
                Same::No(difference) => return Ok(Some(difference)),
                Same::Yes => {
                    path.pop();
                }
                Same::Dirs(first, second) => match same_names(&first, &second, &path)? {
                    Err(difference) => return Ok(Some(difference)),
                    Ok(names) => {
                        one.push(first, names)?;
                        other.push(second, ())?;
                    }
                },
            }
        }
        Ok(None)
    }

    fn entry(
        &mut self,
        one: &Arc<OwnedFd>,
        other: &Arc<OwnedFd>,
        name: &CString,
        path: &Path,
    ) -> rustix::io::Result<Same> {
        let stat = |dir: &OwnedFd| Stat::of_entry(dir.as_fd(), name.as_c_str());
        let (first, second) = (stat(one)?, stat(other)?);
        let differs = |what: String| Ok(Same::No(format!("'{}': {what}", path.display())));
        if meaning(name.to_bytes()) != NameMeaning::Plain {
            return Ok(Same::Yes);
        }
        let from_root = path.as_os_str().as_encoded_bytes().get(1..);
        let is_implied = from_root.is_some_and(|path| self.implied.contains(path));
        if let Some(what) = attributes(&first, &second).filter(|_| !is_implied) {
            return differs(what);
        }
        let xattrs = |dir: &Arc<OwnedFd>| all_xattrs(dir, name.as_bytes(), is_implied);
        if xattrs(one)? != xattrs(other)? {
            return differs("other xattrs".to_owned());
        }
        match first.kind() {
            Kind::Dir => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = |dir: &OwnedFd| openat(dir, name.as_c_str(), flags, Mode::empty());
                return Ok(Same::Dirs(open(one)?, open(other)?));
            }
            Kind::Symlink => {
                let read = |dir: &OwnedFd| readlinkat(dir, name.as_c_str(), Vec::new());
                if read(one)? != read(other)? {
                    return differs("another target".to_owned());
                }
            }
            Kind::File => {
                if self.inodes.contains_key(&first.ino) {
                    // Compared under another name.
                } else if !same_content(one, other, name)? {
                    return differs("other content".to_owned());
                }
            }
            _ => {}
        }
        if first.nlink > 1 && *self.inodes.entry(first.ino).or_insert(second.ino) != second.ino {
            return differs("a hard link to another file".to_owned());
        }
        Ok(Same::Yes)
    }
}

fn same_names(one: &OwnedFd, other: &OwnedFd, path: &Path) -> rustix::io::Result<Names> {
    let list = |dir: &OwnedFd| -> rustix::io::Result<BTreeSet<CString>> {
        Ok(entries(dir)?.into_iter().map(|(name, _)| name).collect())
    };
    let (first, second) = (list(one)?, list(other)?);
    let shown = |name: &CString| path.join(OsStr::from_bytes(name.to_bytes()));
    if let Some(name) = first.difference(&second).next() {
        return Ok(Err(format!("'{}' is missing", shown(name).display())));
    }
    if let Some(name) = second.difference(&first).next() {
        return Ok(Err(format!("'{}' is too much", shown(name).display())));
    }
    Ok(Ok(first.into_iter().collect::<Vec<_>>().into_iter()))
}

/// What the disk says of two entries.
fn attributes(one: &Stat, other: &Stat) -> Option<String> {
    let (first, second) = (Metadata::from(one), Metadata::from(other));
    if let Some(difference) = first.difference(&second) {
        return Some(difference);
    }
    let differs = one.kind() != Kind::Dir && one.nlink != other.nlink;
    differs.then(|| format!("link count {}, not {}", other.nlink, one.nlink))
}

/// The xattrs of an entry; of a directory that its archive does not describe only the marks, as the
/// others are what the layers below it have.
fn all_xattrs(
    dir: &Arc<OwnedFd>,
    name: &[u8],
    is_implied: bool,
) -> rustix::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    // SELinux labels belong to the machine, not to the layer.
    let counts = |xattr: &[u8]| match is_implied {
        true => OPAQUE_XATTRS.contains(&xattr),
        false => xattr != b"security.selinux",
    };
    let path = XattrPath::of_entry(Arc::clone(dir), name);
    let mut found = BTreeMap::new();
    for xattr in path
        .list()?
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if counts(xattr) {
            found.insert(xattr.to_vec(), path.get_opt(xattr)?.unwrap_or_default());
        }
    }
    Ok(found)
}

fn same_content(one: &OwnedFd, other: &OwnedFd, name: &CString) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |dir: &OwnedFd| openat(dir, name.as_c_str(), flags, Mode::empty()).map(File::from);
    let (mut first, mut second) = (open(one)?, open(other)?);
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let wanted = fill(&mut first, &mut left)?;
        let found = fill(&mut second, &mut right)?;
        if left.get(..wanted) != right.get(..found) {
            return Ok(false);
        }
        if wanted == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        match file.read(rest) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(
                    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
                );
            }
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn every_difference_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("one");
        fs::create_dir_all(one.join("d")).unwrap();
        fs::write(one.join("d/f"), vec![7; 100_000]).unwrap();
        fs::hard_link(one.join("d/f"), one.join("g")).unwrap();
        std::os::unix::fs::symlink("x", one.join("s")).unwrap();
        let copy = |name: &str| {
            let other = dir.path().join(name);
            let status = Command::new("cp").arg("-a").arg(&one).arg(&other).status();
            assert!(status.unwrap().success());
            other
        };
        let same = copy("same");
        assert_eq!(
            first_difference(&one, &same, &HashSet::new()).unwrap(),
            None
        );
        type Change = fn(&Path);
        let changes: [(&str, Change, &str); 5] = [
            (
                "missing",
                |at| fs::remove_file(at.join("s")).unwrap(),
                "is missing",
            ),
            (
                "more",
                |at| fs::write(at.join("t"), "").unwrap(),
                "is too much",
            ),
            (
                "content",
                |at| {
                    let before = fs::metadata(at.join("g")).unwrap().modified().unwrap();
                    let file = fs::OpenOptions::new()
                        .write(true)
                        .open(at.join("g"))
                        .unwrap();
                    std::os::unix::fs::FileExt::write_at(&file, b"x", 99_999).unwrap();
                    file.set_modified(before).unwrap();
                },
                "other content",
            ),
            (
                "mode",
                |at| {
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                    fs::set_permissions(at.join("d/f"), mode).unwrap();
                },
                "mode",
            ),
            (
                "target",
                |at| {
                    fs::remove_file(at.join("s")).unwrap();
                    std::os::unix::fs::symlink("xy", at.join("s")).unwrap();
                },
                "size",
            ),
        ];
        for (name, change, expected) in changes {
            let other = copy(name);
            change(&other);
            let found = first_difference(&one, &other, &HashSet::from([Vec::new()]))
                .unwrap()
                .unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }
}
