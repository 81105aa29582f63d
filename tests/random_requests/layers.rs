//! Layers on a disk, with things in them that lead out, and all that must not change.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tempfile::TempDir;

pub struct Layers {
    dir: TempDir,
    /// Everything but the uppers.
    before: Digest,
}

/// What can be seen of each file: type and mode, owner, sizes, times, links, content, xattrs.
type Digest = BTreeMap<PathBuf, String>;

impl Layers {
    pub fn new() -> Self {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tempfile::Builder::new()
            .prefix("fuzz.")
            .tempdir_in(base)
            .unwrap();
        let mut layers = Self {
            dir,
            before: Digest::new(),
        };
        fs::create_dir(layers.at("uppers")).unwrap();
        layers.fill();
        layers.before = layers.digest();
        layers
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn fill(&self) {
        self.file("outside/secret", "nobody reads this\n");
        self.file("outside/dir/a", "nor this\n");
        for layer in ["new", "old"] {
            for name in ["a", "b", "d/a", "d/b", "d/e/c", "e/a"] {
                self.file(&format!("{layer}/{name}"), &format!("{name} in {layer}\n"));
            }
            symlink("../outside", self.at(layer).join("out")).unwrap();
            symlink(self.at("outside/secret"), self.at(layer).join("d/secret")).unwrap();
        }
        self.file("old/only", &"x".repeat(10_000));
        self.file("old/gone", "");
        self.file("new/.wh.gone", "");
        self.file("old/o/hidden", "");
        self.file("new/o/.wh..wh..opq", "");
        self.file("old/twin", "twins\n");
        fs::hard_link(self.at("old/twin"), self.at("old/d/twin")).unwrap();
        fs::hard_link(self.at("old/twin"), self.at("outside/twin")).unwrap();
        symlink("a", self.at("old/link")).unwrap();
        for (name, kind) in [
            ("fifo", FileType::Fifo),
            ("null", FileType::CharacterDevice),
        ] {
            let device = rustix::fs::makedev(1, 3);
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(CWD, self.at("old").join(name), kind, mode, device).unwrap();
        }
        for (name, value) in [("user.label", "x"), ("trusted.label", "y")] {
            let path = self.at("old/only");
            rustix::fs::setxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
        }
    }

    /// Upper and work directory of a stream: fresh ones.
    pub fn upper(&self) -> (PathBuf, PathBuf) {
        let uppers = self.at("uppers");
        fs::remove_dir_all(&uppers).unwrap();
        let (upper, work) = (uppers.join("upper"), uppers.join("work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        fs::write(upper.join("u"), "u in the upper\n").unwrap();
        fs::create_dir(upper.join("d")).unwrap();
        fs::write(upper.join("d/u"), "u in the upper\n").unwrap();
        (upper, work)
    }

    /// Says what changed that may not.
    pub fn check(&self) -> Result<(), String> {
        let now = self.digest();
        for path in self.before.keys().chain(now.keys()) {
            let (before, now) = (self.before.get(path), now.get(path));
            if before != now {
                return Err(format!("{}: was {before:?}, is {now:?}", path.display()));
            }
        }
        Ok(())
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::new();
        for name in ["outside", "new", "old"] {
            read(&self.at(name), &mut digest);
        }
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        digest.insert(self.dir.path().into(), format!("{names:?}"));
        digest
    }
}

fn read(path: &Path, digest: &mut Digest) {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let content = if kind.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else if kind.is_file() {
        fs::read(path).unwrap()
    } else {
        assert!(kind.is_dir() || kind.is_fifo() || kind.is_char_device());
        Vec::new()
    };
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut xattrs = vec![0; 4096];
    let len = rustix::fs::llistxattr(&*name, &mut xattrs[..]).unwrap();
    xattrs.truncate(len);
    let of = |seconds, nanos| format!("{seconds}.{nanos}");
    let seen = format!(
        "mode {:o} nlink {} owner {}:{} size {} mtime {} ctime {} xattrs {} content {}",
        meta.mode(),
        meta.nlink(),
        meta.uid(),
        meta.gid(),
        meta.size(),
        of(meta.mtime(), meta.mtime_nsec()),
        of(meta.ctime(), meta.ctime_nsec()),
        xattrs.escape_ascii(),
        content.escape_ascii()
    );
    digest.insert(path.into(), seen);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read(&entry.unwrap().path(), digest);
        }
    }
}
