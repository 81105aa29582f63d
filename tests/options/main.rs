//! Options do what they say, on a real mount.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;

use support::{Mount, Stack, binary, names, read, shell};

/// What the suite's transport adds to a list of options.
fn transport_option() -> String {
    support::transport::chosen().map_or_else(String::new, |option| format!(",{option}"))
}

fn line_of(at: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let at = at.to_str().unwrap();
    mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some(at))
        .unwrap()
        .to_owned()
}

#[test]
fn ids_are_mapped_in_both_directions() {
    support::need_fuse!();
    let stack = Stack::new(1)
        .option("uidmapping=:0:100000:1000")
        .option("gidmapping=0:100000:1000:5000:7:1");
    let f = stack.file(0, "f", "");
    chown(&f, Some(5), Some(6)).unwrap();
    let g = stack.file(0, "g", "");
    chown(&g, Some(2000), Some(5000)).unwrap();
    shell(stack.lower(0), "setfacl -m u:9:r f");
    stack.twice(
        |at| {
            fs::write(at.join("f"), "copied up").unwrap();
            chown(at.join("g"), Some(100_007), None).unwrap();
            shell(
                at,
                "setpriv --reuid=100001 --regid=100002 --clear-groups --inh-caps=-all \
                 bash -c 'cat f >/dev/null'",
            );
        },
        |at| {
            let (f, g) = (
                fs::metadata(at.join("f")).unwrap(),
                fs::metadata(at.join("g")).unwrap(),
            );
            assert_eq!((f.uid(), f.gid()), (100_005, 100_006));
            assert_eq!((g.uid(), g.gid()), (100_007, 7));
            shell(at, "getfacl -cn f | grep -q user:100009:r");
        },
    );
    let stored = fs::metadata(stack.upper().join("f")).unwrap();
    assert_eq!((stored.uid(), stored.gid()), (5, 6));
    assert_eq!(fs::metadata(stack.upper().join("g")).unwrap().uid(), 7);
}

#[test]
fn an_owner_without_a_place_on_the_disk_is_stored_as_the_overflow_id() {
    support::need_fuse!();
    const NOBODY: u32 = 65534;
    // The mapping of a container, of which root is no part who works in its tree.
    let map = ":0:100000:65536";
    let stack = Stack::new(1).option(&format!("uidmapping={map},gidmapping={map}"));
    let g = stack.file(0, "given", "");
    chown(&g, Some(7), Some(7)).unwrap();
    stack.file(0, "renamed", "");
    let setgid = stack.directory(0, "setgid");
    chown(&setgid, Some(0), Some(9)).unwrap();
    fs::set_permissions(&setgid, PermissionsExt::from_mode(0o2775)).unwrap();
    let made = ["file", "dir", "link", "fifo", "device", "unnamed", "hard"];
    stack.twice(
        |at| {
            fs::write(at.join("file"), "content").unwrap();
            fs::create_dir(at.join("dir")).unwrap();
            symlink("/proc/mounts", at.join("link")).unwrap();
            shell(at, "mkfifo fifo; mknod device c 1 3; ln file hard");
            fs::write(at.join("setgid/f"), "").unwrap();
            fs::write(at.join("dir/f"), "").unwrap();
            unnamed(at, "unnamed");
            let whiteout = RenameFlags::WHITEOUT;
            renameat_with(CWD, at.join("renamed"), CWD, at.join("moved"), whiteout).unwrap();
            let device = fs::symlink_metadata(at.join("renamed")).unwrap();
            assert!(device.file_type().is_char_device());
            assert_eq!(
                (device.uid(), device.gid()),
                (100_000 + NOBODY, 100_000 + NOBODY)
            );
            // Given away: to a user who has no place there either, and to one who has one.
            chown(at.join("given"), Some(3), Some(4)).unwrap();
            for name in made {
                let meta = fs::symlink_metadata(at.join(name)).unwrap();
                let nobody = 100_000 + NOBODY;
                assert_eq!((meta.uid(), meta.gid()), (nobody, nobody), "{name}");
            }
            for name in made {
                let path = at.join(name);
                lchown(&path, Some(100_000), Some(100_001)).unwrap();
            }
            // A right is given to no user but those that were named.
            let refused = shell_error(at, "setfacl -m u:3:rwx file");
            assert!(refused.contains("Invalid argument"), "{refused}");
        },
        |at| {
            for name in made {
                let meta = fs::symlink_metadata(at.join(name)).unwrap();
                assert_eq!((meta.uid(), meta.gid()), (100_000, 100_001), "{name}");
            }
            let owner = |name| {
                let meta = fs::symlink_metadata(at.join(name)).unwrap();
                (meta.uid() - 100_000, meta.gid() - 100_000)
            };
            assert_eq!(owner("given"), (NOBODY, NOBODY));
            assert_eq!(owner("setgid/f"), (NOBODY, 9));
            assert_eq!(owner("dir/f"), (NOBODY, NOBODY));
            assert_eq!(read(at.join("file")), "content");
        },
    );
    let stored = |name| {
        let meta = fs::symlink_metadata(stack.upper().join(name)).unwrap();
        (meta.uid(), meta.gid())
    };
    for name in made {
        assert_eq!(stored(name), (0, 1), "{name}");
    }
    assert_eq!(stored("given"), (NOBODY, NOBODY));
    assert_eq!(stored("setgid/f"), (NOBODY, 9));
}

/// Makes a file without a name and gives it one, where the disk and the transport have such files;
/// else a plain one.
fn unnamed(at: &Path, name: &str) {
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    match rustix::fs::open(at, flags, Mode::from_raw_mode(0o644)) {
        Ok(fd) => {
            let from = format!("/proc/self/fd/{}", fd.as_raw_fd());
            linkat(CWD, from, CWD, at.join(name), AtFlags::SYMLINK_FOLLOW).unwrap();
        }
        Err(errno) => {
            assert_eq!(errno, Errno::OPNOTSUPP);
            fs::write(at.join(name), "").unwrap();
        }
    }
}

/// What a command says that fails.
fn shell_error(dir: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{script}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn squash_shows_and_stores_one_owner() {
    support::need_fuse!();
    let stack = Stack::new(1).option("squash_to_uid=1234,squash_to_gid=77");
    chown(stack.file(0, "f", ""), Some(5), Some(6)).unwrap();
    stack.twice(
        |at| fs::write(at.join("new"), "").unwrap(),
        |at| {
            for name in ["f", "new"] {
                let meta = fs::metadata(at.join(name)).unwrap();
                assert_eq!((meta.uid(), meta.gid()), (1234, 77), "{name}");
            }
        },
    );
    let stored = fs::metadata(stack.upper().join("new")).unwrap();
    assert_eq!((stored.uid(), stored.gid()), (1234, 77));
}

#[test]
fn whiteouts_of_kernel_overlayfs_can_be_mounted_by_it() {
    support::need_fuse!();
    let stack = Stack::new(1).option("whiteout=char");
    stack.file(0, "gone", "x");
    stack.file(0, "d/old", "x");
    stack.file(0, "kept", "kept");
    let check = |at: &Path| {
        assert_eq!(names(at), [".wh.ordinary", "d", "kept"]);
        assert_eq!(names(at.join("d")), [""; 0]);
    };
    stack.twice(
        |at| {
            shell(at, "rm gone; rm -r d; mkdir d; touch .wh.ordinary");
        },
        check,
    );
    let device = fs::symlink_metadata(stack.upper().join("gone")).unwrap();
    assert!(device.file_type().is_char_device() && device.rdev() == 0);
    let kernel = stack.mount_by_kernel("");
    check(&kernel.at);
    fs::remove_file(kernel.path("kept")).unwrap();
    drop(kernel);
    let stack = stack.option("whiteout=auto");
    let mount = stack.mount();
    assert_eq!(names(&mount.at), [".wh.ordinary", "d"]);
    mount.unmount();
}

#[test]
fn redirects_are_stored_as_kernel_overlayfs_stores_them() {
    support::need_fuse!();
    let stack = Stack::new(1).option("redirect_dir=on,whiteout=char");
    fs::write(stack.file(0, "d/large", ""), vec![1; 1 << 20]).unwrap();
    stack.file(0, "d/sub/deep", "deep");
    let check = |at: &Path| {
        assert_eq!(names(at), ["e"]);
        assert_eq!(names(at.join("e/f")), ["large", "moved"]);
        assert_eq!(read(at.join("e/f/moved/deep")), "deep");
    };
    stack.twice(
        |at| {
            shell(at, "mkdir e; mv d e/f; mv e/f/sub e/f/moved");
        },
        check,
    );
    assert!(
        !stack.upper().join("e/f/large").exists(),
        "it was copied up"
    );
    let kernel = stack.mount_by_kernel(",redirect_dir=on");
    check(&kernel.at);
    drop(kernel);
}

#[test]
fn acls_and_xattrs_can_be_switched_off() {
    support::need_fuse!();
    let stack = Stack::new(1).option("noacl");
    stack.file(0, "f", "");
    shell(
        stack.lower(0),
        "setfacl -m u:9:r f; setfattr -n user.x -v 1 f",
    );
    let mount = stack.mount();
    shell(
        &mount.at,
        "! setfacl -m u:8:r f 2>/dev/null; getfattr -d f | grep -q user.x
         ! getfacl -cn f | grep -q user:9",
    );
    mount.unmount();
    let mut stack = stack;
    stack.options = vec!["noxattrs".into()];
    let mount = stack.mount();
    shell(
        &mount.at,
        "! setfattr -n user.y -v 1 f 2>/dev/null; test -z \"$(getfattr -d f 2>/dev/null)\"; echo x > f",
    );
    mount.unmount();
}

#[test]
fn edits_of_a_lower_directory_are_seen_within_a_second() {
    support::need_fuse!();
    let stack = Stack::new(2).option("cache=auto");
    stack.file(1, "d/old", "old");
    stack.file(0, "d/top", "top");
    let mount = stack.mount();
    assert_eq!(names(mount.path("d")), ["old", "top"]);
    assert_eq!(read(mount.path("d/old")), "old");
    assert!(!mount.path("d/new").exists());
    fs::write(stack.lower(1).join("d/old"), "edited in place").unwrap();
    fs::write(stack.lower(1).join("d/new"), "new").unwrap();
    fs::write(stack.lower(0).join("d/top.tmp"), "replaced").unwrap();
    fs::rename(
        stack.lower(0).join("d/top.tmp"),
        stack.lower(0).join("d/top"),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    assert_eq!(names(mount.path("d")), ["new", "old", "top"]);
    assert_eq!(read(mount.path("d/old")), "edited in place");
    assert_eq!(read(mount.path("d/new")), "new");
    assert_eq!(read(mount.path("d/top")), "replaced");
    fs::write(mount.path("d/mine"), "written through").unwrap();
    assert_eq!(read(mount.path("d/mine")), "written through");
    mount.unmount();
}

/// Of what the upper has, as the disk below is mounted (`relatime`, usually); looking at a layer,
/// or into a directory, changes nothing.
#[test]
fn access_times_follow_the_options() {
    support::need_fuse!();
    for (option, written) in [
        ("relatime", "read"),
        ("atime,nodiratime", "read"),
        ("noatime", "long ago"),
    ] {
        let stack = Stack::new(1).option(option);
        stack.file(0, "lower", "lower");
        stack.file(0, "d/changed", "lower");
        let names = "lower new d/changed d made";
        let age = format!("touch -a -d @1000 {names}");
        // The layer's own, on a disk that may write access times.
        shell(stack.lower(0), "touch -a -d @1000 lower d");
        let mount = stack.mount();
        shell(
            &mount.at,
            "echo new >new; mkdir made; echo changed >d/changed; touch -a -d @1000 new made d/changed",
        );
        let look = "cat lower new d/changed >/dev/null; ls d made >/dev/null";
        let times = |what: &str| {
            let text = shell(stack.merged(), &format!("{what}; stat -c '%n %X' {names}"));
            let spell = |line: &str| {
                let (name, time) = line.split_once(' ').unwrap();
                let age = if time == "1000" { "long ago" } else { "read" };
                format!("{name}: {age}")
            };
            text.lines().map(spell).collect::<Vec<_>>().join(", ")
        };
        let expected = format!(
            "lower: long ago, new: {written}, d/changed: {written}, d: long ago, made: long ago"
        );
        assert_eq!(times(look), expected, "{option}");
        shell(stack.merged(), &age);
        mount.unmount();
        let lower = fs::metadata(stack.lower(0).join("lower")).unwrap();
        assert_eq!(lower.atime(), 1000);
        let mount = stack.mount();
        assert_eq!(times(look), expected, "{option}, remounted");
        mount.unmount();
    }
}

#[test]
fn an_upper_without_xattrs_is_refused_unless_they_are_not_wanted() {
    support::need_fuse!();
    let mut stack = Stack::new(1);
    stack.file(0, "f", "f");
    let disk = stack.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    shell(
        &disk,
        "mount -t ramfs none \"$PWD\"; cd \"$PWD\"; mkdir upper work",
    );
    let ramfs = Mount::found(disk.clone());
    stack.without_directories = true;
    stack.options = vec![format!(
        "upperdir={0}/upper,workdir={0}/work",
        disk.display()
    )];
    let refused = stack.try_mount();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(message.contains("noxattrs"), "{message}");
    assert_eq!(message.trim_end().lines().count(), 1);
    stack.options.push("noxattrs".into());
    for _ in 0..2 {
        let mount = stack.mount();
        fs::write(mount.path("f"), "changed").unwrap();
        assert_eq!(read(mount.path("f")), "changed");
        mount.unmount();
    }
    drop(ramfs);
}

#[test]
fn threads_are_as_many_as_asked_for() {
    support::need_fuse!();
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let online = cpus(online.trim());
    for transport in support::transport::transports() {
        let stack = Stack::new(1)
            .option("threads=5")
            .option(&format!("transport={transport}"));
        let mount = stack.mount();
        names(&mount.at);
        // A thread has its maker's name until it gives itself its own.
        let wanted = Instant::now() + Duration::from_secs(5);
        let names_are_right = |threads: &[String]| {
            let named = |name: &str| threads.iter().filter(|thread| *thread == name).count();
            match transport {
                "fuser" => {
                    let fuser = threads.iter().filter(|name| name.starts_with("fuser-"));
                    fuser.count() == 5
                }
                "dev" => named("unionmount-dev") == 5,
                _ => {
                    let each = |cpu: &usize| named(&format!("unionmount-{cpu}")) == 5;
                    online.iter().all(each) && named("unionmount-dev") == 1
                }
            }
        };
        loop {
            let mut threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", mount.pid.unwrap()))
                .unwrap()
                .map(|task| read(task.unwrap().path().join("comm")).trim().to_owned())
                .collect();
            threads.sort();
            if names_are_right(&threads) {
                break;
            }
            assert!(Instant::now() < wanted, "{transport}: {threads:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        mount.unmount();
    }
}

/// The numbers in a list such as `0-2,5`.
fn cpus(list: &str) -> Vec<usize> {
    list.split(',')
        .flat_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            first.parse().unwrap()..=last.parse().unwrap()
        })
        .collect()
}

#[test]
fn volatile_syncs_nothing() {
    support::need_fuse!();
    for (option, syncs) in [("volatile", false), ("writeback=1", true)] {
        let stack = Stack::new(1).option(option);
        stack.file(0, "f", "f");
        let mount = stack.mount();
        let trace = stack.dir.path().join("trace");
        let mut strace = support::programs::program("strace")
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o"])
            .arg(&trace)
            .args(["-p", &mount.pid.unwrap().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(400));
        shell(
            &mount.at,
            "echo x >> f; python3 -c \"import os; f = open('f', 'a'); f.write('y'); f.flush(); os.fsync(f.fileno())\"",
        );
        std::thread::sleep(Duration::from_millis(200));
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&strace),
            rustix::process::Signal::INT,
        )
        .unwrap();
        strace.wait().unwrap();
        let calls = read(&trace).lines().filter(|l| l.contains("sync")).count();
        assert_eq!(calls > 0, syncs, "{option}: {}", read(&trace));
        mount.unmount();
    }
}

#[test]
fn the_mount_table_shows_what_was_asked_for() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "f", "f");
    let at = stack.merged();
    let transport = transport_option();
    let data = format!(
        "lowerdir={},upperdir={},workdir={},,noexec,dev,volatile,no_such_option,{transport}",
        stack.lower(0).display(),
        stack.upper().display(),
        stack.work().display()
    );
    let output = Command::new(binary())
        .args(["-o", &data, "the-source"])
        .arg(&at)
        .output()
        .unwrap();
    assert!(output.status.success());
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(warning.contains("no_such_option"), "{warning}");
    let mount = Mount::found(at.clone());
    let line = line_of(&at);
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!((fields[0], fields[2]), ("the-source", "fuse.unionmount"));
    let options: Vec<_> = fields[3].split(',').collect();
    for option in ["rw", "noexec", "default_permissions", "allow_other"] {
        assert!(options.contains(&option), "{option}: {line}");
    }
    assert!(!options.contains(&"nodev") && !options.contains(&"nosuid"));
    mount.unmount();
    // Under the other name, without an upper.
    let other = stack.dir.path().join("fuse-overlayfs");
    std::os::unix::fs::symlink(binary(), &other).unwrap();
    let data = format!("lowerdir={}{transport}", stack.lower(0).display());
    let status = Command::new(&other)
        .args(["-o", &data])
        .arg(&at)
        .status()
        .unwrap();
    assert!(status.success());
    let mount = Mount::found(at);
    let line = line_of(&mount.at);
    assert!(line.contains(" fuse.fuse-overlayfs ro,"), "{line}");
    assert_eq!(read(mount.path("f")), "f");
    mount.unmount();
}

#[test]
fn a_union_can_be_a_layer_of_another() {
    support::need_fuse!();
    let below = Stack::new(2);
    below.file(1, "d/a", "a");
    below.file(0, "d/b", "b");
    let inner = below.mount_read_only("inner");
    let mut above = Stack::new(1);
    above.lowers[0] = inner.at.clone();
    above.twice(
        |at| {
            shell(at, "echo x >> d/a; rm d/b; mv d e");
        },
        |at| {
            assert_eq!(names(at.join("e")), ["a"]);
            assert_eq!(read(at.join("e/a")), "ax\n");
        },
    );
    inner.unmount();
}

#[test]
fn another_overlay_can_use_a_directory_of_the_mount_as_its_upper() {
    support::need_fuse!();
    let below = Stack::new(1);
    fs::create_dir(below.lower(0).join("lower")).unwrap();
    fs::write(below.lower(0).join("lower/a"), "a").unwrap();
    fs::write(below.lower(0).join("lower/b"), "b").unwrap();
    for dir in ["upper", "work", "merged"] {
        fs::create_dir(below.lower(0).join(dir)).unwrap();
    }
    below.twice(
        |_| {},
        |at| {
            let inner = at.join("merged");
            let data = format!(
                "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work,whiteout=char{1}",
                at.display(),
                transport_option()
            );
            let output = Command::new(binary())
                .args(["-o", &data])
                .arg(&inner)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let mount = Mount::found(inner.clone());
            if inner.join("a").exists() {
                fs::rename(inner.join("a"), inner.join("c")).unwrap();
            }
            assert_eq!(names(&inner), ["b", "c"]);
            mount.unmount();
            let device = fs::symlink_metadata(at.join("upper/a")).unwrap();
            assert!(device.file_type().is_char_device() && device.rdev() == 0);
        },
    );
}
