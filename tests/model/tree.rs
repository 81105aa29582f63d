//! What a tree looks like, and reading it from ordinary directories.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, Stat, fstat, getxattr, listxattr, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::ops::show;
use super::stack::{At, Name, Time, join};

/// Everything that is compared about an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// As `ls -l` shows it: `-dlpscb`.
    pub kind: char,
    /// The twelve permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u64,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub rdev: u64,
    pub mtime: Time,
    /// Bytes of a file, target of a symlink.
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<Name, Vec<u8>>,
}

/// All objects by path; the root's is empty.
pub type Tree = BTreeMap<At, Object>;

pub fn kind_of(mode: RawMode) -> char {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Unknown => '?',
    }
}

impl From<&Stat> for Object {
    fn from(stat: &Stat) -> Self {
        Self {
            kind: kind_of(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: stat.st_nlink,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
            rdev: stat.st_rdev,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            data: Vec::new(),
            xattrs: BTreeMap::new(),
        }
    }
}

/// What to look at beside the objects themselves.
#[derive(Clone, Copy, Default)]
pub struct Look<'a> {
    /// Names that must not be found where they are not listed.
    pub absent: &'a [Name],
}

/// Reads a whole tree. Errors: what contradicts itself on the way, and calls that fail.
pub fn read_tree(root: impl AsFd, look: Look<'_>) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let stat = fstat(&root).map_err(|e| format!("fstat root: {e}"))?;
    let fd = open(&root, b".", OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| e.to_string())?;
    let mut object = Object::from(&stat);
    object.xattrs = xattrs(&fd).map_err(|e| format!("xattrs of root: {e}"))?;
    tree.insert(At::new(), object);
    read_dir(&fd, b"", stat.st_ino, look, &mut tree)?;
    Ok(tree)
}

fn open(dir: impl AsFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn read_dir(
    dir: &OwnedFd,
    at: &[u8],
    own_ino: u64,
    look: Look<'_>,
    tree: &mut Tree,
) -> Result<(), String> {
    let wrong =
        |what: &str, name: &[u8], e: Errno| format!("{what} of {:?}: {e}", show(&join(at, name)));
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(|e| wrong("opendir", b"", e))? {
        let entry = entry.map_err(|e| wrong("readdir", b"", e))?;
        let name = entry.file_name().to_bytes().to_vec();
        if name == b"." && entry.ino() != own_ino {
            return Err(format!(
                "d_ino of . in {:?} is {}, st_ino {own_ino}",
                show(at),
                entry.ino()
            ));
        }
        if name != b"." && name != b".." {
            names.push((name, entry.ino(), kind_of(entry.file_type().as_raw_mode())));
        }
    }
    for absent in look.absent {
        if !names.iter().any(|(name, _, _)| name == absent) {
            let found = statat(dir, &absent[..], AtFlags::SYMLINK_NOFOLLOW);
            if found.err() != Some(Errno::NOENT) {
                return Err(format!(
                    "stat finds {:?}, which readdir does not list",
                    show(&join(at, absent))
                ));
            }
        }
    }
    for (name, d_ino, d_type) in names {
        let here = join(at, &name);
        let (object, fd) =
            read_object(dir, &name).map_err(|e| format!("{:?}: {e}", show(&here)))?;
        if object.ino != d_ino || object.kind != d_type {
            return Err(format!(
                "readdir says ino {d_ino} type {d_type} of {:?}, stat {} {}",
                show(&here),
                object.ino,
                object.kind
            ));
        }
        let is_dir = object.kind == 'd';
        let seen = tree.insert(here.clone(), object);
        if seen.is_some() {
            return Err(format!("readdir lists {:?} twice", show(&here)));
        }
        if is_dir {
            read_dir(&fd, &here, d_ino, look, tree)?;
        }
    }
    Ok(())
}

/// Reads an entry of a directory, and gives its descriptor, which is `O_PATH` for all but files and
/// directories.
pub fn read_object(dir: impl AsFd, name: &[u8]) -> Result<(Object, OwnedFd), String> {
    let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| format!("stat: {e}"))?;
    let mut object = Object::from(&stat);
    let flags = match object.kind {
        '-' => OFlags::RDONLY,
        'd' => OFlags::RDONLY | OFlags::DIRECTORY,
        _ => OFlags::PATH,
    };
    let fd = open(&dir, name, flags).map_err(|e| format!("open: {e}"))?;
    object.xattrs = xattrs(&fd).map_err(|e| format!("xattrs: {e}"))?;
    match object.kind {
        '-' => object.data = read_all(&fd).map_err(|e| format!("read: {e}"))?,
        'l' => {
            let target = readlinkat(dir, name, Vec::new());
            object.data = target.map_err(|e| format!("readlink: {e}"))?.into_bytes();
        }
        _ => {}
    }
    Ok((object, fd))
}

pub fn read_all(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::new();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match rustix::io::pread(fd, &mut chunk, data.len() as u64)? {
            0 => return Ok(data),
            count => data.extend_from_slice(&chunk[..count]),
        }
    }
}

/// All xattrs behind a descriptor, which may be `O_PATH`.
pub fn xattrs(fd: &OwnedFd) -> Result<BTreeMap<Name, Vec<u8>>, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut list = vec![0; 4096];
    let len = match listxattr(&path, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut all = BTreeMap::new();
    for name in list[..len]
        .split(|byte| *byte == 0)
        .filter(|n| !n.is_empty())
    {
        let mut value = vec![0; 4096];
        let len = getxattr(&path, name, &mut value[..])?;
        value.truncate(len);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

/// Reads what is behind a descriptor that is held open.
pub fn read_held(fd: &OwnedFd) -> Result<Object, String> {
    let stat = fstat(fd).map_err(|e| format!("fstat of a held object: {e}"))?;
    let mut object = Object::from(&stat);
    if object.kind == '-' {
        object.data = read_all(fd).map_err(|e| format!("read of a held file: {e}"))?;
        object.xattrs = xattrs(fd).map_err(|e| format!("xattrs of a held file: {e}"))?;
    }
    Ok(object)
}
