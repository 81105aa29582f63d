//! What a store does not lose, and does not do behind its owner's back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::env::{Env, survey};
use crate::make::{Image, Pack, rich_layers, small_layers, write_dir};

fn loaded(env: &Env) {
    let image = Image::new(small_layers(2), Pack::Gzip);
    write_dir(&image.layout("app:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
}

#[test]
fn without_its_catalog_a_store_is_left_alone() {
    let env = Env::new();
    loaded(&env);
    env.ok(&["container", "create", "--name", "box", "app:1"]);
    let id = env.ok(&["container", "ls", "-q", "--no-trunc"]);
    let kept = env.root().join("containers").join(id.trim_end());
    fs::write(kept.join("upper/mine"), "data").unwrap();
    fs::create_dir(env.at("backup")).unwrap();
    let files = || {
        let all = fs::read_dir(env.root()).unwrap();
        let paths = all.map(|entry| entry.unwrap().path());
        let of_catalog = paths.filter(|path| path.to_string_lossy().contains("catalog.sqlite"));
        of_catalog.collect::<Vec<_>>()
    };
    for file in files() {
        let name = file.file_name().unwrap();
        fs::rename(&file, env.at("backup").join(name)).unwrap();
    }
    let before = survey(&env.root());
    for args in [
        &["system", "prune", "--force", "--volumes"][..],
        &["system", "check", "--repair"],
        &["container", "ls"],
        &["container", "diff", "box"],
        &["image", "load", "-q", "layout"],
        &["volume", "ls"],
    ] {
        let said = env.fails(args);
        let names_it = said.contains("/root/catalog.sqlite' is missing");
        assert!(names_it && said.contains("from a backup"), "{said}");
        assert_eq!(before, survey(&env.root()), "{args:?}");
    }
    // An empty file is none.
    fs::write(env.root().join("catalog.sqlite"), "").unwrap();
    let said = env.fails(&["system", "prune", "--force"]);
    assert!(said.contains("is missing or empty"), "{said}");
    assert!(kept.join("upper/mine").exists());
    for file in files() {
        fs::remove_file(file).unwrap();
    }
    for entry in fs::read_dir(env.at("backup")).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), env.root().join(entry.file_name())).unwrap();
    }
    assert_eq!(env.ok(&["container", "diff", "box"]), "A /mine\n");
    env.is_sound();
    // What a first command leaves that is killed before it has made the catalog.
    let other = Env::new();
    fs::create_dir_all(other.root().join("layers")).unwrap();
    assert_eq!(other.ok(&["container", "ls", "-q"]), "");
}

#[test]
fn an_empty_directory_becomes_private_and_another_stays() {
    let mode = |env: &Env| fs::metadata(env.root()).unwrap().permissions().mode() & 0o7777;
    for (content, expected) in [(false, 0o700), (true, 0o755)] {
        let env = Env::new();
        fs::create_dir(env.root()).unwrap();
        fs::set_permissions(env.root(), fs::Permissions::from_mode(0o755)).unwrap();
        if content {
            fs::write(env.root().join("of somebody"), "").unwrap();
        }
        env.ok(&["image", "ls"]);
        assert_eq!(mode(&env), expected);
    }
}

#[test]
fn prune_counts_only_what_killed_commands_left() {
    let env = Env::new();
    loaded(&env);
    env.ok(&["image", "tag", "app:1", "app:2"]);
    let pruned = env.ok(&["system", "prune", "--all", "--force"]);
    assert!(pruned.contains("Deleted Images"), "{pruned}");
    assert!(!pruned.contains("Leftovers"), "{pruned}");
    assert_eq!(fs::read_dir(env.root().join("images")).unwrap().count(), 0);
    loaded(&env);
    fs::write(env.root().join("images/left.json"), "x").unwrap();
    fs::create_dir(env.root().join("tmp/left")).unwrap();
    let pruned = env.json(&["system", "prune", "--all", "--force", "--json"]);
    assert_eq!(pruned["Leftovers"], 2, "{pruned}");
    env.is_sound();
}

#[test]
fn a_copy_refuses_what_no_layer_can_hold_and_has_the_size_of_its_changes() {
    let env = Env::new();
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_dir(&image.layout("rich:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
    let whole = env.json(&["image", "ls", "--json"])[0]["Size"].clone();
    let whole = whole.as_u64().unwrap();
    env.ok(&[
        "container",
        "create",
        "--driver=vfs",
        "--name=copy",
        "rich:1",
    ]);
    let tree = env.mount("copy");
    let sizes = || {
        let listed = env.json(&["container", "ls", "--size", "--json"]);
        let size = |field: &str| listed[0][field].as_u64().unwrap();
        let inspected = env.json(&["container", "inspect", "copy"]);
        assert_eq!(inspected[0]["SizeRw"], listed[0]["Size"]);
        (size("Size"), size("VirtualSize"))
    };
    assert_eq!(sizes(), (0, whole));
    fs::create_dir(tree.join("new")).unwrap();
    fs::write(tree.join("new/f"), [0; 1500]).unwrap();
    fs::hard_link(tree.join("new/f"), tree.join("new/again")).unwrap();
    fs::write(tree.join("etc/conf"), [1; 700]).unwrap();
    // What goes makes nothing smaller: it is in the image all the same.
    fs::remove_file(tree.join("zeros")).unwrap();
    fs::remove_dir_all(tree.join("tree")).unwrap();
    assert_eq!(sizes(), (2200, whole + 2200));
    // Every user can give such a name to a file of a copy.
    fs::write(tree.join("new/.wh.mine"), "data").unwrap();
    assert_eq!(sizes(), (2204, whole + 2204));
    for args in [
        &["container", "commit", "copy", "app:1"][..],
        &["container", "diff", "copy"],
        &["container", "export", "copy", "-o", "flat.tar"],
    ] {
        let said = env.fails(args);
        let named = said.contains("'/new/.wh.mine'") && said.contains("rename it");
        assert!(named, "{args:?}: {said}");
    }
    assert!(!env.at("flat.tar").exists());
    assert_eq!(env.ok(&["image", "ls", "-q"]).lines().count(), 1);
    fs::rename(tree.join("new/.wh.mine"), tree.join("new/mine")).unwrap();
    let said = env.ok(&["container", "diff", "copy"]);
    assert!(said.contains("A /new/mine\n"), "{said}");
    env.ok(&["container", "commit", "copy", "app:1"]);
    env.is_sound();
}
