//! Stores of other engines, and ordinary users.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::{self, read, shell};
use crate::env::{Env, assert_same, have, survey, without_links};
use crate::make::{Image, Pack, rich_layers, write_tar};
use crate::need_fuse;

fn overlay2_layer(store: &Path, id: &str, short: &str, lower: &str) {
    fs::create_dir_all(store.join(id).join("diff")).unwrap();
    fs::create_dir_all(store.join("l")).unwrap();
    fs::write(store.join(id).join("link"), short).unwrap();
    symlink(format!("../{id}/diff"), store.join("l").join(short)).unwrap();
    if !lower.is_empty() {
        fs::write(store.join(id).join("lower"), lower).unwrap();
    }
}

#[test]
fn a_layer_of_dockers_directory_is_mounted() {
    need_fuse!();
    let env = Env::new();
    let store = env.at("overlay2");
    overlay2_layer(&store, "aaaa", "AAA", "");
    overlay2_layer(&store, "bbbb", "BBB", "l/AAA");
    fs::write(store.join("aaaa/diff/old"), "old").unwrap();
    fs::write(store.join("aaaa/diff/gone"), "gone").unwrap();
    fs::write(store.join("bbbb/diff/new"), "new").unwrap();
    // docker's whiteouts are devices.
    shell(&store, "mknod bbbb/diff/gone c 0 0");
    fs::create_dir(env.at("m")).unwrap();
    env.ok(&["mount", "--overlay2", "overlay2/bbbb", "m"]);
    assert_eq!(common::names(env.at("m")), ["new", "old"]);
    assert!(fs::write(env.at("m/x"), "x").is_err());
    env.ok(&["umount", "m"]);
    let said = env.fails(&["mount", "--overlay2", "overlay2", "m"]);
    assert!(said.contains("no layer of an overlay2 directory"), "{said}");
}

#[test]
fn a_podman_store_is_mounted_without_podman() {
    need_fuse!();
    if !have("podman") {
        return;
    }
    let env = Env::new();
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_tar(&image.layout("localhost/rich:1"), &env.at("in.tar"));
    let podman = "podman --root $PWD/pr --runroot $PWD/prr --storage-driver overlay";
    shell(env.dir.path(), &format!("{podman} load -q -i in.tar"));
    fs::create_dir(env.at("m")).unwrap();
    for word in ["rich:1", "localhost/rich:1", &image.id()[7..19]] {
        env.ok(&["mount", "--podman", word, "--store", "pr", "m"]);
        assert_eq!(read(env.at("m/tree/new")), "new tree", "{word}");
        assert!(!env.at("m/bin/other").exists());
        env.ok(&["umount", "m"]);
    }
    let at = shell(env.dir.path(), &format!("{podman} image mount rich:1"));
    let theirs = without_links(&survey(Path::new(at.trim_end())));
    env.ok(&["mount", "--podman", "rich:1", "--store", "pr", "m"]);
    let ours = without_links(&survey(&env.at("m")));
    env.ok(&["umount", "m"]);
    shell(env.dir.path(), &format!("{podman} image umount rich:1"));
    assert_same(&theirs, &ours, "podman image mount");
    // Our own store shows the same.
    env.ok(&["image", "load", "-q", "in.tar"]);
    env.ok(&["mount", "--image", "rich:1", "m"]);
    assert_same(&theirs, &without_links(&survey(&env.at("m"))), "our store");
    env.ok(&["umount", "m"]);
    shell(
        env.dir.path(),
        &format!("{podman} rmi -f rich:1; rm -rf pr prr"),
    );
}
