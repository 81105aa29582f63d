//! kill -9 of the daemon at random moments of a busy mount: what does the next mount see?
//!
//! The writers replace files in ways that leave no doubt about what is whole: every file holds one
//! number, many times. A file that is half old and half new holds two.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Running, Stack, names, shell};

const ROUNDS: u64 = 100;
const LOWER_FILES: usize = 40;
const SIZE: usize = 20_000;

/// Deletes lower names for good, copies lower files up by chmod, truncates and rewrites, renames
/// directories, makes trees and removes them. What must hold afterwards is told on standard output,
/// one line when it is done.
const WRITER: &str = r#"
import os, random, sys
random.seed(int(sys.argv[1]))
def said(*words):
    os.write(1, (' '.join(map(str, words)) + '\n').encode())
n = 0
# Not the other writer's: he would truncate what is renamed.
me = int(sys.argv[1]) % 2
said('started')
while True:
    n += 1
    i = random.randrange(40)
    try:
        match random.randrange(9):
            case 0:
                os.unlink(f'gone/{i}'); said('gone', i)
            case 1: os.chmod(f'copied/{i}', random.choice([0o600, 0o640, 0o644]))
            case 2:
                t = f'copied/.t{i}-{me}'
                with open(t, 'w') as f: f.write((str(n % 10) * 20000))
                os.rename(t, f'copied/{i}')
            case 3: os.setxattr(f'linked/a{i}', 'user.n', str(n).encode())
            case 4:
                os.makedirs(f'trees/{i}/x/y', exist_ok=True)
                open(f'trees/{i}/x/y/f', 'w').close()
            case 5:
                os.unlink(f'trees/{i}/x/y/f'); os.removedirs(f'trees/{i}/x/y')
            case 6: os.rename(f'dirs/{i}', f'dirs/moved{i}')
            case 7: os.rename(f'dirs/moved{i}', f'dirs/{i}')
            case 8:
                os.rmdir(f'empty/{i}'); said('empty', i)
    except (FileNotFoundError, FileExistsError): pass
    except OSError as error:
        if error.errno not in (39,): break
"#;

#[test]
fn killed_a_hundred_times_nothing_is_lost() {
    support::need_fuse!();
    let stack = Stack::new(2);
    for i in 0..LOWER_FILES {
        stack.file(1, &format!("gone/{i}"), "x");
        stack.file(1, &format!("copied/{i}"), &"L".repeat(SIZE));
        let first = stack.file(1, &format!("linked/a{i}"), &"H".repeat(SIZE));
        fs::hard_link(first, stack.lower(1).join(format!("linked/b{i}"))).unwrap();
        stack.file(i % 2, &format!("dirs/{i}/in/f"), "x");
        stack.file(1, &format!("dirs/{i}/in/g"), "x");
        stack.directory(1, &format!("empty/{i}"));
    }
    let lower_before = fingerprint(&stack);
    let mut gone = BTreeSet::new();
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let mut random = fastrand::Rng::with_seed(seed);
    // The first in PATH may be a shim that takes ten times as long, two hundred times.
    let python = match Path::new("/usr/bin/python3").exists() {
        true => "/usr/bin/python3",
        false => "python3",
    };
    for round in 0..ROUNDS {
        let mount = stack.mount();
        check(&mount.at, &gone, round);
        stack.assert_work_is_empty();
        let log = stack.dir.path().join(format!("said-{round}"));
        let writers: Vec<Running> = (0..2)
            .map(|n| {
                let output = fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .unwrap();
                Running(
                    Command::new(python)
                        .current_dir(&mount.at)
                        .args([
                            "-I",
                            "-S",
                            "-c",
                            WRITER,
                            &(seed + 1000 * round + n).to_string(),
                        ])
                        .stdout(output)
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap(),
                )
            })
            .collect();
        // On a busy machine an interpreter takes longer to begin than it is let work.
        let said = || fs::read_to_string(&log).unwrap();
        let limit = Instant::now() + Duration::from_secs(30);
        while said().matches("started").count() < writers.len() {
            assert!(Instant::now() < limit, "round {round}: no writer begins");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(random.u64(10..310)));
        mount.kill();
        drop(writers);
        for line in said().lines().filter(|line| *line != "started") {
            gone.insert(line.replace(' ', "/"));
        }
    }
    let mount = stack.mount();
    check(&mount.at, &gone, ROUNDS);
    println!("{} names deleted for good in {ROUNDS} rounds", gone.len());
    assert!(gone.len() > 20, "the writers did not get to work");
    mount.unmount();
    stack.assert_work_is_empty();
    assert_eq!(fingerprint(&stack), lower_before);
}

fn fingerprint(stack: &Stack) -> String {
    shell(
        stack.dir.path(),
        "find l0 l1 -printf '%p %y %m %s %T@ %n\n' | sort; find l0 l1 -type f | sort | xargs cat | sha256sum",
    )
}

fn check(at: &Path, gone: &BTreeSet<String>, round: u64) {
    for name in gone {
        assert!(
            fs::symlink_metadata(at.join(name)).is_err(),
            "round {round}: {name} is back"
        );
    }
    for (dir, first) in [("copied", b'L'), ("linked", b'H')] {
        for name in names(at.join(dir)) {
            let bytes = fs::read(at.join(dir).join(&name)).unwrap();
            // A new file that was being written when the daemon died may be short; never mixed.
            let value = bytes.first().copied().unwrap_or(first);
            assert!(
                bytes.iter().all(|byte| *byte == value),
                "round {round}: {dir}/{name} is half old and half new"
            );
            if !name.starts_with(".t") && value == first {
                assert_eq!(bytes.len(), SIZE, "round {round}: {dir}/{name}");
            }
        }
    }
    let copied = names(at.join("copied"));
    for i in 0..LOWER_FILES {
        assert!(
            copied.contains(&i.to_string()),
            "round {round}: copied/{i} vanished"
        );
        let both = shell(
            at,
            &format!("stat -c '%i %h' linked/a{i} linked/b{i} | uniq | wc -l"),
        );
        assert_eq!(
            both.trim(),
            "1",
            "round {round}: linked/a{i} and b{i} parted"
        );
        let (here, there) = (
            at.join(format!("dirs/{i}")),
            at.join(format!("dirs/moved{i}")),
        );
        assert!(
            here.exists() != there.exists(),
            "round {round}: dirs/{i} is in two places or none"
        );
        let dir = if here.exists() { here } else { there };
        assert_eq!(names(dir.join("in")), ["f", "g"], "round {round}: dirs/{i}");
    }
}
