//! A union on temporary directories, for the tests of its parts: without a mount, and without a transport.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{Caller, Config, Entry, New, NodeId, Result, Union};
use crate::layer::stat::Kind;

/// Two lower directories, an upper and a work directory.
pub(super) struct Stack {
    dir: TempDir,
}

impl Stack {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["new", "old", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file of a layer, with the directories above it.
    pub(super) fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(super) fn config(&self) -> Config {
        Config {
            lowers: vec![self.at("new"), self.at("old")],
            upper: Some(self.at("upper")),
            work: Some(self.at("work")),
            ..Config::default()
        }
    }

    pub(super) fn open(&self) -> Union {
        Union::open(&self.config()).unwrap()
    }

    /// The lower layers alone.
    pub(super) fn open_read_only(&self) -> Union {
        let config = Config {
            upper: None,
            work: None,
            ..self.config()
        };
        Union::open(&config).unwrap()
    }

    /// How many entries the work directory holds.
    pub(super) fn staged(&self) -> usize {
        std::fs::read_dir(self.at("work/work")).unwrap().count()
    }
}

/// The entry of a path.
pub(super) fn find(union: &Union, path: &str) -> Entry {
    let mut found = None;
    let mut node = NodeId::ROOT;
    for name in path.split('/') {
        let entry = union.lookup(node, name.as_bytes()).unwrap().unwrap();
        node = entry.node;
        found = Some(entry);
    }
    found.unwrap()
}

/// A directory in the root.
pub(super) fn mkdir(union: &Union, name: &str, mode: u32) -> NodeId {
    let new = New::Dir { mode };
    let made = union.make(NodeId::ROOT, name.as_bytes(), &new, &Caller::default());
    made.unwrap().node
}

pub(super) fn file(mode: u32) -> New<'static> {
    New::Node {
        kind: Kind::File,
        mode,
        rdev: 0,
    }
}

pub(super) fn content(union: &Union, node: NodeId) -> String {
    let mut buffer = vec![0; 4096];
    let len = union.read(node, 0, &mut buffer).unwrap();
    buffer.truncate(len);
    String::from_utf8(buffer).unwrap()
}

pub(super) fn errno<T>(result: Result<T>) -> Errno {
    match result {
        Ok(_) => Errno::from_raw_os_error(0),
        Err(error) => error.errno(),
    }
}

/// Files and directories with flags, which are cleared in the end: else they could not be removed.
pub(super) struct Marked(pub(super) Vec<PathBuf>);

impl Marked {
    pub(super) fn set(&mut self, path: PathBuf, flags: IFlags) -> rustix::io::Result<()> {
        let fd = std::fs::File::open(&path).unwrap();
        self.0.push(path);
        ioctl_setflags(&fd, ioctl_getflags(&fd)? | flags)
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        for path in &self.0 {
            let Ok(fd) = std::fs::File::open(path) else {
                continue;
            };
            if let Ok(flags) = ioctl_getflags(&fd) {
                ioctl_setflags(&fd, flags.difference(IFlags::IMMUTABLE | IFlags::APPEND)).unwrap();
            }
        }
    }
}

/// Whether flags can be set here: not on every disk, and not by everybody.
pub(super) fn has_flags(stack: &Stack) -> bool {
    let mut marked = Marked(Vec::new());
    let probe = stack.file("probe", "");
    let works = marked
        .set(probe, IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP)
        .is_ok();
    if !works {
        eprintln!("skipped: no inode flags here");
    }
    works
}
