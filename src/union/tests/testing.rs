//! A union on temporary directories, for the tests of its parts: without a mount, and without a
//! transport.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::layer::stat::Kind;
use crate::union::{Caller, Config, Entry, New, NodeId, Result, Union};

/// Two lower directories, an upper and a work directory.
pub(in crate::union) struct Stack {
    dir: TempDir,
}

impl Stack {
    pub(in crate::union) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["new", "old", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub(in crate::union) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Writes a file of a layer, with the directories above it.
    pub(in crate::union) fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(in crate::union) fn config(&self) -> Config {
        Config {
            lowers: vec![self.at("new"), self.at("old")],
            upper: Some(self.at("upper")),
            work: Some(self.at("work")),
            ..Config::default()
        }
    }

    pub(in crate::union) fn open(&self) -> Union {
        Union::open(&self.config()).unwrap()
    }

    /// The lower layers alone.
    pub(in crate::union) fn open_read_only(&self) -> Union {
        let config = Config {
            upper: None,
            work: None,
            ..self.config()
        };
        Union::open(&config).unwrap()
    }

    /// How many entries the work directory holds.
    pub(in crate::union) fn staged(&self) -> usize {
        std::fs::read_dir(self.at("work/work")).unwrap().count()
    }
}

/// The entry of a path.
pub(in crate::union) fn find(union: &Union, path: &str) -> Entry {
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
pub(in crate::union) fn mkdir(union: &Union, name: &str, mode: u32) -> NodeId {
    let new = New::Dir { mode };
    let made = union.make(NodeId::ROOT, name.as_bytes(), &new, &Caller::default());
    made.unwrap().node
}

pub(in crate::union) fn file(mode: u32) -> New<'static> {
    New::Node {
        kind: Kind::File,
        mode,
        rdev: 0,
    }
}

pub(in crate::union) fn content(union: &Union, node: NodeId) -> String {
    let mut buffer = vec![0; 4096];
    let len = union.read(node, 0, &mut buffer).unwrap();
    buffer.truncate(len);
    String::from_utf8(buffer).unwrap()
}

pub(in crate::union) fn errno<T>(result: Result<T>) -> Errno {
    match result {
        Ok(_) => Errno::from_raw_os_error(0),
        Err(error) => error.errno(),
    }
}

/// Files and directories with flags, which are cleared in the end: else they could not be removed.
pub(in crate::union) struct Marked(pub(in crate::union) Vec<PathBuf>);

impl Marked {
    pub(in crate::union) fn set(&mut self, path: PathBuf, flags: IFlags) -> rustix::io::Result<()> {
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
pub(in crate::union) fn has_flags(stack: &Stack) -> bool {
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
