//! Containers that others work in while they are read, and trees that are deeper than there are
//! descriptors.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::env::Env;
use crate::make::{Image, Layer, PLAIN, Pack, write_dir};

/// Files that stay untouched.
const CALM: usize = 100;

fn loaded(env: &Env) {
    let mut layer = Layer::new().dir("work", 0o755);
    for number in 0..CALM {
        layer = layer.file(&format!("work/calm{number}"), &[b'c'; 3000], &PLAIN);
    }
    let image = Image::new(vec![layer.tar()], Pack::Gzip);
    write_dir(&image.layout("app:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
}

/// Makes, replaces, shortens and removes things of every kind until it is told to stop.
fn work_in(dir: &Path, number: usize, stop: &AtomicBool) {
    let at = |name: &str| dir.join(format!("w{number}{name}"));
    let replaced = dir.join("replaced");
    let mut round = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        fs::write(at("file"), vec![b'x'; (round % 3) * 60_000]).unwrap();
        fs::hard_link(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink("target", at("symlink")).unwrap();
        fs::create_dir_all(at("dir/in/side")).unwrap();
        fs::write(at("dir/in/f"), "f").unwrap();
        let shorter = File::options().write(true).open(at("file")).unwrap();
        shorter.set_len(10).unwrap();
        fs::write(at("new"), format!("{round:0>100}")).unwrap();
        fs::rename(at("new"), &replaced).unwrap();
        for name in ["file", "link", "symlink"] {
            fs::remove_file(at(name)).unwrap();
        }
        fs::remove_dir_all(at("dir")).unwrap();
        // A name is of another kind the next time.
        fs::create_dir(at("file")).unwrap();
        fs::remove_dir(at("file")).unwrap();
    }
}

/// The names in an archive, with their sizes, read to its end.
fn listed(archive: &Path) -> BTreeMap<String, u64> {
    let mut tar = tar::Archive::new(File::open(archive).unwrap());
    let mut found = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let size = std::io::copy(&mut entry, &mut std::io::sink()).unwrap();
        if entry.header().entry_type() == tar::EntryType::Link {
            let first = entry.link_name().unwrap().unwrap();
            let first = first.to_string_lossy().into_owned();
            assert!(found.contains_key(&first), "{name} leads to {first}");
        }
        found.insert(name, size);
    }
    found
}

#[test]
fn a_container_in_use_is_read() {
    support::need_fuse!();
    let env = Env::new();
    loaded(&env);
    for driver in ["fuse", "vfs"] {
        env.ok(&[
            "container",
            "create",
            "--driver",
            driver,
            "--name",
            driver,
            "app:1",
        ]);
        let dir = env.mount(driver).join("work");
        fs::write(dir.join("replaced"), [b'0'; 100]).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..3 {
                let (dir, stop) = (&dir, &stop);
                scope.spawn(move || work_in(dir, number, stop));
            }
            let looked = std::panic::catch_unwind(|| {
                for round in 0..8 {
                    env.ok(&["container", "export", driver, "-o", "out.tar"]);
                    let found = listed(&env.at("out.tar"));
                    let calm = found
                        .iter()
                        .filter(|(name, size)| name.starts_with("work/calm") && **size == 3000);
                    assert_eq!(calm.count(), CALM, "{driver}");
                    assert_eq!(found.get("work/replaced"), Some(&100), "{driver}");
                    env.ok(&["container", "diff", driver]);
                    env.ok(&["container", "ls", "--size"]);
                    let image = format!("{driver}:{round}");
                    env.ok(&["container", "commit", driver, &image]);
                }
            });
            stop.store(true, Ordering::Relaxed);
            looked.unwrap();
        });
        if driver == "fuse" {
            env.ok(&["container", "umount", driver]);
        }
    }
    env.is_sound();
}

const LEVELS: usize = 3000;

fn dig(top: &Path) {
    let mut at: OwnedFd = File::open(top).unwrap().into();
    for _ in 0..LEVELS {
        mkdirat(&at, "level", Mode::RWXU).unwrap();
        at = openat(&at, "level", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    openat(&at, "bottom", flags, Mode::RUSR).unwrap();
}

#[test]
fn a_deep_tree_goes_everywhere() {
    support::need_fuse!();
    let env = Env::new();
    loaded(&env);
    for driver in ["fuse", "vfs"] {
        env.ok(&[
            "container",
            "create",
            "--driver",
            driver,
            "--name",
            driver,
            "app:1",
        ]);
        dig(&env.mount(driver));
        env.ok(&["container", "export", driver, "-o", "out.tar"]);
        assert!(fs::metadata(env.at("out.tar")).unwrap().len() > 4_000_000);
        let changes = env.ok(&["container", "diff", driver]);
        assert_eq!(changes.lines().count(), LEVELS + 1, "{driver}");
        env.ok(&["container", "ls", "--size"]);
        env.ok(&["container", "commit", driver, &format!("{driver}:1")]);
    }
    env.ok(&[
        "container",
        "create",
        "--driver",
        "vfs",
        "--name",
        "again",
        "fuse:1",
    ]);
    let id =
        env.json(&["container", "inspect", "fuse"])[0]["GraphDriver"]["Data"]["UpperDir"].clone();
    env.ok(&[
        "layer",
        "diff",
        "--upper",
        id.as_str().unwrap(),
        "-o",
        "diff.tar",
    ]);
    fs::create_dir(env.at("tree")).unwrap();
    fs::write(env.at("tree/f"), "").unwrap();
    env.ok(&[
        "layer",
        "apply",
        "--max-path",
        "1000000",
        "diff.tar",
        "tree",
    ]);
    env.ok(&["system", "df"]);
    env.is_sound();
    for name in ["fuse", "vfs", "again"] {
        env.ok(&["container", "rm", "--force", name]);
    }
    for name in ["fuse:1", "vfs:1"] {
        env.ok(&["image", "rm", name]);
    }
    env.is_sound();
    // What a temporary directory takes away goes down by itself.
    fs::write(env.at("gone.tar"), tar_of_a_whiteout()).unwrap();
    env.ok(&["layer", "apply", "gone.tar", "tree"]);
}

fn tar_of_a_whiteout() -> Vec<u8> {
    Layer::new().whiteout("level").tar()
}
