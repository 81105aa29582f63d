//! Volumes and bind mounts through mounts: shared by two of them and with the host, at the same
//! time.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use support::{Mount, Stack, binary, shell};

/// A stack that shows the directory `vol` at `/data`.
fn stack_with_volume() -> Stack {
    let stack = Stack::new(1);
    stack.file(0, "static", "old");
    let vol = stack.dir.path().join("vol");
    fs::create_dir(&vol).unwrap();
    fs::write(vol.join("f"), "one").unwrap();
    let option = format!("volume={}:/data", vol.display());
    stack.option(&option)
}

/// A second mount, with directories of its own, of the same volume.
fn second_mount(stack: &Stack, options: &[&str]) -> Mount {
    let base = stack.dir.path();
    for dir in ["upper2", "work2", "merged2"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    let mut command = Command::new(binary());
    command.arg("mount").arg("--lower").arg(stack.lower(0));
    command.arg("--upper").arg(base.join("upper2"));
    command.arg("--work").arg(base.join("work2"));
    command.arg("--volume");
    command.arg(format!("{}:/srv/data", base.join("vol").display()));
    command.args(options).arg(base.join("merged2"));
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Mount::found(base.join("merged2"))
}

#[test]
fn two_mounts_and_the_host_see_the_same_at_once() {
    support::need_fuse!();
    let stack = stack_with_volume();
    let one = stack.mount();
    let two = second_mount(&stack, &[]);
    let host = stack.dir.path().join("vol");
    let places = [one.path("data"), two.path("srv/data"), host.clone()];
    for (number, from) in places.iter().enumerate() {
        for to in &places {
            let name = format!("new{number}");
            assert!(!to.join(&name).exists());
        }
        // Made, seen, listed.
        fs::write(from.join(format!("new{number}")), "x").unwrap();
        for to in &places {
            assert_eq!(fs::read(to.join(format!("new{number}"))).unwrap(), b"x");
            let names = shell(to, "ls");
            assert!(names.contains(&format!("new{number}")), "{names}");
        }
        // Replaced as editors do, with a file of the same length.
        for (text, to) in places.iter().enumerate() {
            let text = format!("{number}{text}");
            fs::write(from.join("tmp"), &text).unwrap();
            fs::rename(from.join("tmp"), from.join("f")).unwrap();
            assert_eq!(fs::read_to_string(to.join("f")).unwrap(), text);
        }
        // Written in place: cached pages are not believed when the file is opened anew.
        for to in &places {
            let file = OpenOptions::new().write(true).open(from.join("f")).unwrap();
            for round in 0..3 {
                let text = format!("{number}{round}");
                file.write_all_at(text.as_bytes(), 0).unwrap();
                assert_eq!(fs::read_to_string(to.join("f")).unwrap(), text);
            }
        }
        for to in &places {
            fs::create_dir(from.join("d")).unwrap();
            fs::remove_dir(to.join("d")).unwrap();
            assert!(!from.join("d").exists());
            fs::write(to.join(".wh.mine"), "x").unwrap();
            fs::remove_file(from.join(".wh.mine")).unwrap();
        }
    }
    // One that is open for reading sees what is appended, within the lifetime of attributes.
    let mut tail = File::open(one.path("data/f")).unwrap();
    let mut text = String::new();
    tail.read_to_string(&mut text).unwrap();
    OpenOptions::new()
        .append(true)
        .open(two.path("srv/data/f"))
        .unwrap()
        .write_all(b"more")
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(60));
    text.clear();
    tail.read_to_string(&mut text).unwrap();
    assert_eq!(text, "more");
    // Removed by another, and used on.
    fs::remove_file(host.join("f")).unwrap();
    tail.rewind().unwrap();
    text.clear();
    tail.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("more"), "{text}");
    assert!(!one.path("data/f").exists());
    // Nothing of all that in the uppers.
    assert_eq!(shell(stack.upper(), "find . -mindepth 1"), "./data\n");
}

/// As two bind mounts of one directory: who copies or moves a file onto itself is told so, and
/// loses nothing.
#[test]
fn one_volume_at_two_places_has_each_file_once() {
    support::need_fuse!();
    let stack = stack_with_volume();
    let vol = stack.dir.path().join("vol");
    fs::create_dir(vol.join("sub")).unwrap();
    fs::write(vol.join("sub/g"), "two").unwrap();
    let again = format!("volume={}:/again", vol.display());
    let sub = format!("volume={}:/sub", vol.join("sub").display());
    let stack = stack.option(&again).option(&sub);
    let mount = stack.mount();
    let told = shell(
        &mount.at,
        "for pair in 'data/f again/f' 'data/sub/g sub/g' 'again/sub/g sub/g'; do
            for command in cp mv; do ! $command $pair 2>&1; done | grep -c 'are the same file'
            stat -c %i $pair | uniq | wc -l
        done; test data -ef again; test data/sub -ef sub; ! test data/f -ef data/sub/g; cat data/f sub/g",
    );
    assert_eq!(told, "2\n1\n".repeat(3) + "onetwo");
    mount.unmount();
}

#[test]
fn everything_works_in_a_volume_that_works_on_its_disk() {
    support::need_fuse!();
    let stack = stack_with_volume();
    let mount = stack.mount();
    let data = mount.path("data");
    shell(
        &data,
        r"
umask 022
echo a > append; echo b >> append; [ $(cat append) = 'a
b' ] 2>/dev/null || [ $(wc -l < append) = 2 ]
truncate -s 1M sparse; fallocate -p -o 4096 -l 8192 append 2>/dev/null || true
mkfifo p; mknod null c 1 3; mknod zero c 0 0; ln append hard; ln -s append soft
[ $(stat -c %h append) = 2 ]; [ $(readlink soft) = append ]
mkdir g; chgrp 50 g; chmod 2775 g; touch g/x; [ $(stat -c %g g/x) = 50 ]
setfacl -m u:33:rwx,d:u:33:rwx g; touch g/y; getfacl -n g/y | grep -q user:33
setfattr -n user.x -v y append; getfattr -n user.x hard | grep -q y
setpriv --reuid 33 --regid 33 --clear-groups touch g/theirs; [ $(stat -c %u:%g g/theirs) = 33:50 ]
cp /bin/true s; chmod 4755 s; echo >> s; [ $(stat -c %a s) = 4755 ]; chown 5 s; [ $(stat -c %a s) = 755 ]
flock append true; mv g g2; mv -T g2 g; sync append; dd if=/dev/zero of=direct bs=4096 count=2 oflag=direct 2>/dev/null
python3 - <<'END'
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
with open('map', 'w+b') as f:
    f.write(b'x' * 8192); f.flush()
    m = mmap.mmap(f.fileno(), 8192); m[4096:4101] = b'hello'; m.flush(); m.close()
assert open('map', 'rb').read()[4096:4101] == b'hello'
def rename(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), a)
open('a', 'w').write('a'); os.mkdir('b')
rename('a', 'b', 2); assert os.path.isdir('a') and open('b').read() == 'a'
try: rename('a', 'b', 1); raise SystemExit('replaced')
except FileExistsError: pass
rename('b', 'c', 4); import stat; st = os.stat('b'); assert stat.S_ISCHR(st.st_mode) and st.st_rdev == 0
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(fd, b'tmp'); assert libc.linkat(-100, f'/proc/self/fd/{fd}'.encode(), -100, b'named', 0x400) == 0; assert open('named').read() == 'tmp'
for far in ['../static']:
    for call in (lambda: os.rename('c', '../c'), lambda: os.link(far, 'far'), lambda: os.rename(far, 'far')):
        try: call(); raise SystemExit('crossed')
        except OSError as e: assert e.errno == 18, e
for call in (lambda: os.rmdir('../data'), lambda: os.rename('../data', '../x')):
    try: call(); raise SystemExit('moved')
    except OSError as e: assert e.errno == 16, e
END
rm -rf *
",
    );
    // A volume on another disk says how full that one is.
    let other = Stack::new(1);
    shell(
        other.dir.path(),
        "mkdir vol; mount -t tmpfs -o size=5M tmpfs vol",
    );
    let option = format!("volume={}:/data:ro", other.dir.path().join("vol").display());
    let other = other.option(&option);
    let mount = other.mount();
    assert_ne!(mount.path("data").metadata().unwrap().ino(), 0);
    let shown = shell(
        &mount.at,
        "stat -f -c %b data; touch x; if touch data/x 2>/dev/null; then exit 1; fi",
    );
    mount.unmount();
    shell(other.dir.path(), "umount vol");
    assert_eq!(shown, "1280\n");
}

/// What is not shared stays as it was: no message for opening, reading and listing what is cached.
#[test]
fn what_is_no_volume_is_cached_beside_volumes() {
    support::need_fuse!();
    let stack = stack_with_volume();
    stack.file(0, "dir/f", "static");
    let mount = stack.mount();
    let _remembered = support::caches::remembered();
    let script = "cat dir/f > /dev/null; ls dir > /dev/null; stat dir/f > /dev/null";
    shell(&mount.at, script);
    let before = mount.status("voluntary_ctxt_switches:");
    for _ in 0..5 {
        shell(&mount.at, script);
    }
    let quiet = mount.status("voluntary_ctxt_switches:") - before;
    assert!(quiet < 20, "{quiet} switches for cached files");
}

#[test]
fn a_volume_that_contains_the_mountpoint_is_refused() {
    support::need_fuse!();
    let stack = Stack::new(1);
    for (source, expected) in [
        (stack.dir.path().to_path_buf(), "is inside volume"),
        (stack.upper(), "is in the upper directory"),
    ] {
        let output = Command::new(binary())
            .arg("mount")
            .arg("--lower")
            .arg(stack.lower(0))
            .arg("--upper")
            .arg(stack.upper())
            .arg("--work")
            .arg(stack.work())
            .arg("--volume")
            .arg(format!("{}:/x", source.display()))
            .arg(stack.merged())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn appending_never_overwrites_what_the_host_appended() {
    support::need_fuse!();
    let stack = stack_with_volume();
    let mount = stack.mount();
    let host = stack.dir.path().join("vol/f");
    let append = |path: &std::path::Path| OpenOptions::new().append(true).open(path).unwrap();
    let (mut inside, mut outside) = (append(&mount.path("data/f")), append(&host));
    for _ in 0..3 {
        inside.write_all(b"-in").unwrap();
        outside.write_all(b"-host").unwrap();
    }
    assert_eq!(
        fs::read_to_string(&host).unwrap(),
        "one-in-host-in-host-in-host"
    );
}

/// Changes a file in one way, over and over, until its standard input ends.
const CHANGING: &str = r"
import os, select, sys
kind, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
change = {
    'write': lambda: os.pwrite(fd, b'y', 0),
    'truncate': lambda: os.ftruncate(fd, 50),
    'chown': lambda: os.chown(path, 1000, -1),
}[kind]
done = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        change()
        done += 1
    except PermissionError:
        pass
print(done)
";

#[test]
fn a_mode_that_the_host_sets_is_not_undone_by_a_write() {
    support::need_fuse!();
    let stack = stack_with_volume();
    let mount = stack.mount();
    let host = stack.dir.path().join("vol");
    let set = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for kind in ["write", "truncate", "chown"] {
        let path = host.join(kind);
        fs::write(&path, [b'x'; 100]).unwrap();
        std::os::unix::fs::chown(&path, Some(1000), Some(5000)).unwrap();
        let mut child = support::programs::program("setpriv")
            .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
            .args(["/usr/bin/python3", "-c", CHANGING, kind])
            .arg(mount.path("data").join(kind))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_millis(1500);
        let mut lost = Vec::new();
        while std::time::Instant::now() < end {
            set(&path, 0o2666);
            for mode in [0o2662, 0o622, 0o660] {
                set(&path, mode);
                for _ in 0..3 {
                    let now = fs::metadata(&path).unwrap().mode() & 0o777;
                    if now != mode & 0o777 {
                        lost.push(format!("{mode:o} became {now:o}"));
                    }
                }
            }
        }
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        let done = String::from_utf8_lossy(&output.stdout);
        assert!(
            done.trim().parse::<u64>().is_ok_and(|done| done > 0),
            "{kind}: {done}"
        );
        assert!(lost.is_empty(), "{kind}: {} times: {}", lost.len(), lost[0]);
    }
}

#[test]
fn setuid_and_setgid_go_in_a_volume_as_on_its_disk() {
    support::need_fuse!();
    let stack = stack_with_volume();
    let mount = stack.mount();
    let host = stack.dir.path().join("vol");
    let (path, dir) = (host.join("setid"), host.join("setid.d"));
    let outsider = "setpriv --reuid 1000 --regid 1000 --clear-groups";
    let member = "setpriv --reuid 1000 --regid 1000 --groups 5000";
    let owned = |path: &std::path::Path, group, mode| {
        std::os::unix::fs::chown(path, Some(1000), Some(group)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (who, call, group, before, after) in [
        (outsider, "echo x >> setid", 5000, 0o2666, 0o666),
        (outsider, "truncate -s 5 setid", 5000, 0o2666, 0o666),
        (outsider, "fallocate -l 99 setid", 5000, 0o2666, 0o666),
        (outsider, "chown 1000 setid", 5000, 0o2666, 0o666),
        (outsider, "echo x >> setid", 5000, 0o6777, 0o777),
        (outsider, "echo x >> setid", 5000, 0o4666, 0o666),
        // The daemon's own group.
        (outsider, "echo x >> setid", 0, 0o2666, 0o666),
        (outsider, "setfacl -m u:5:rw setid", 5000, 0o2666, 0o666),
        (outsider, "setfacl -m u:5:rw setid", 0, 0o6666, 0o4666),
        (member, "echo x >> setid", 5000, 0o2666, 0o2666),
        (member, "echo x >> setid", 5000, 0o6777, 0o777),
        (member, "setfacl -m u:5:rw setid", 5000, 0o2666, 0o2666),
        ("", "echo x >> setid", 5000, 0o6777, 0o6777),
    ] {
        fs::write(&path, "content").unwrap();
        owned(&path, group, before);
        shell(mount.path("data"), &format!("{who} sh -c '{call}'"));
        let left = fs::metadata(&path).unwrap().mode() & 0o7777;
        assert_eq!(left, after, "{who} {call}: {before:o}");
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir(&dir).unwrap();
    owned(&dir, 5000, 0o2777);
    shell(
        mount.path("data"),
        &format!("{outsider} setfacl -m u:5:rw setid.d"),
    );
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o2000, 0);
}
