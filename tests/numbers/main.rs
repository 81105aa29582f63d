//! `st_dev` and `st_ino`: different files never look the same, names of one file do, and programs
//! that know numbers of 32 bits only get them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::images::{Mounted, empty, is_here, mount};
use support::transport::transports;
use support::{Stack, shell};

/// The number of every entry, by its path; the listing's and stat(2)'s agree.
fn numbers(at: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut todo = vec![at.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let stat = entry.path().symlink_metadata().unwrap();
            assert_eq!(entry.ino(), stat.ino(), "{}", entry.path().display());
            assert_eq!(stat.dev(), at.symlink_metadata().unwrap().dev());
            found.insert(
                entry.path().strip_prefix(at).unwrap().to_owned(),
                stat.ino(),
            );
            if stat.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found
}

/// No number is there twice, but of names that begin with `hard`, which are all of one file.
fn assert_told_apart(what: &str, numbers: &BTreeMap<PathBuf, u64>) {
    let mut by_number: HashMap<u64, Vec<&PathBuf>> = HashMap::new();
    for (path, number) in numbers {
        by_number.entry(*number).or_default().push(path);
    }
    let is_hard = |path: &&PathBuf| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("hard")
    };
    for (number, paths) in by_number.into_iter().filter(|(_, paths)| paths.len() > 1) {
        assert!(paths.iter().all(is_hard), "{what}: {number} is {paths:?}");
        let expected = numbers.keys().filter(is_hard).count();
        assert_eq!(paths.len(), expected, "{what}: {paths:?}");
    }
}

/// Makes files in `dir`, two of whose names are of one file if `hard` says so.
fn fill(dir: &Path, hard: bool) {
    shell(
        dir,
        "for i in 1 2 3 4 5 6; do echo $i > f$i; mkdir d$i; done; ln -s f1 s1",
    );
    if hard {
        shell(dir, "echo hard > hard1; ln hard1 d1/hard2");
    }
}

/// Live, after changes, and after a remount: all told apart, and what was there has the number that
/// it had.
fn live(what: &str, stack: &Stack, change: &str) {
    let mount = stack.mount();
    let before = numbers(&mount.at);
    assert_told_apart(what, &before);
    shell(&mount.at, change);
    let changed = numbers(&mount.at);
    assert_told_apart(what, &changed);
    for (path, number) in &before {
        if let Some(now) = changed.get(path) {
            assert_eq!(now, number, "{what}: {} after a copy-up", path.display());
        }
    }
    mount.unmount();
    let mount = stack.mount();
    assert_eq!(numbers(&mount.at), changed, "{what}: after a remount");
    mount.unmount();
}

#[test]
fn numbers_stay_apart_in_a_layer_of_several_disks() {
    support::need_fuse!();
    for transport in transports() {
        let stack = Stack::new(2).option(&format!("transport={transport}"));
        let mut disks = Vec::new();
        // Inode numbers of each tmpfs(5) begin with the same ones.
        for place in ["one", "two", "two/inner"] {
            let disk = mount(stack.lower(0), place, "-t tmpfs none");
            let at = disk.at.clone();
            disks.push(disk);
            fs::create_dir_all(at.join("inner")).unwrap();
            fill(&at, place == "one");
        }
        fill(stack.lower(1), false);
        fs::create_dir(stack.lower(1).join("one")).unwrap();
        shell(
            stack.lower(1).join("one"),
            "echo below > below; echo hidden > f1",
        );
        let change = "echo more >> one/f1; mv one/f2 two/f-moved; echo more >> two/inner/f1; echo more >> one/hard1
                      chmod 700 two/d1; echo new > two/new; echo new > one/new; test \"$(stat -c %h one/hard1)\" = 2";
        live(transport, &stack, change);
        drop(disks.into_iter().rev().collect::<Vec<_>>());
    }
}

#[test]
fn numbers_stay_apart_in_a_layer_on_an_overlay_of_several_disks() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let mut disks = Vec::new();
    for name in ["a", "b"] {
        let disk = mount(stack.dir.path(), name, "-t tmpfs none");
        let at = disk.at.clone();
        disks.push(disk);
        shell(
            &at,
            &format!(
                "for i in 1 2 3 4 5 6; do echo $i > {name}$i; done; mkdir both; echo x > both/{name}"
            ),
        );
    }
    let options = format!(
        "-t overlay -o xino=off,lowerdir={}:{} overlay",
        disks[0].at.display(),
        disks[1].at.display()
    );
    disks.push(mount(stack.dir.path(), "l0", &options));
    live(
        "an overlay",
        &stack,
        "echo more >> a1; echo more >> b1; echo more >> both/a; chmod 700 both",
    );
    drop(disks.into_iter().rev().collect::<Vec<_>>());
}

/// The disk of an overlay's file is another one than that of its directory.
#[test]
fn numbers_stay_apart_in_an_upper_on_an_overlay_of_several_disks() {
    support::need_fuse!();
    let mut stack = Stack::new(1);
    let mut disks = Vec::new();
    for name in ["a", "b"] {
        disks.push(mount(stack.dir.path(), name, "-t tmpfs none"));
    }
    shell(stack.dir.path(), "mkdir a/lower b/upper b/work overlay");
    let options = "-t overlay -o xino=off,lowerdir=a/lower,upperdir=b/upper,workdir=b/work overlay";
    disks.push(mount(stack.dir.path(), "overlay", options));
    for name in ["upper", "work"] {
        fs::create_dir(disks[2].at.join(name)).unwrap();
    }
    stack.upper = Some(disks[2].at.join("upper"));
    stack.work = Some(disks[2].at.join("work"));
    // A file that has no name at first, if there is such a thing.
    let make = "echo x > f; mkdir d; echo y > d/g
                python3 -c '
import os
try: fd = os.open(\".\", os.O_TMPFILE | os.O_RDWR, 0o600)
except OSError: exit()
os.link(f\"/proc/self/fd/{fd}\", \"t\", src_dir_fd=os.open(\".\", 0), follow_symlinks=True)'";
    live("an overlay as the upper", &stack, make);
    drop(disks.into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn numbers_stay_apart_in_a_layer_with_subvolumes() {
    support::need_fuse!();
    if !is_here("btrfs") {
        return;
    }
    let mut stack = Stack::new(1);
    let disk = empty(stack.dir.path(), "disk", "btrfs");
    let layer = disk.at.join("layer");
    fs::create_dir(&layer).unwrap();
    shell(
        &layer,
        "btrfs -q subvolume create one; btrfs -q subvolume create two",
    );
    for place in ["one", "two"] {
        fill(&layer.join(place), place == "two");
    }
    stack.lowers = vec![layer];
    live(
        "subvolumes",
        &stack,
        "echo more >> one/f1; echo more >> two/f1; echo more >> two/hard1",
    );
    drop(disk);
}

#[test]
fn numbers_are_found_where_listings_have_none() {
    support::need_fuse!();
    for program in ["fuse2fs", "mke2fs"] {
        if !support::images::has_program(program) {
            return;
        }
    }
    for transport in transports() {
        let stack = Stack::new(1).option(&format!("transport={transport}"));
        let image = stack.dir.path().join("image");
        let at = stack.lower(0).to_owned();
        let command = format!(
            "truncate -s 8M {0}; mke2fs -qt ext2 {0}; fuse2fs -o fakeroot,uid=0,gid=0 {0} \"$PWD\" 2>/dev/null",
            image.display()
        );
        shell(&at, &command);
        let disk = Mounted { at: at.clone() };
        fill(&at, true);
        let change =
            "echo more >> f1; mv f2 f-moved; echo more >> hard1; echo new > new; chmod 700 d1
                      test \"$(cat d1/hard2 | wc -l)\" = 2; test \"$(stat -c %h hard1)\" = 2";
        live(transport, &stack, change);
        drop(disk);
    }
}

/// Where a disk is mounted the listing has the number of what the mount covers, as on any disk; all
/// else is told alike.
#[test]
fn numbers_stay_apart_in_a_volume_of_several_disks() {
    support::need_fuse!();
    for transport in transports() {
        let host = Stack::new(1);
        let disks = ["one", "two"].map(|place| mount(host.lower(0), place, "-t tmpfs none"));
        for disk in &disks {
            fill(&disk.at, false);
        }
        let stack = Stack::new(1)
            .option(&format!("transport={transport}"))
            .option(&format!("volume={}:/v", host.lower(0).display()));
        let mount = stack.mount();
        let mut all = BTreeMap::new();
        for place in ["one", "two"] {
            let found = numbers(&mount.path("v").join(place));
            all.extend(
                found
                    .into_iter()
                    .map(|(path, n)| (Path::new(place).join(path), n)),
            );
        }
        assert_eq!(all.len(), 2 * 13);
        assert_told_apart(transport, &all);
        mount.unmount();
        drop(disks);
    }
}

/// Prints name and number of each entry of the directories it is given, as stat(2) and readdir(3)
/// without large-file support tell them.
const PROGRAM: &str = r#"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    struct dirent *entry;
    struct stat found;
    DIR *dir = opendir(argv[i]);
    if (!dir || chdir(argv[i])) { perror(argv[i]); return 1; }
    while (errno = 0, entry = readdir(dir)) {
      if (lstat(entry->d_name, &found)) { perror(entry->d_name); return 1; }
      if (strcmp(entry->d_name, "..") && entry->d_ino != found.st_ino) { puts("another number"); return 1; }
      printf("%s/%s %lu\n", argv[i], entry->d_name, (unsigned long) found.st_ino);
    }
    if (errno) { perror("readdir"); return 1; }
    closedir(dir);
  }
  return 0;
}
"#;

/// Builds [`PROGRAM`] for 32 bits; `None`, with a word, where that cannot be done.
fn program_of_32_bits(stack: &Stack) -> Option<PathBuf> {
    let (source, program) = (stack.dir.path().join("p.c"), stack.dir.path().join("p"));
    fs::write(&source, PROGRAM).unwrap();
    let built = Command::new("gcc")
        .args(["-m32", "-o"])
        .args([&program, &source])
        .output();
    if built.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    eprintln!("skipped: gcc -m32 is not installed (gcc-multilib)");
    None
}

#[test]
fn programs_of_32_bits_get_numbers_that_they_know() {
    support::need_fuse!();
    for transport in transports() {
        let stack = Stack::new(20).option(&format!("transport={transport}"));
        let Some(program) = program_of_32_bits(&stack) else {
            return;
        };
        for layer in 0..20 {
            fs::create_dir(stack.lower(layer).join("d")).unwrap();
            stack.file(layer, &format!("d/f{layer}"), "x");
        }
        let mount = stack.mount();
        shell(
            &mount.at,
            "echo more >> d/f1; echo new > d/new; mv d/f2 d/moved",
        );
        let dirs = format!("{} {}", mount.at.display(), mount.path("d").display());
        let told = shell("/", &format!("{} {dirs}", program.display()));
        assert_eq!(told.lines().count(), 3 + 23, "{told}");
        assert_told_apart(transport, &numbers(&mount.at));
        mount.unmount();
    }
}

#[test]
fn all_numbers_have_32_bits_where_that_was_asked_for() {
    support::need_fuse!();
    for transport in transports() {
        let stack = Stack::new(1).option(&format!("transport={transport}"));
        // On a disk of its own, which needs more bits.
        let disk = mount(stack.lower(0), "disk", "-t tmpfs none");
        fill(&disk.at, true);
        let is_long = |number: &u64| number >> 32 != 0;
        let mount = stack.mount();
        assert!(numbers(&mount.at).values().any(is_long));
        mount.unmount();
        let stack = stack.option("ino32_t");
        let mount = stack.mount();
        let all = numbers(&mount.at);
        assert!(!all.values().any(is_long), "{all:?}");
        mount.unmount();
        live(
            transport,
            &stack,
            "echo more >> disk/f1; echo more >> disk/hard1; mv disk/f2 disk/f-moved",
        );
        drop(disk);
    }
}
