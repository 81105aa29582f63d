//! Lower directories that are edited while they are mounted with `cache=auto`: each kind of
//! change shows within a second, and while nothing changes the kernel answers by itself.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::transport::transports;
use support::{Mount, Stack, binary, mode, names, read, shell};

/// Waits until `is` holds, for a second at most.
fn within_a_second(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn edited(transport: &str) -> Stack {
    let stack = Stack::new(2).option("cache=auto");
    let stack = stack.option(&format!("transport={transport}"));
    for name in [
        "content", "tail", "mapped", "replaced", "gone", "moved", "moded", "up",
    ] {
        stack.file(1, &format!("d/{name}"), "old");
    }
    stack.link(1, "d/symlink", "old");
    stack.file(1, "d/sub/deep", "old");
    stack.file(1, "tree/sub/deep", "old");
    stack.file(0, "d/top", "top");
    stack
}

/// Has the kernel know all there is, and what there is not.
fn warm(at: &Path) {
    shell(
        at,
        "find . -ls >/dev/null; cat d/* d/sub/* 2>/dev/null || true; readlink d/symlink; ! stat d/new tree/new 2>/dev/null",
    );
}

fn each_change_shows(stack: &Stack, mount: &Mount) {
    let at = |name: &str| mount.path("d").join(name);
    let below = |name: &str| stack.lower(1).join("d").join(name);
    fs::write(at("up"), "mine").unwrap();
    warm(&mount.at);
    let tail = File::open(at("tail")).unwrap();
    // A mapping of the mount's file, in a process that looks at it all the time.
    let script = "
import mmap, sys, time
f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 3, prot=mmap.PROT_READ)
assert m[:] == b'old'; print('mapped', flush=True)
end = time.time() + 5
while m[:] == b'old' and time.time() < end: time.sleep(0.01)
print(m[:].decode(), flush=True)";
    let mut reader = support::programs::program("python3")
        .args(["-c", script])
        .arg(at("mapped"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(reader.stdout.take().unwrap()));
    assert_eq!(said.next().unwrap().unwrap(), "mapped");
    let listed = names(mount.path("d"));

    // All at once, and what is left of it.
    fs::write(below("content"), "edited in place").unwrap();
    let write = |name: &str, text: &[u8], at| {
        let file = OpenOptions::new().write(true).open(below(name)).unwrap();
        file.write_all_at(text, at).unwrap();
    };
    write("tail", b"more", 3);
    write("mapped", b"new", 0);
    fs::write(below("tmp"), "other").unwrap();
    fs::rename(below("tmp"), below("replaced")).unwrap();
    fs::remove_file(below("gone")).unwrap();
    fs::rename(below("moved"), below("here")).unwrap();
    fs::write(below("new"), "new").unwrap();
    shell(
        stack.lower(1),
        "chmod 600 d/moded; setfattr -n user.x -v y d/moded",
    );
    fs::remove_file(below("symlink")).unwrap();
    symlink("new", below("symlink")).unwrap();
    fs::write(below("up"), "theirs").unwrap();
    fs::write(stack.lower(0).join("d/.wh.sub"), "").unwrap();
    fs::create_dir_all(stack.lower(0).join("tree")).unwrap();
    fs::write(stack.lower(0).join("tree/new"), "").unwrap();

    within_a_second("written in place", || {
        read(at("content")) == "edited in place"
    });
    within_a_second("appended", || {
        let mut end = [0; 8];
        tail.read_at(&mut end, 0).unwrap() == 7 && &end[..7] == b"oldmore"
    });
    within_a_second("replaced", || read(at("replaced")) == "other");
    within_a_second("removed", || !at("gone").exists());
    within_a_second("renamed", || {
        !at("moved").exists() && read(at("here")) == "old"
    });
    within_a_second("added", || at("new").exists() && read(at("new")) == "new");
    within_a_second("attributes", || mode(at("moded")) == 0o600);
    assert_eq!(
        shell(&mount.at, "getfattr --only-values -n user.x d/moded"),
        "y"
    );
    within_a_second("symlink", || {
        fs::read_link(at("symlink")).unwrap() == Path::new("new")
    });
    within_a_second("whiteout", || !at("sub").exists());
    within_a_second("a directory on top", || {
        names(mount.path("tree")) == ["new", "sub"]
    });
    within_a_second("listing", || {
        let now = names(mount.path("d"));
        now != listed && !now.contains(&"sub".to_owned()) && now.contains(&"here".to_owned())
    });
    assert_eq!(read(at("up")), "mine", "copied up is copied up");
    assert_eq!(said.next().unwrap().unwrap(), "new", "mapped");
    assert!(reader.wait().unwrap().success());
    // What the mount does is as ever, beside that.
    shell(
        &mount.at,
        "cd d; echo x >> content; [ \"$(cat content)\" = 'edited in placex' ]; rm new here; ! ls | grep -q new; mkdir sub; [ -z \"$(ls sub)\" ]; mv top top2; cat top2",
    );
    fs::write(below("new"), "again").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(!at("new").exists(), "removed is removed");
}

#[test]
fn each_kind_of_change_shows_within_a_second() {
    support::need_fuse!();
    std::thread::scope(|scope| {
        for transport in transports() {
            scope.spawn(move || {
                let stack = edited(transport);
                let mount = stack.mount();
                assert_eq!(inotify_of(&mount), 1, "{transport}");
                each_change_shows(&stack, &mount);
                mount.unmount();
            });
        }
    });
}

/// How many inotify descriptors the daemon has.
fn inotify_of(mount: &Mount) -> usize {
    let fds = format!("/proc/{}/fd", mount.pid.unwrap());
    let links = fs::read_dir(fds).unwrap();
    let links = links.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links
        .filter(|link| link.to_string_lossy().contains("inotify"))
        .count()
}

/// How often the daemon's threads fell asleep: twice and more for each request.
fn wakes(mount: &Mount) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", mount.pid.unwrap())).unwrap();
    let sleeps = threads.map(|thread| {
        let status = read(thread.unwrap().path().join("status"));
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    });
    sleeps.sum()
}

fn use_everything(at: &Path) {
    for _ in 0..20 {
        for path in ["d", "d/sub", "tree"] {
            names(at.join(path));
        }
        for name in ["content", "tail", "sub/deep", "up"] {
            fs::metadata(at.join("d").join(name)).unwrap();
        }
        fs::read_link(at.join("d/symlink")).unwrap();
        assert!(!at.join("d/missing").exists());
    }
}

#[test]
fn while_nothing_changes_the_kernel_answers_by_itself() {
    support::need_fuse!();
    for option in ["cache=auto", "cache=static"] {
        let mut stack = edited("dev");
        stack.options[0] = option.into();
        let mount = stack.mount();
        let watches = usize::from(option == "cache=auto");
        assert_eq!(inotify_of(&mount), watches, "{option}");
        let threads = format!("/proc/{}/task", mount.pid.unwrap());
        let named = |part: &str| {
            let mut tasks = fs::read_dir(&threads).unwrap();
            tasks.any(|task| read(task.unwrap().path().join("comm")).contains(part))
        };
        if option == "cache=auto" {
            // A thread has its maker's name until it gives itself its own.
            let limit = Instant::now() + Duration::from_secs(5);
            while !(named("live") && named("send")) {
                assert!(Instant::now() < limit, "nobody listens");
                std::thread::sleep(Duration::from_millis(5));
            }
        } else {
            assert!(!named("live") && !named("send"));
        }
        let _remembered = support::caches::remembered();
        for _ in 0..2 {
            warm(&mount.at);
            use_everything(&mount.at);
        }
        // Longer than what is not watched may be cached, and until nothing is busy with what was
        // made before.
        let mut before = 0;
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            std::thread::sleep(Duration::from_millis(700));
            let now = wakes(&mount);
            if now == before {
                break;
            }
            assert!(Instant::now() < limit, "{option}: never idle");
            before = now;
        }
        // The least of three: a machine that is short of memory forgets by itself.
        let looks = || {
            let before = wakes(&mount);
            use_everything(&mount.at);
            wakes(&mount) - before
        };
        let more = (0..3).map(|_| looks()).min().unwrap();
        assert!(more < 12, "{option}: {more} wakes for 180 looks");
        mount.unmount();
    }
}

/// A layer on another FUSE mount: what is changed there may have been changed by others, so it is
/// looked at.
#[test]
fn a_layer_whose_disk_does_not_tell_is_looked_at() {
    support::need_fuse!();
    let inner = edited("dev");
    let below = inner.mount();
    let outer = Stack::new(1).option("cache=auto");
    fs::remove_dir(outer.lower(0)).unwrap();
    symlink(&below.at, outer.lower(0)).unwrap();
    let mount = outer.mount();
    warm(&mount.at);
    let at = |name: &str| mount.path("d").join(name);
    let tail = File::open(at("tail")).unwrap();
    let times = fs::metadata(below.path("d/mapped")).unwrap();
    fs::write(below.path("d/content"), "edited in place").unwrap();
    OpenOptions::new()
        .write(true)
        .open(below.path("d/tail"))
        .unwrap()
        .write_all_at(b"more", 3)
        .unwrap();
    fs::remove_file(below.path("d/gone")).unwrap();
    fs::write(below.path("d/new"), "new").unwrap();
    // Neither size nor time tell.
    fs::write(below.path("d/mapped"), "new").unwrap();
    let file = File::options()
        .write(true)
        .open(below.path("d/mapped"))
        .unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
    within_a_second("written", || read(at("content")) == "edited in place");
    within_a_second("appended", || tail.metadata().unwrap().size() == 7);
    within_a_second("removed", || !at("gone").exists());
    within_a_second("added", || at("new").exists());
    within_a_second("times put back", || read(at("mapped")) == "new");
    within_a_second("listed", || {
        names(mount.path("d")).contains(&"new".to_owned())
    });
    drop((tail, file));
    mount.unmount();
    below.unmount();
}

/// Where there are no watches left, in a user namespace that has few, the rest is looked at.
#[test]
fn without_watches_changes_show_all_the_same() {
    support::need_fuse!();
    let stack = edited("dev");
    for dir in ["x", "y", "z"] {
        stack.file(1, &format!("{dir}/f"), "old");
    }
    let script = r#"
        set -e
        echo 8 > /proc/sys/user/max_inotify_watches
        "$BIN" mount --lower l0 --lower l1 --upper upper --work work -o cache=auto,transport=dev --log-file log merged
        cd merged
        find . -ls > /dev/null; cat */f d/content > /dev/null; ! test -e z/new
        for dir in x y z d; do echo new > ../l1/$dir/new; echo edited > ../l1/$dir/content; done
        sleep 1
        for dir in x y z d; do
            test -e $dir/new; [ "$(cat $dir/content)" = edited ]; ls $dir | grep -q new
        done
        grep -c inotify /proc/self/mountinfo || true
        cd ..; umount merged
    "#;
    let output = support::programs::program("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .env("BIN", binary())
        .env("RUST_LOG", "debug")
        .current_dir(stack.dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = read(stack.log());
    assert!(log.contains("not watched"), "{log}");
}

/// More than the kernel remembers, while the daemon does not listen.
#[test]
fn changes_beyond_the_kernels_queue_show() {
    support::need_fuse!();
    let stack = edited("dev");
    let mount = stack.mount();
    warm(&mount.at);
    let most: usize = read("/proc/sys/fs/inotify/max_queued_events")
        .trim()
        .parse()
        .unwrap();
    let daemon = mount.pid.unwrap().to_string();
    let signal = |name: &str| Command::new("kill").args([name, &daemon]).status().unwrap();
    assert!(signal("-STOP").success());
    let below = stack.lower(1).join("tree");
    let files = [0, 1].map(|number| File::create(below.join(number.to_string())).unwrap());
    for number in 0..=most {
        // Two files by turns: the same event twice is remembered as one.
        files[number % 2].write_at(b"x", 0).unwrap();
    }
    fs::write(stack.lower(1).join("d/new"), "new").unwrap();
    fs::write(stack.lower(1).join("d/content"), "edited").unwrap();
    assert!(signal("-CONT").success());
    within_a_second("added", || mount.path("d/new").exists());
    within_a_second("edited", || read(mount.path("d/content")) == "edited");
    mount.unmount();
}
