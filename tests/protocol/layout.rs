//! The stack of layers that the streams were recorded on: always the same, so that they can be
//! played again.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use tempfile::TempDir;
use unionmount::union::Config;

/// When everything in the layers was changed last, in seconds since 1970: long before any clock
/// that runs a test.
pub const LONG_AGO: i64 = 1_500_000_000;

pub struct Layout {
    dir: TempDir,
    writable: bool,
}

impl Layout {
    pub fn new(writable: bool) -> Self {
        rustix::process::umask(Mode::empty());
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tempfile::Builder::new()
            .prefix("protocol.")
            .tempdir_in(base)
            .unwrap();
        let layout = Self { dir, writable };
        for name in ["upper", "work", "merged"] {
            fs::create_dir(layout.at(name)).unwrap();
        }
        layout.fill();
        for layer in ["new", "old", "upper"] {
            age(&layout.at(layer));
        }
        layout
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn config(&self) -> Config {
        Config {
            lowers: vec![self.at("new"), self.at("old")],
            upper: self.writable.then(|| self.at("upper")),
            work: self.writable.then(|| self.at("work")),
            ..Config::default()
        }
    }

    fn file(&self, path: &str, content: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn fill(&self) {
        self.file("new/hello", b"hello from the newest layer\n");
        self.file("old/hello", b"hello from the oldest layer\n");
        self.file("new/both/new", b"new\n");
        self.file("new/both/same", b"the newer one\n");
        self.file("old/both/old", b"old\n");
        self.file("old/both/same", b"the older one\n");
        self.file("old/gone", b"nobody sees this\n");
        self.file("new/.wh.gone", b"");
        self.file("new/opaque/own", b"own\n");
        self.file("new/opaque/.wh..wh..opq", b"");
        self.file("old/opaque/hidden", b"hidden\n");
        self.file("old/deep/a/b/c/leaf", b"leaf\n");
        let data: Vec<u8> = (0..3000u32).map(|i| (i * 7 / 3 % 251) as u8).collect();
        self.file("old/data", &data);
        self.file("old/program", b"#!/bin/sh\necho it runs\n");
        self.file("old/private", b"private\n");
        self.file("old/labelled", b"labelled\n");
        self.file("old/ancient", b"ancient\n");
        self.file("old/twin", b"twins\n");
        self.file("upper/above", b"above\n");
        for number in 0..12 {
            self.file(&format!("old/listed/entry-{number}"), b"");
        }
        fs::create_dir(self.at("old/twins")).unwrap();
        fs::hard_link(self.at("old/twin"), self.at("old/twins/other")).unwrap();
        symlink("hello", self.at("old/link")).unwrap();
        symlink("/no/such/place", self.at("old/dangling")).unwrap();
        for (path, mode) in [("program", 0o4755), ("private", 0o600)] {
            chown(self.at("old").join(path), Some(1000), Some(1001)).unwrap();
            fs::set_permissions(self.at("old").join(path), fs::Permissions::from_mode(mode))
                .unwrap();
        }
        let label = rustix::fs::setxattr(
            self.at("old/labelled"),
            "user.label",
            b"a label",
            XattrFlags::empty(),
        );
        label.unwrap();
        for (name, kind, device) in [
            ("fifo", FileType::Fifo, 0),
            ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ] {
            let path = self.at("old").join(name);
            rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).unwrap();
        }
    }
}

/// Makes everything below a directory, and itself, old; and one file older than the epoch.
fn age(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            age(&entry.unwrap().path());
        }
    }
    let tv_sec = if path.ends_with("ancient") {
        -86_400
    } else {
        LONG_AGO
    };
    let time = Timespec {
        tv_sec,
        tv_nsec: 123_000_000,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    rustix::fs::utimensat(CWD, &*name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    assert_eq!(
        path.symlink_metadata().unwrap().mtime(),
        tv_sec,
        "{}",
        path.display()
    );
}
