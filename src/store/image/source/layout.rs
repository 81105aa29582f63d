//! A directory with an OCI image layout, or an unpacked archive of `docker save`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::Member;
use crate::store::base::{Context, Result, StoreError};

/// An opened directory. Members are opened beneath it: no name and no symlink leads out.
#[derive(Debug)]
pub(super) struct Layout {
    root: OwnedFd,
    path: PathBuf,
}

impl Layout {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).context("open", path)?;
        Ok(Self {
            root,
            path: path.to_owned(),
        })
    }

    pub(super) fn member(&self, name: &str) -> Result<Option<Member>> {
        let path = self.path.join(name);
        // A pipe in the place of a file must not make us wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = match openat2(&self.root, name, flags, Mode::empty(), resolve) {
            Ok(opened) => File::from(opened),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::XDEV) => {
                return Err(StoreError::malformed(
                    format!("'{}' leads out of the image", path.display()),
                    "put a copy in the place of the symlink",
                ));
            }
            Err(errno) => return Err(errno).context("open", &path),
        };
        let meta = opened.metadata().context("stat", &path)?;
        if !meta.is_file() {
            return Err(StoreError::malformed(
                format!("'{}' is not a file", path.display()),
                "the directory is damaged: download or build the image again",
            ));
        }
        Ok(Some(Member {
            size: meta.len(),
            reader: Box::new(opened),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn members_are_beneath_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("layout");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(inside.join("index.json"), "{}").unwrap();
        symlink("../secret", inside.join("out")).unwrap();
        symlink("index.json", inside.join("in")).unwrap();
        let fifo = rustix::fs::mknodat(
            CWD,
            inside.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        );
        fifo.unwrap();
        let layout = Layout::open(&inside).unwrap();
        for name in ["index.json", "in"] {
            let mut member = layout.member(name).unwrap().unwrap();
            let mut text = String::new();
            member.reader.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), member.size), ("{}", 2));
        }
        assert!(layout.member("missing").unwrap().is_none());
        assert!(layout.member("index.json/x").unwrap().is_none());
        for name in ["out", "../secret", "/etc/passwd", "pipe", "."] {
            assert!(layout.member(name).is_err(), "{name}");
        }
    }
}
