//! Volumes: filled, shared, read-only, outliving containers.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::env::Env;
use crate::make::{Image, Pack, rich_layers, write_dir};
use support::{read, shell};

fn rich(env: &Env, more: serde_json::Value) {
    let image = Image::with(rich_layers(), Pack::Gzip, more);
    write_dir(&image.layout("rich:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
}

#[test]
fn a_volume_is_filled_shared_and_stays() {
    support::need_fuse!();
    let env = Env::new();
    rich(&env, json!({}));
    fs::create_dir(env.at("host")).unwrap();
    fs::write(env.at("host/conf"), "from the host").unwrap();
    env.ok(&["volume", "create", "other"]);
    let host = format!("{}:/etc/app:ro", env.at("host").display());
    env.ok(&[
        "container",
        "create",
        "--name",
        "one",
        "-v",
        "data:/data",
        "-v",
        &host,
        "rich:1",
    ]);
    env.ok(&[
        "container",
        "create",
        "--name",
        "two",
        "--mount",
        "type=volume,source=data,target=/elsewhere",
        "--mount",
        "source=other,target=/data,readonly,volume-nocopy",
        "rich:1",
    ]);
    let (one, two) = (env.mount("one"), env.mount("two"));
    // What the image has there, with its owner; the directory looks as it does in the image.
    let seed = fs::metadata(one.join("data/seed")).unwrap();
    assert_eq!(
        (read(one.join("data/seed")).as_str(), seed.uid(), seed.gid()),
        ("seed", 5, 6)
    );
    assert_eq!(
        fs::metadata(one.join("data")).unwrap().mode() & 0o7777,
        0o750
    );
    assert_eq!(fs::read_dir(two.join("data")).unwrap().count(), 0);
    // Shared at once, and without copy-up.
    fs::write(one.join("data/shared"), "by one").unwrap();
    assert_eq!(read(two.join("elsewhere/shared")), "by one");
    fs::write(two.join("elsewhere/shared"), "by two").unwrap();
    assert_eq!(read(one.join("data/shared")), "by two");
    let data = env.json(&["volume", "inspect", "data"]);
    let place = std::path::PathBuf::from(data[0]["Mountpoint"].as_str().unwrap());
    assert_eq!(read(place.join("shared")), "by two");
    assert_eq!(data[0]["Containers"], json!(["one", "two"]));
    // Read-only where asked.
    assert_eq!(read(one.join("etc/app/conf")), "from the host");
    for refused in [one.join("etc/app/conf"), two.join("data/x")] {
        let error = fs::write(refused, "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(30));
    }
    assert_eq!(
        fs::rename(one.join("data/seed"), one.join("seed"))
            .unwrap_err()
            .raw_os_error(),
        Some(18)
    );
    let said = env.ok(&["container", "diff", "one"]);
    assert!(!said.contains("shared"), "{said}");
    env.fails(&["volume", "rm", "data"]);
    env.ok(&["container", "rm", "-f", "one", "two"]);
    assert_eq!(read(place.join("shared")), "by two");
    // Not filled a second time, also not after its files were removed but one.
    shell(&place, "rm seed");
    env.ok(&[
        "container",
        "create",
        "--name",
        "three",
        "-v",
        "data:/data",
        "rich:1",
    ]);
    assert!(!env.mount("three").join("data/seed").exists());
    env.ok(&["container", "rm", "-f", "three"]);
    env.ok(&["volume", "rm", "data"]);
    assert!(!place.exists());
    assert_eq!(env.ok(&["volume", "ls", "-q"]), "other\n");
    // Data are not thrown away without being asked for.
    let unasked = env.run(&["volume", "prune", "--all"]);
    assert_eq!(unasked.status.code(), Some(2));
    env.ok(&["volume", "prune", "--force"]);
    assert_eq!(
        env.ok(&["volume", "ls", "-q"]),
        "other\n",
        "only those without a name"
    );
    env.ok(&["volume", "prune", "--all", "-f"]);
    assert_eq!(env.ok(&["volume", "ls"]), "DRIVER    VOLUME NAME\n");
    env.is_sound();
}

#[test]
fn volumes_of_the_image_have_no_name() {
    let env = Env::new();
    rich(
        &env,
        json!({"config": {"Volumes": {"/data": {}, "/opaque": {}}}}),
    );
    env.ok(&[
        "container",
        "create",
        "--name",
        "box",
        "-v",
        "mine:/opaque",
        "rich:1",
    ]);
    let mounts = env.json(&["container", "inspect", "box"])[0]["Mounts"].clone();
    assert_eq!(mounts.as_array().unwrap().len(), 2);
    let anonymous = mounts[1]["Name"].as_str().unwrap().to_owned();
    assert_eq!(
        (&mounts[1]["Destination"], anonymous.len()),
        (&json!("/data"), 64)
    );
    assert!(
        std::path::Path::new(mounts[1]["Source"].as_str().unwrap())
            .join("seed")
            .exists()
    );
    env.ok(&["container", "rm", "--volumes", "box"]);
    assert_eq!(env.ok(&["volume", "ls", "-q"]), "mine\n");
    env.ok(&["container", "create", "--name", "box", "rich:1"]);
    env.ok(&["container", "rm", "box"]);
    assert_eq!(env.ok(&["volume", "ls", "-q"]).lines().count(), 3);
    env.ok(&["system", "prune", "--force", "--volumes"]);
    assert_eq!(env.ok(&["volume", "ls", "-q"]), "mine\n");
    for wrong in [
        "none/such:/x",
        "/no/such/dir:/x",
        "v:relative",
        "v:/",
        "v:/a/../b",
    ] {
        env.fails(&["container", "create", "-v", wrong, "rich:1"]);
    }
    env.fails(&["container", "create", "-v", "a:/x", "-v", "b:/x", "rich:1"]);
    let wrong = env.run(&["container", "create", "-v", "a:/b:c:d", "rich:1"]);
    assert_eq!(wrong.status.code(), Some(2));
    env.is_sound();
}
