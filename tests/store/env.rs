//! A store of its own in a temporary directory, with whatever was mounted there taken down at the
//! end.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use support::binary;

pub struct Env {
    pub dir: TempDir,
}

impl Env {
    pub fn new() -> Self {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tempfile::Builder::new()
            .prefix("store.")
            .tempdir_in(base)
            .unwrap();
        Self { dir }
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn root(&self) -> PathBuf {
        self.at("root")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("UNIONMOUNT_ROOT", self.root())
            .env_remove("RUST_LOG")
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints that has to work.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    /// The one line that a command says which has to fail.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        let lines: Vec<&str> = said
            .lines()
            .filter(|l| l.starts_with("unionmount: "))
            .collect();
        assert_eq!(lines.len(), 1, "{args:?}: {said}");
        lines[0].to_owned()
    }

    /// Checks the store, thoroughly.
    pub fn is_sound(&self) {
        let said = self.ok(&["system", "check", "--deep"]);
        assert!(said.contains("all is well"), "{said}");
        assert_eq!(
            std::fs::read_dir(self.root().join("tmp")).unwrap().count(),
            0
        );
    }

    pub fn mount(&self, container: &str) -> PathBuf {
        PathBuf::from(self.ok(&["container", "mount", container]).trim_end())
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines().rev() {
            let Some(place) = line.split(' ').nth(4) else {
                continue;
            };
            if Path::new(place).starts_with(self.dir.path()) {
                // The daemon ends with its mount.
                let _detached = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

/// Whether a program is installed; tests that compare with it are shorter without.
pub fn have(program: &str) -> bool {
    let found = Command::new("which")
        .arg(program)
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("skipped in part: no {program}");
    }
    found
}

/// Everything about a tree, a line for each entry; two trees are the same when their surveys are.
pub fn survey(tree: &Path) -> Vec<String> {
    const SURVEY: &str = r#"
import hashlib, os, stat, sys
root = os.fsencode(sys.argv[1])
lines, names = [], {}
def one(path, shown):
    s = os.lstat(path)
    x = []
    for n in sorted(os.listxattr(path, follow_symlinks=False)):
        x.append((n, os.getxattr(path, n, follow_symlinks=False).hex()))
    what = ''
    if stat.S_ISREG(s.st_mode):
        what = hashlib.sha256(open(path, 'rb').read()).hexdigest()[:16]
    elif stat.S_ISLNK(s.st_mode):
        what = repr(os.readlink(path))
    elif stat.S_ISCHR(s.st_mode) or stat.S_ISBLK(s.st_mode):
        what = hex(s.st_rdev)
    isdir = stat.S_ISDIR(s.st_mode)
    same = '' if isdir else names.setdefault(s.st_ino, shown)
    lines.append(repr((shown, oct(s.st_mode), s.st_uid, s.st_gid, 0 if isdir else s.st_size,
        s.st_mtime_ns, same, 0 if isdir else s.st_nlink, x, what)))
def walk(path, shown):
    for name in sorted(os.listdir(path)):
        p, q = path + b'/' + name, shown + b'/' + name
        one(p, q)
        if stat.S_ISDIR(os.lstat(p).st_mode): walk(p, q)
walk(root, b'')
print('\n'.join(lines))
"#;
    let output = support::programs::program("python3")
        .args(["-c", SURVEY])
        .arg(tree)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A survey without what podman does otherwise: kernel overlayfs shows the link counts of the
/// layer, whatever the layers above hide, and podman stores a time before 1970 as 1970.
pub fn as_podman(survey: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for line in survey.iter().filter(|line| !line.contains("b'/etc/old'")) {
        let fields: Vec<&str> = line.split(", ").collect();
        let kept = fields.iter().enumerate().filter(|(n, _)| *n != 7);
        let kept: Vec<&str> = kept.map(|(_, field)| *field).collect();
        lines.push(kept.join(", "));
    }
    lines
}

/// Panics with the first lines that differ.
pub fn assert_same(one: &[String], other: &[String], what: &str) {
    for (left, right) in one.iter().zip(other) {
        assert_eq!(left, right, "{what}");
    }
    assert_eq!(
        one.len(),
        other.len(),
        "{what}: {:?} {:?}",
        one.last(),
        other.last()
    );
}
