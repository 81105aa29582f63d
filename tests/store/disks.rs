//! Stores on disks that are full, and on disks that lose their power: small images on loop devices.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::env::Env;
use crate::make::{Image, Layer, PLAIN, Pack, rich_layers, write_dir};
use support::images::{is_here, mount};
use support::shell;

/// Bytes that no compression makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    noise
}

fn full(path: &Path) {
    // The last blocks, and where a disk keeps small files apart those too.
    for (name, size) in [("big", 1 << 20), ("small", 4096), ("least", 512)] {
        let opened = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path.join(name));
        let Ok(mut file) = opened else { continue };
        while file.write_all(&vec![b'x'; size]).is_ok() {}
        let _reported_too_late = file.sync_all();
    }
    for number in 0..2000 {
        if fs::write(path.join(format!("s{number}")), "x").is_err() {
            break;
        }
    }
    rustix::fs::sync();
}

/// Not killed by a signal: a page of a mapping for which the disk has no block would be one.
fn lives(output: &Output) -> String {
    assert_eq!(output.status.signal(), None, "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_full_disk_is_read_and_made_room_on() {
    support::need_fuse!();
    let kinds = [
        ("ext4", "-q -b 4096 -m 0", "64M"),
        ("ext4", "-q -b 1024 -m 0", "48M"),
        ("xfs", "-q", "320M"),
        ("btrfs", "-q", "130M"),
    ];
    for (kind, options, size) in kinds.into_iter().filter(|(kind, ..)| is_here(kind)) {
        let env = Env::new();
        let image = Image::new(rich_layers(), Pack::Gzip);
        write_dir(&image.layout("rich:1"), &env.at("layout"));
        shell(
            env.dir.path(),
            &format!("truncate -s {size} disk; mkfs.{kind} {options} disk >/dev/null"),
        );
        let disk = mount(env.dir.path(), "root", "-o loop disk");
        if env.at("root/lost+found").exists() {
            fs::remove_dir(env.at("root/lost+found")).unwrap();
        }
        env.ok(&["image", "load", "-q", "layout"]);
        for name in ["one", "two", "three"] {
            let volume = format!("{name}:/data");
            env.ok(&[
                "container",
                "create",
                "--name",
                name,
                "-v",
                &volume,
                "rich:1",
            ]);
        }
        let (one, two) = (env.mount("one"), env.mount("two"));
        full(&one);
        let what = format!("{kind} {options}");
        for args in [
            &["image", "ls"][..],
            &["container", "ls", "--size"],
            &["container", "diff", "one"],
            &["image", "inspect", "rich:1"],
            &["volume", "ls"],
            &["layer", "ls"],
            &["system", "df"],
            &["system", "info"],
            &["system", "check"],
        ] {
            let output = env.run(args);
            let said = lives(&output);
            assert!(output.status.success(), "{what}: {args:?}: {said}");
        }
        // What needs room says so and leaves nothing.
        for args in [
            &["container", "create", "--name", "four", "rich:1"][..],
            &["container", "commit", "one", "more:1"],
        ] {
            lives(&env.run(args));
        }
        for args in [
            &["umount", two.to_str().unwrap()][..],
            &["container", "rm", "two"],
            &["volume", "rm", "two"],
            &["container", "rm", "three"],
            &["volume", "prune", "--all", "--force"],
            &["system", "prune", "--force"],
            &["container", "rm", "--force", "one"],
            &["image", "rm", "--force", "rich:1"],
        ] {
            let output = env.run(args);
            let said = lives(&output);
            assert!(output.status.success(), "{what}: {args:?}: {said}");
        }
        // What was made in the little room that came free.
        env.run(&["container", "rm", "four"]);
        env.run(&["image", "rm", "more:1"]);
        env.is_sound();
        drop(disk);
    }
}

#[test]
fn what_was_answered_is_whole_after_a_power_cut() {
    support::need_fuse!();
    let kinds = [
        ("ext4", "commit=300", "loop"),
        ("btrfs", "commit=300", "loop"),
        ("xfs", "noatime", "loop,nouuid"),
    ];
    for (kind, options, again) in kinds.into_iter().filter(|(kind, ..)| is_here(kind)) {
        let env = Env::new();
        let declared = json!({"config": {"Volumes": {"/etc": {}}}});
        let image = Image::with(rich_layers(), Pack::Gzip, declared);
        write_dir(&image.layout("rich:1"), &env.at("layout"));
        let size = if kind == "xfs" { "320M" } else { "200M" };
        shell(
            env.dir.path(),
            &format!("truncate -s {size} disk; mkfs.{kind} -q disk"),
        );
        let disk = mount(
            env.dir.path(),
            "disk.at",
            &format!("-o loop,{options} disk"),
        );
        let root = disk.at.join("deep/store");
        let at = |root: &Path, args: &[&str]| {
            let mut command = env.command(args);
            let output = command.env("UNIONMOUNT_ROOT", root).output().unwrap();
            assert!(output.status.success(), "{kind}: {args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        // The kernel has written for itself what it has to; the copy is what a disk without power
        // has.
        let after_a_cut = |what: &str, images: usize, containers: usize, volumes: usize| {
            shell(env.dir.path(), "cp --sparse=always disk copy");
            let copy = mount(env.dir.path(), "copy.at", &format!("-o {again} copy"));
            let root = copy.at.join("deep/store");
            let json =
                |args: &[&str]| -> Vec<Value> { serde_json::from_str(&at(&root, args)).unwrap() };
            assert_eq!(
                json(&["image", "ls", "--json"]).len(),
                images,
                "{kind}: {what}"
            );
            let listed = json(&["container", "ls", "--json"]).len();
            assert_eq!(listed, containers, "{kind}: {what}");
            let listed = json(&["volume", "ls", "--json"]);
            assert_eq!(listed.len(), volumes, "{kind}: {what}: {listed:?}");
            for volume in listed.iter().filter(|volume| volume["Anonymous"] == true) {
                let place = root.join("volumes").join(volume["Name"].as_str().unwrap());
                assert!(
                    place.join("_data/conf").exists(),
                    "{kind}: {what}: {volume}"
                );
            }
            // What a command had not taken away yet is no loss, and does not come back.
            let repaired = at(&root, &["system", "check", "--repair", "--deep"]);
            assert!(!repaired.contains("missing"), "{kind}: {what}: {repaired}");
            assert_eq!(
                json(&["volume", "ls", "--json"]).len(),
                volumes,
                "{kind}: {what}"
            );
            at(&root, &["system", "check", "--deep"]);
        };
        at(&root, &["volume", "create", "named"]);
        after_a_cut("volume create", 0, 0, 1);
        at(&root, &["image", "load", "-q", "layout"]);
        after_a_cut("image load", 1, 0, 1);
        at(&root, &["image", "tag", "rich:1", "rich:2"]);
        after_a_cut("image tag", 2, 0, 1);
        at(&root, &["container", "create", "--name", "a", "rich:1"]);
        after_a_cut("container create", 2, 1, 2);
        at(
            &root,
            &[
                "container",
                "create",
                "--driver",
                "vfs",
                "--name",
                "b",
                "rich:1",
            ],
        );
        after_a_cut("container create of a copy", 2, 2, 2);
        at(&root, &["container", "commit", "b", "new:1"]);
        after_a_cut("container commit", 3, 2, 2);
        at(&root, &["container", "rm", "--volumes", "a"]);
        after_a_cut("container rm", 3, 1, 1);
        at(&root, &["image", "rm", "new:1"]);
        after_a_cut("image rm", 2, 1, 1);
        at(&root, &["volume", "rm", "named"]);
        after_a_cut("volume rm", 2, 1, 0);
    }
}

#[test]
fn a_layer_that_there_is_no_room_to_compare_is_not_called_broken() {
    let env = Env::new();
    let layer = Layer::new().file("noise", &noise(600_000), &PLAIN);
    let image = Image::new(vec![layer.tar()], Pack::Plain);
    write_dir(&image.layout("app:1"), &env.at("layout"));
    let _disk = mount(env.dir.path(), "root", "-t tmpfs -o size=4m tmpfs");
    env.ok(&["image", "load", "-q", "layout"]);
    env.is_sound();
    let mut ballast = File::create(env.root().join("tmp/.ballast")).unwrap();
    while ballast.write_all(&[1; 4096]).is_ok() {}
    drop(ballast);
    // A little less than it takes, with room for what is no file.
    let file = OpenOptions::new()
        .write(true)
        .open(env.root().join("tmp/.ballast"))
        .unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - 300_000).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
    let output = env.run(&["system", "check", "--deep", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["Findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{report}");
    let what = findings[0]["What"].as_str().unwrap();
    assert!(
        what.contains("was not compared") && what.contains("left"),
        "{what}"
    );
    assert_eq!(findings[0]["Cure"], "make room and check again");
    drop(file);
    fs::remove_file(env.root().join("tmp/.ballast")).unwrap();
    env.is_sound();
}
