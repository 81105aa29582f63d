//! What a directory tree looks like, to be compared with another.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Everything that is compared about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub rdev: u64,
    /// The first path of the same file.
    pub same_as: String,
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

pub type Survey = BTreeMap<String, Object>;

pub fn survey(root: &Path) -> Survey {
    let mut all = Survey::new();
    let mut first = BTreeMap::new();
    walk(root, root, &mut all, &mut first);
    all
}

fn walk(root: &Path, at: &Path, all: &mut Survey, first: &mut BTreeMap<u64, String>) {
    let meta = at.symlink_metadata().unwrap();
    let name = at.strip_prefix(root).unwrap().as_os_str();
    let name = name.as_bytes().escape_ascii().to_string();
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '-',
    };
    let data = match kind {
        '-' => std::fs::read(at).unwrap(),
        'l' => std::fs::read_link(at)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec(),
        _ => Vec::new(),
    };
    let same_as = match kind {
        'd' => name.clone(),
        _ => first
            .entry(meta.ino())
            .or_insert_with(|| name.clone())
            .clone(),
    };
    all.insert(
        name,
        Object {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            rdev: if matches!(kind, 'c' | 'b') {
                meta.rdev()
            } else {
                0
            },
            same_as,
            data,
            xattrs: xattrs(at),
        },
    );
    if kind == 'd' {
        let mut inner: Vec<_> = std::fs::read_dir(at)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        inner.sort();
        for path in inner {
            walk(root, &path, all, first);
        }
    }
}

pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let mut all = BTreeMap::new();
    for name in list[..len]
        .split(|byte| *byte == 0)
        .filter(|n| !n.is_empty())
    {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        all.insert(name.escape_ascii().to_string(), value);
    }
    all
}

/// Panics with the first differences.
pub fn assert_same(want: &Survey, got: &Survey, how: &str) {
    let brief = |object: Option<&Object>| {
        object.map(|object| {
            let mut object = object.clone();
            object.data.truncate(60);
            object
        })
    };
    let names: std::collections::BTreeSet<_> = want.keys().chain(got.keys()).collect();
    let wrong: Vec<String> = names
        .into_iter()
        .filter(|name| want.get(*name) != got.get(*name))
        .map(|name| {
            format!(
                "{name}: {:?}, should be {:?}",
                brief(got.get(name)),
                brief(want.get(name))
            )
        })
        .take(5)
        .collect();
    assert!(wrong.is_empty(), "{how}:\n{}", wrong.join("\n"));
}
