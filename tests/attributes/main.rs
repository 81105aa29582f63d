//! What stat(2) says from the kernel's cache is what the mount says when it is asked, after
//! everything that can be done.
//!
//! Most of what changes attributes the kernel sees: it passes by there. But a copy-up gives each
//! directory on the way another ctime, a renamed directory brings up all below it, an ioctl(2)
//! changes what it likes: of that the kernel must be told, else attributes change by being looked
//! at ("file changed as we read it").

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use support::transport::{own_transports, transports};
use support::{Stack, shell};

/// Without the time of birth, which the kernel does not cache: it would ask for all.
fn try_statx(path: &Path, flags: AtFlags) -> rustix::io::Result<Statx> {
    let flags = flags | AtFlags::SYMLINK_NOFOLLOW;
    statx(CWD, path, flags, StatxFlags::BASIC_STATS)
}

/// What is compared: all of stat(2) but the access time.
fn attributes(path: &Path, flags: AtFlags) -> String {
    let stat = try_statx(path, flags).unwrap();
    let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
    format!(
        "ino {} mode {:o} nlink {} owner {}:{} size {} blocks {} mtime {:?} ctime {:?}",
        stat.stx_ino,
        stat.stx_mode,
        stat.stx_nlink,
        stat.stx_uid,
        stat.stx_gid,
        stat.stx_size,
        stat.stx_blocks,
        time(stat.stx_mtime),
        time(stat.stx_ctime)
    )
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    found.push(dir.to_owned());
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Lets the kernel cache the attributes of everything; gives what there is.
fn look_at_all(at: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    below(at, &mut paths);
    for path in &paths {
        attributes(path, AtFlags::empty());
    }
    paths
}

/// Compares what the kernel believes with what it is told when it asks. `paths` are those from
/// before: to read a directory has the kernel ask anew.
fn compare(what: &str, at: &Path, paths: &[PathBuf]) {
    let is_there = |path: &&PathBuf| try_statx(path, AtFlags::empty()).is_ok();
    let mut all: Vec<PathBuf> = paths.iter().filter(is_there).cloned().collect();
    for _ in ["what was there before", "what is there now"] {
        for path in all.drain(..).as_slice() {
            let believed = attributes(path, AtFlags::empty());
            let asked = attributes(path, AtFlags::STATX_FORCE_SYNC);
            assert_eq!(believed, asked, "{what}: {}", path.display());
        }
        below(at, &mut all);
    }
}

/// Layers with something for each step.
fn layers(stack: &Stack) {
    shell(
        stack.lower(0),
        "mkdir -p a/b/c d/e x/y/z t/u/v w/p w/q r/s k l
         echo f > a/b/c/f; echo g > d/e/g; echo h > x/y/z/h; echo 1 > t/u/v/1; echo 2 > t/u/2
         echo n > w/p/n; ln w/p/n w/q/m; ln -s nowhere d/e/link; mkfifo d/e/pipe
         echo s > r/s/s; echo k > k/k; head -c 100000 /dev/urandom > l/data; echo top > top",
    );
    shell(
        stack.lower(1),
        "mkdir -p a/b t/u d/gone/inner; echo old > a/b/old; echo 3 > t/u/3; echo i > d/gone/inner/i",
    );
}

/// Steps that only need a shell; each is taken with all attributes in the kernel's cache.
const STEPS: &[&str] = &[
    "echo more >> a/b/c/f",
    "chmod 600 d/e/g",
    "chown -h 5:6 d/e/link",
    "chown 7 d/e/pipe",
    "setfattr -n user.x -v 1 x/y/z/h",
    "setfattr -x user.x x/y/z/h",
    "setfattr -n user.x -v 1 x/y",
    "setfacl -m u:77:rw a/b/c/f",
    "setfacl -d -m u:77:rwx x/y",
    "ln k/k r/s/linked",
    "echo more >> w/p/n",
    "rm w/q/m",
    "mv t/u/v/1 r/s/moved",
    "mv t/u r/u",
    "mv r/u t/u",
    "rm a/b/old",
    "rm -r d/gone",
    "mkdir d/gone",
    "mkdir -p k/new/deep/er; rmdir k/new/deep/er",
    "mv k/k l/k; mv l/k k/k",
    "truncate -s 50000 l/data",
    "fallocate -p -o 4096 -l 8192 l/data",
    "fallocate -l 200000 l/data",
    "touch -d '2001-02-03 04:05:06' l/data",
    "dd if=/dev/zero of=l/data bs=4096 count=1 conv=notrunc oflag=direct status=none",
    "mkfifo l/pipe; mknod l/device c 1 3; ln -s x l/link",
    "> top",
    "chmod 700 .",
];

/// Steps for which a shell has no commands.
const PYTHON: &str = r"
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def exchange(a, b):
    assert libc.renameat2(-100, a.encode(), -100, b.encode(), 2) == 0, ctypes.get_errno()
def mapped():
    fd = os.open('l/data', os.O_RDWR); m = mmap.mmap(fd, 4096); m[0:3] = b'new'; m.flush(); m.close(); os.close(fd)
def copied():
    a, b = os.open('l/data', os.O_RDONLY), os.open('r/s/s', os.O_RDWR)
    assert os.copy_file_range(a, b, 3000, 0, 0) == 3000; os.close(a); os.close(b)
def written():
    fd = os.open('r/s/s', os.O_WRONLY); os.pwrite(fd, b'x', 5000); os.close(fd)
def unnamed():
    try: fd = os.open('r/s', os.O_TMPFILE | os.O_RDWR)
    except OSError: return
    assert libc.linkat(-100, f'/proc/self/fd/{fd}'.encode(), -100, b'r/s/named', 0x400) == 0; os.close(fd)
{'exchange': lambda: exchange('w/p', 'top'), 'exchange back': lambda: exchange('w/p', 'top'), 'mapped': mapped,
 'copied': copied, 'written': written, 'unnamed': unnamed}[sys.argv[1]]()
";

fn each_step(stack: &Stack, what: &str) {
    layers(stack);
    let mount = stack.mount();
    let at = &mount.at;
    for step in STEPS {
        let paths = look_at_all(at);
        shell(at, step);
        compare(&format!("{what}: {step}"), at, &paths);
    }
    let script = stack.dir.path().join("step.py");
    std::fs::write(&script, PYTHON).unwrap();
    for step in [
        "exchange",
        "exchange back",
        "mapped",
        "copied",
        "written",
        "unnamed",
    ] {
        let paths = look_at_all(at);
        shell(at, &format!("python3 {} '{step}'", script.display()));
        compare(&format!("{what}: {step}"), at, &paths);
    }
    mount.unmount();
}

#[test]
fn cached_attributes_are_those_that_were_sent() {
    support::need_fuse!();
    for transport in transports() {
        let stack = Stack::new(2).option(&format!("transport={transport}"));
        each_step(&stack, transport);
    }
}

#[test]
fn attributes_are_the_same_in_every_form_of_upper() {
    support::need_fuse!();
    for options in ["redirect_dir=on", "whiteout=char", "xattr_permissions=2"] {
        let stack = Stack::new(2).option(options);
        each_step(&stack, options);
    }
}

/// The numbers of the requests and their argument are those of `linux/fs.h`.
const FLAGS: &str = r"
import fcntl, os, struct, sys
GETX, SETX, GET, SET = 0x801c581f, 0x401c5820, 0x80086601, 0x40086602
fd = os.open(sys.argv[2], os.O_RDONLY)
def value(request, size):
    b = bytearray(size); fcntl.ioctl(fd, request, b); return b
try: before = value(GETX, 28)
except OSError: print('none'); sys.exit()
if sys.argv[1] == 'extended':
    flags, = struct.unpack_from('I', before)
    struct.pack_into('I', before, 0, flags ^ 0x80)
    fcntl.ioctl(fd, SETX, bytes(before))
    assert struct.unpack_from('I', value(GETX, 28))[0] == flags ^ 0x80
else:
    flags, = struct.unpack_from('I', value(GET, 8))
    fcntl.ioctl(fd, SET, struct.pack('Q', flags ^ 0x40))
print('set')
";

#[test]
fn flags_change_the_ctime_of_what_they_are_set_on() {
    support::need_fuse!();
    for transport in own_transports() {
        let stack = Stack::new(2).option(&format!("transport={transport}"));
        layers(&stack);
        let script = stack.dir.path().join("flags.py");
        std::fs::write(&script, FLAGS).unwrap();
        let mount = stack.mount();
        shell(&mount.at, "echo new > new; mkdir newdir");
        for path in ["new", "newdir", "a/b/c/f", "a/b", "x", "."] {
            let path = mount.path(path);
            for way in ["plain", "extended", "plain", "extended"] {
                let paths = look_at_all(&mount.at);
                let before = attributes(&path, AtFlags::empty());
                let command = format!("python3 {} {way} {}", script.display(), path.display());
                if shell("/", &command).trim() == "none" {
                    eprintln!("skipped: this disk has no inode flags");
                    return;
                }
                let after = attributes(&path, AtFlags::empty());
                assert_ne!(before, after, "{transport}: {}, {way}", path.display());
                compare(&format!("{transport}: {way}"), &mount.at, &paths);
            }
        }
        mount.unmount();
    }
}

/// What this is for: tar, which compares what a directory says before and after it was read.
#[test]
fn tar_finds_nothing_changed_after_a_copy_up() {
    support::need_fuse!();
    for transport in transports() {
        for step in ["echo more >> a/b/c/f", "ln w/p/n w/p/o", "mv t/u r/u"] {
            let stack = Stack::new(2).option(&format!("transport={transport}"));
            layers(&stack);
            let mount = stack.mount();
            // Looked at by name: of a directory that was read the kernel has the listing as well,
            // and reads it no more.
            let mut paths = Vec::new();
            below(stack.lower(0), &mut paths);
            for path in paths {
                let path = mount.path(path.strip_prefix(stack.lower(0)).unwrap());
                attributes(&path, AtFlags::empty());
            }
            shell(&mount.at, step);
            let said = shell(
                &mount.at,
                "tar -cf /dev/null . 2>&1; echo \"ended with $?\"",
            );
            assert_eq!(said, "ended with 0\n", "{transport}: {step}");
            mount.unmount();
        }
    }
}
