//! Much of everything: layers, processes, mounts, bytes. Each test prints what the daemon used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Mount, Running, Stack, binary, names, read, shell};

fn figures(what: &str, mount: &Mount) -> (usize, u64) {
    let (fds, memory) = (mount.descriptors(), mount.status("VmRSS"));
    println!("{what}: {fds} descriptors, {memory} KiB");
    (fds, memory)
}

#[test]
fn stacks_of_120_and_500_layers_show_all_their_names() {
    support::need_fuse!();
    for layers in [120, 500] {
        let stack = Stack::new(layers);
        for i in 0..layers {
            stack.file(i, &format!("d/from-{i}"), &i.to_string());
            stack.file(i, "d/shared", &i.to_string());
            if i > 0 {
                stack.file(i - 1, &format!("d/.wh.hidden-{i}"), "");
            }
            stack.file(i, &format!("d/hidden-{i}"), "");
        }
        stack.twice(
            |at| {
                let started = Instant::now();
                assert_eq!(names(at.join("d")).len(), layers + 2);
                println!("{layers} layers: first listing {:?}", started.elapsed());
                fs::write(at.join("d/from-7"), "new").unwrap();
                fs::remove_file(at.join("d/from-8")).unwrap();
            },
            |at| {
                // hidden-0 is in the newest layer, where nothing hides it.
                assert_eq!(names(at.join("d")).len(), layers + 1);
                assert_eq!(read(at.join("d/shared")), "0");
                assert_eq!(read(at.join("d/from-7")), "new");
                assert_eq!(
                    read(at.join(format!("d/from-{}", layers - 1))),
                    (layers - 1).to_string()
                );
                assert!(!at.join("d/from-8").exists());
                assert!(!at.join("d/hidden-3").exists());
            },
        );
    }
}

#[test]
fn eight_processes_in_the_same_directories_agree() {
    support::need_fuse!();
    let stack = Stack::new(2);
    for i in 0..200 {
        stack.file(i % 2, &format!("a/{}", i % 40), &"x".repeat(i));
        stack.file(i % 2, &format!("b/sub/{i}"), "lower");
    }
    let mount = stack.mount();
    let script = r#"
import os, random, sys, time
seed, seconds = int(sys.argv[1]), float(sys.argv[2])
random.seed(seed)
end = time.time() + seconds
names = [f'{d}/{i}' for d in ('a', 'b', 'b/sub') for i in range(40)]
dirs = [f'{d}/dir{i}' for d in ('a', 'b') for i in range(6)]
done = 0
while time.time() < end:
    x, y = random.choice(names), random.choice(names)
    d, e = random.choice(dirs), random.choice(dirs)
    try:
        match random.randrange(10):
            case 0 | 1:
                with open(x, 'w') as f: f.write(x)
            case 2: os.unlink(x)
            case 3: os.rename(x, y)
            case 4: os.mkdir(d)
            case 5: os.rmdir(d)
            case 6: os.rename(d, e)
            case 7: os.link(x, y)
            case 8:
                with open(d + '/inside', 'a') as f: f.write('y')
            case 9: os.unlink(d + '/inside')
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
        pass
    except OSError as error:
        # ENOTEMPTY, EINVAL (a directory into itself), EBUSY never: the rest would be a fault.
        if error.errno not in (39, 22): raise
    done += 1
print(done)
"#;
    let reader = r#"
import os, sys, time
end = time.time() + float(sys.argv[2])
done = 0
while time.time() < end:
    for path, dirs, files in os.walk('.'):
        # A name that is removed and made again meanwhile may be listed at its old place and at its new one.
        for name in files:
            try:
                with open(os.path.join(path, name), 'rb') as f: f.read()
            except FileNotFoundError: pass
    done += 1
print(done)
"#;
    let spawn = |script: &str, seed: u32| {
        let child = support::programs::program("python3")
            .current_dir(&mount.at)
            .args(["-c", script, &seed.to_string(), "60"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(child)
    };
    let mut processes: Vec<Running> = (0..8).map(|seed| spawn(script, seed)).collect();
    processes.push(spawn(reader, 8));
    processes.push(spawn(reader, 9));
    let mut operations = 0;
    for process in &mut processes {
        let status = process.0.wait().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(process.0.stdout.as_mut().unwrap(), &mut text).unwrap();
        let mut errors = String::new();
        std::io::Read::read_to_string(process.0.stderr.as_mut().unwrap(), &mut errors).unwrap();
        assert!(status.success(), "{errors}");
        operations += text.trim().parse::<u64>().unwrap();
    }
    println!("{operations} operations");
    let (fds, memory) = figures("after a minute of eight processes", &mount);
    assert!(fds < 4096 && memory < 256 * 1024);
    let list = |at: &Path| shell(at, "find . -printf '%P %y %s %n %i\n' | sort");
    let live = list(&mount.at);
    let paths: Vec<_> = live.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert!(paths.windows(2).all(|w| w[0] != w[1]), "{live}");
    mount.unmount();
    stack.assert_work_is_empty();
    let mount = stack.mount();
    assert_eq!(list(&mount.at), live);
    mount.unmount();
}

#[test]
fn a_mount_comes_and_goes_fifteen_times_without_a_pause() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "f", "f");
    for i in 0..15 {
        let mount = stack.mount();
        fs::write(mount.path(format!("n{i}")), "x").unwrap();
        // As an engine does, which does not wait for the daemon.
        let status = Command::new("umount").arg(&mount.at).status().unwrap();
        assert!(status.success());
    }
    let mount = stack.mount();
    assert_eq!(names(&mount.at).len(), 16);
    mount.unmount();
}

#[test]
fn a_large_copy_up_delays_no_other_file() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let size = 400 << 20;
    {
        let file = File::create(stack.lower(0).join("large")).unwrap();
        let chunk: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        for i in 0..size / chunk.len() {
            file.write_all_at(&chunk, (i * chunk.len()) as u64).unwrap();
        }
        file.sync_all().unwrap();
    }
    for i in 0..2000 {
        stack.file(0, &format!("d/{i}"), "x");
    }
    let mount = stack.mount();
    let path = mount.path("large");
    let copy = std::thread::spawn(move || {
        let started = Instant::now();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"!", 5).unwrap();
        file.sync_data().unwrap();
        started.elapsed()
    });
    let mut slowest = Duration::ZERO;
    let mut count = 0;
    while !copy.is_finished() {
        let started = Instant::now();
        let name = count % 2000;
        fs::metadata(mount.path(format!("d/{name}"))).unwrap();
        fs::write(mount.path(format!("new-{count}")), "").unwrap();
        slowest = slowest.max(started.elapsed());
        count += 1;
    }
    let took = copy.join().unwrap();
    println!("copy-up {took:?}; meanwhile {count} lookups and creates, the slowest {slowest:?}");
    figures("after it", &mount);
    assert!(count > 20, "nothing went on beside the copy-up");
    // The disk is shared: a wait for it is not a wait for the copy-up, which takes all the time
    // there is.
    assert!(
        slowest < took / 2 || slowest < Duration::from_millis(200),
        "{slowest:?} of {took:?}"
    );
    let mut bytes = [0; 8];
    File::open(mount.path("large"))
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    assert_eq!(bytes, [0, 1, 2, 3, 4, b'!', 6, 7]);
    mount.unmount();
}

#[test]
fn a_busy_mount_ends_with_its_last_user_after_sigterm() {
    support::need_fuse!();
    let stack = Stack::new(1);
    stack.file(0, "f", "f");
    let mount = stack.mount();
    let open = File::open(mount.path("f")).unwrap();
    let pid = mount.pid.unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    wait_until("the mount is detached", || {
        !fs::read_to_string("/proc/mounts")
            .unwrap()
            .contains(mount.at.to_str().unwrap())
    });
    let mut byte = [0];
    open.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"f");
    drop(open);
    wait_until("the daemon is gone", || {
        !fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary())
    });
    let again = stack.mount();
    assert_eq!(read(again.path("f")), "f");
    again.unmount();
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}: never");
        std::thread::sleep(Duration::from_millis(5));
    }
}
