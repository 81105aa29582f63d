//! Containers: what they show, what they change, what they take.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;

use crate::env::{Env, assert_same, survey};
use crate::make::{Image, Layer, NewMetadata, PLAIN, Pack, rich_layers, small_layers, write_dir};

fn rich(env: &Env) -> Image {
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_dir(&image.layout("rich:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
    image
}

#[test]
fn changes_are_told_committed_and_seen_again() {
    support::need_fuse!();
    let env = Env::new();
    rich(&env);
    let id = env.ok(&["container", "create", "--name", "box", "rich:1"]);
    let merged = env.mount(&id[..6]);
    assert_eq!(env.mount("box"), merged, "mounting again says where it is");
    support::shell(
        &merged,
        "
        echo changed > etc/conf
        rm etc/gone
        rm -r tree && mkdir tree && touch tree/only
        mkdir -p added/sub && ln etc/old added/link && mkfifo added/sub/p
        chmod 700 turned
        mv opaque/above moved
        setfattr -n user.mine -v 1 bin/tool",
    );
    let said = env.ok(&["container", "diff", "box"]);
    let expected = [
        "A /added",
        "A /added/link",
        "A /added/sub",
        "A /added/sub/p",
        "C /bin",
        "C /bin/tool",
        "C /etc",
        "C /etc/conf",
        "D /etc/gone",
        "C /etc/old",
        "A /moved",
        "C /opaque",
        "D /opaque/above",
        "C /tree",
        "D /tree/again",
        "D /tree/new",
        "A /tree/only",
        "C /turned",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    let before = survey(&merged);
    // Committed while it is mounted.
    let new = env.ok(&[
        "container",
        "commit",
        "-a",
        "me",
        "-m",
        "why",
        "--change",
        "CMD [\"/x\", \"y\"]",
        "--change",
        "ENV B=c",
        "box",
        "app:2",
    ]);
    let inspected = env.json(&["image", "inspect", "app:2"]);
    assert_eq!(inspected[0]["Id"], new.trim_end());
    assert_eq!(inspected[0]["Config"]["Cmd"], json!(["/x", "y"]));
    assert_eq!(inspected[0]["Config"]["Env"], json!(["PATH=/bin", "B=c"]));
    assert_eq!(
        inspected[0]["RootFS"]["Layers"].as_array().unwrap().len(),
        4
    );
    assert_eq!(
        (&inspected[0]["Author"], &inspected[0]["Comment"]),
        (&json!("me"), &json!("why"))
    );
    let history = env.ok(&[
        "image",
        "history",
        "--format",
        "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}",
        "app:2",
    ]);
    let lines: Vec<&str> = history.lines().collect();
    assert!(
        lines[0].starts_with(&new[7..19]) && lines[0].ends_with("|why"),
        "{}",
        lines[0]
    );
    assert_eq!(lines[1], "<missing>|ENV A=b|0B|");
    assert_eq!(lines.len(), 7);
    env.ok(&["container", "create", "--name", "second", "app:2"]);
    let second = env.mount("second");
    assert_same(&before, &survey(&second), "the committed image");
    assert_eq!(env.ok(&["container", "diff", "second"]), "");
    env.ok(&["container", "umount", "box", "second"]);
    assert_same(&before, &survey(&env.mount("box")), "after a remount");
    env.ok(&["container", "umount", "box"]);
    // The same changes give the same image, whatever the store.
    let epoch = |env: &Env, name: &str| {
        let output = env
            .command(&["container", "commit", "box", name])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(epoch(&env, "one"), epoch(&env, "other"));
    env.is_sound();
}

#[test]
fn sizes_are_dockers_and_containers_are_thin() {
    let env = Env::new();
    let image = rich(&env);
    let size = env.json(&["image", "ls", "--json"])[0]["Size"]
        .as_u64()
        .unwrap();
    assert!(size > 370_000, "{size}");
    // Blocks are kept for it before it needs them.
    let catalog = || -> u64 {
        let files = ["catalog.sqlite", "catalog.sqlite-wal"].map(|name| env.root().join(name));
        files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum()
    };
    let before = catalog();
    for number in 0..5 {
        env.ok(&[
            "container",
            "create",
            "--name",
            &format!("c{number}"),
            "rich:1",
        ]);
    }
    let dirs = support::shell(env.root().join("containers"), "du -sB1 . | cut -f1");
    let rows = catalog() - before;
    let each = (dirs.trim().parse::<u64>().unwrap() + rows) / 5;
    println!("{each} bytes for each container");
    assert!(each < 40 * 1024, "{each} bytes for each container");
    fs::write(
        env.root()
            .join("containers")
            .join(
                env.json(&["container", "ls", "--json"])[0]["ID"]
                    .as_str()
                    .unwrap(),
            )
            .join("upper/f"),
        [0; 1500],
    )
    .unwrap();
    let listed = env.json(&["container", "ls", "--size", "--json"]);
    assert_eq!(listed[0]["Size"], 1500);
    assert_eq!(listed[0]["VirtualSize"], 1500 + size);
    let table = env.ok(&["container", "ls", "-s"]);
    assert!(
        table
            .lines()
            .next()
            .unwrap()
            .starts_with("CONTAINER ID   IMAGE     COMMAND       CREATED"),
        "{table}"
    );
    assert!(table.contains("1.5kB (virtual "), "{table}");
    let layers = env.json(&["layer", "ls", "--json"]);
    assert_eq!(
        layers[0]["Containers"],
        json!(["c0", "c1", "c2", "c3", "c4"])
    );
    assert_eq!(layers[0]["Images"], json!(["rich:1"]));
    let df = env.json(&["system", "df", "--json"]);
    assert_eq!(
        (&df[0]["Size"], &df[0]["Active"], &df[1]["TotalCount"]),
        (&json!(size), &json!(1), &json!(5))
    );
    // With containers an image stays, but by force; they keep their layers.
    let said = env.fails(&["image", "rm", "rich:1"]);
    assert!(said.contains("used by container c0, c1"), "{said}");
    let removed = env.ok(&["image", "rm", "--force", "rich:1"]);
    assert!(
        removed.contains(&format!("Deleted: {}", image.id())),
        "{removed}"
    );
    assert_eq!(env.ok(&["layer", "ls", "-q"]).lines().count(), 3);
    env.ok(&["container", "rm", "c0", "c1", "c2", "c3", "c4"]);
    assert_eq!(env.ok(&["layer", "ls", "-q"]), "");
    env.ok(&["system", "prune", "--force"]);
    env.is_sound();
}

#[test]
fn a_mounted_container_stays_until_it_is_forced() {
    support::need_fuse!();
    let env = Env::new();
    rich(&env);
    env.ok(&["container", "create", "--name", "box", "rich:1"]);
    let merged = env.mount("box");
    let said = env.fails(&["container", "rm", "box"]);
    assert!(said.contains("mounted or in use"), "{said}");
    assert_eq!(
        env.json(&["container", "ls", "--json"])[0]["Status"],
        "mounted"
    );
    env.ok(&["container", "rm", "--force", "box"]);
    assert!(!merged.exists());
    // A killed daemon.
    env.ok(&["container", "create", "--name", "box", "rich:1"]);
    let merged = env.mount("box");
    let connection = support::transport::connection(&merged).unwrap();
    let daemon = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| support::transport::serves(*pid, connection))
        .unwrap();
    let mut mount = support::Mount::found(merged.clone());
    mount.pid = Some(daemon);
    mount.kill();
    assert_eq!(
        env.json(&["container", "ls", "--json"])[0]["Status"],
        "created"
    );
    let merged = env.mount("box");
    assert!(merged.join("etc/conf").exists());
    env.ok(&["container", "umount", "box"]);
    env.is_sound();
}

#[test]
fn an_image_is_mounted_for_a_look_and_leaves_nothing() {
    support::need_fuse!();
    let env = Env::new();
    rich(&env);
    fs::create_dir(env.at("m")).unwrap();
    env.ok(&["mount", "--image", "rich:1", "m"]);
    assert_eq!(
        fs::read_to_string(env.at("m/tree/new")).unwrap(),
        "new tree"
    );
    fs::write(env.at("m/written"), "x").unwrap();
    env.ok(&["umount", "m"]);
    assert_eq!(env.ok(&["container", "ls", "-q"]), "");
    env.ok(&["mount", "--image", "rich:1", "--keep", "m"]);
    fs::write(env.at("m/written"), "x").unwrap();
    env.ok(&["umount", "m"]);
    let kept = env.ok(&["container", "ls", "-q"]);
    assert_eq!(
        env.ok(&["container", "diff", kept.trim_end()]),
        "A /written\n"
    );
    env.fails(&["mount", "--image", "none", "m"]);
    assert_eq!(env.ok(&["container", "ls", "-q"]), kept);
    env.ok(&["container", "rm", kept.trim_end()]);
    env.is_sound();
}

/// What was mounted at the same place later is not the container's.
#[test]
fn only_its_own_mount_is_a_containers() {
    support::need_fuse!();
    let env = Env::new();
    rich(&env);
    fs::create_dir(env.at("place")).unwrap();
    let mount = || env.ok(&["mount", "--image", "rich:1", "--keep", "place"]);
    mount();
    let first = env.ok(&["container", "ls", "-q"]);
    let first = first.trim_end();
    support::shell(env.dir.path(), "umount place");
    mount();
    let both = env.ok(&["container", "ls", "-q"]);
    let second = both.lines().find(|id| *id != first).unwrap();
    let status = |id: &str| env.ok(&["container", "inspect", "-f", "{{.State.Status}}", id]);
    assert_eq!(status(first), "created\n");
    env.fails(&["container", "umount", first]);
    env.ok(&["container", "rm", "-f", first]);
    assert_eq!(status(second), "mounted\n");
    assert!(env.at("place/etc").exists());
    env.ok(&["container", "umount", second]);
}

#[test]
fn many_layers_are_mounted_fast() {
    support::need_fuse!();
    let env = Env::new();
    let image = Image::new(small_layers(130), Pack::Gzip);
    write_dir(&image.layout("deep:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
    let start = std::time::Instant::now();
    env.ok(&["container", "create", "--name", "box", "deep:1"]);
    let merged = env.mount("box");
    let count = fs::read_dir(merged.join("d")).unwrap().count();
    println!(
        "create, mount and list over 130 layers: {:?}",
        start.elapsed()
    );
    assert_eq!(count, 131);
    assert_eq!(fs::read_to_string(merged.join("d/same")).unwrap(), "f129");
    env.ok(&["container", "rm", "-f", "box"]);
}

#[test]
fn without_fuse_the_tree_is_copied() {
    let env = Env::new();
    rich(&env);
    // What is shown elsewhere is not copied, and that is said; what an image declares as a volume
    // is a part of the copy.
    let said = env.fails(&[
        "container",
        "create",
        "--driver=vfs",
        "-v",
        "v:/v",
        "rich:1",
    ]);
    assert!(said.contains("--driver fuse"), "{said}");
    let declares = json!({"config": {"Volumes": {"/d": {}}}});
    let image = Image::with(small_layers(2), Pack::Gzip, declares);
    write_dir(&image.layout("declares:1"), &env.at("declares"));
    env.ok(&["image", "load", "-q", "declares"]);
    env.ok(&[
        "container",
        "create",
        "--driver=vfs",
        "--name=d",
        "declares:1",
    ]);
    assert_eq!(fs::read(env.mount("d").join("d/same")).unwrap(), b"f1");
    assert_eq!(env.ok(&["volume", "ls", "-q"]), "");
    env.ok(&["container", "rm", "d"]);
    env.ok(&[
        "container",
        "create",
        "--driver",
        "vfs",
        "--name",
        "copy",
        "rich:1",
    ]);
    let tree = env.mount("copy");
    assert_eq!(
        env.json(&["container", "ls", "--json"])[0]["Status"],
        "copied"
    );
    if support::fuse_is_here() {
        env.ok(&["container", "create", "--name", "box", "rich:1"]);
        assert_same(&survey(&env.mount("box")), &survey(&tree), "the copy");
        env.ok(&["container", "rm", "-f", "box"]);
    }
    let layers = env.json(&["layer", "ls", "--json"]);
    let paths = layers.as_array().unwrap().iter();
    let layer = paths
        .map(|layer| layer["Path"].as_str().unwrap().to_owned())
        .find(|path| std::path::Path::new(path).join("zeros").exists())
        .unwrap();
    let inode = |path: std::path::PathBuf| fs::metadata(path).unwrap().ino();
    assert_ne!(
        inode(std::path::Path::new(&layer).join("zeros")),
        inode(tree.join("zeros"))
    );
    assert_eq!(env.ok(&["container", "diff", "copy"]), "");
    support::shell(
        &tree,
        "echo x >> etc/conf; rm etc/gone; mkdir new; rm -r tree; chmod 600 moved 2>/dev/null || true",
    );
    let said = env.ok(&["container", "diff", "copy"]);
    assert_eq!(said, "C /etc\nC /etc/conf\nD /etc/gone\nA /new\nD /tree\n");
    env.ok(&["container", "commit", "copy", "from-copy"]);
    env.ok(&[
        "container",
        "create",
        "--driver",
        "vfs",
        "--name",
        "again",
        "from-copy",
    ]);
    assert_same(
        &survey(&tree),
        &survey(&env.mount("again")),
        "the committed copy",
    );
    assert_eq!(
        fs::metadata(&tree).unwrap().permissions().mode() & 0o777,
        0o755
    );
    env.ok(&["container", "rm", "copy", "again"]);
    env.is_sound();
}

#[test]
fn many_changes_take_little_memory() {
    const MANY: usize = 60_000;
    const MIB: u64 = 1 << 20;
    let env = Env::new();
    rich(&env);
    env.ok(&["container", "create", "--name", "box", "rich:1"]);
    let id = env.ok(&["container", "ls", "-q", "--no-trunc"]);
    let upper = env
        .root()
        .join("containers")
        .join(id.trim_end())
        .join("upper");
    let dir = upper.join("directory");
    fs::create_dir(&dir).unwrap();
    for file in 0..MANY {
        fs::File::create(dir.join(format!("a-file-with-a-long-name-{file}"))).unwrap();
    }
    let name = std::ffi::OsStr::from_bytes(b"not-utf8-\xff");
    fs::write(upper.join(name), "").unwrap();
    let measured = |json: &[&str]| -> (u64, Vec<u8>) {
        const RUN: &str = "import resource, subprocess, sys\n\
            subprocess.run(sys.argv[1:], check=True)\n\
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)";
        let output = support::programs::program("python3")
            .args(["-c", RUN, support::binary().to_str().unwrap()])
            .args(["container", "diff", "box"])
            .args(json)
            .env("UNIONMOUNT_ROOT", env.root())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (said.trim().parse::<u64>().unwrap() * 1024, output.stdout)
    };
    let (text_peak, text) = measured(&[]);
    assert!(text.ends_with(b"A /not-utf8-\xff\n"));
    let lines = text.split(|byte| *byte == b'\n').count();
    assert_eq!(lines, MANY + 3);
    let (peak, json_text) = measured(&["--json"]);
    let all: serde_json::Value = serde_json::from_slice(&json_text).unwrap();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), MANY + 2);
    let last =
        json!({"Kind": "A", "Path": "/not-utf8-\u{fffd}", "PathHex": "2f6e6f742d757466382dff"});
    assert_eq!(all.last(), Some(&last));
    println!(
        "{} and {} MiB for {MANY} changes",
        text_peak / MIB,
        peak / MIB
    );
    assert!(
        peak < 32 * MIB && text_peak < 32 * MIB,
        "{text_peak} {peak}"
    );
}

/// A directory that its layer has no entry for looks as it does below, and a root that one layer
/// describes is the root: in containers of both kinds, in what is exported of them, and in what is
/// committed.
#[test]
fn what_a_layer_does_not_describe_looks_as_below() {
    support::need_fuse!();
    let env = Env::new();
    let looks = |mode, owner, mtime| NewMetadata {
        mode,
        owner,
        mtime,
        xattrs: &[("user.mark", b"below")],
    };
    let base = Layer::new()
        .described("./", &looks(0o555, (3, 4), "1500000000"))
        .described("tmp/", &looks(0o1777, (7, 8), "1400000000"))
        .described("tmp/in/", &looks(0o2750, (9, 9), "1300000000"))
        .tar();
    // Another base of the same layer.
    let other = Layer::new()
        .described("tmp/", &looks(0o700, (1, 1), "1200000000"))
        .tar();
    let top = Layer::new()
        .file("tmp/in/f", b"f", &PLAIN)
        .file("made/up/f", b"f", &PLAIN)
        .tar();
    let again = Layer::new().file("tmp/in/g", b"g", &PLAIN).tar();
    let describe = |tree: &Path, names: &[&str]| -> Vec<String> {
        names
            .iter()
            .map(|name| {
                let meta = fs::symlink_metadata(tree.join(name)).unwrap();
                let mtime = if *name == "." { 0 } else { meta.mtime() };
                format!(
                    "{name} {:o} {}:{} {mtime}",
                    meta.mode() & 0o7777,
                    meta.uid(),
                    meta.gid()
                )
            })
            .collect()
    };
    for (tag, layers, names, expected) in [
        (
            "one",
            vec![base, top.clone(), again],
            &[".", "tmp", "tmp/in", "made"][..3],
            vec![
                ". 555 3:4 0",
                "tmp 1777 7:8 1400000000",
                "tmp/in 2750 9:9 1300000000",
            ],
        ),
        (
            "two",
            vec![other, top],
            &["tmp"][..],
            vec!["tmp 700 1:1 1200000000"],
        ),
    ] {
        let image = Image::new(layers, Pack::Gzip);
        write_dir(&image.layout(&format!("{tag}:1")), &env.at(tag));
        env.ok(&["image", "load", "-q", tag]);
        for driver in ["fuse", "vfs"] {
            let name = format!("{tag}-{driver}");
            env.ok(&[
                "container",
                "create",
                "--driver",
                driver,
                "--name",
                &name,
                &format!("{tag}:1"),
            ]);
            let tree = env.mount(&name);
            assert_eq!(describe(&tree, names), expected, "{name}");
            let marks =
                support::shell(&tree, "getfattr --only-values -n user.mark tmp 2>/dev/null");
            assert_eq!(marks, "below", "{name}");
            assert_eq!(env.ok(&["container", "diff", &name]), "", "{name}");
            // Copied up it stays what it is.
            fs::write(tree.join("tmp/new"), "new").unwrap();
            fs::remove_file(tree.join("tmp/new")).unwrap();
            let without_time = |line: &str| line.rsplit_once(' ').unwrap().0.to_owned();
            let now: Vec<String> = describe(&tree, names)
                .iter()
                .map(|l| without_time(l))
                .collect();
            let then: Vec<String> = expected.iter().map(|l| without_time(l)).collect();
            assert_eq!(now, then, "{name}");
            env.ok(&["container", "export", &name, "-o", "out.tar"]);
            let out = env.at(format!("out-{name}"));
            fs::create_dir(&out).unwrap();
            support::shell(&out, "tar -xpf ../out.tar");
            let meta = fs::metadata(out.join("tmp")).unwrap();
            let first = expected
                .iter()
                .find(|line| line.starts_with("tmp "))
                .unwrap();
            let shown = format!(
                "tmp {:o} {}:{} ",
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid()
            );
            assert!(first.starts_with(&shown), "{name}: {shown}");
            fs::write(tree.join("tmp/kept"), "kept").unwrap();
            env.ok(&["container", "commit", &name, &format!("{name}:2")]);
            fs::create_dir(env.at(format!("m-{name}"))).unwrap();
            env.ok(&[
                "mount",
                "--image",
                &format!("{name}:2"),
                &format!("m-{name}"),
            ]);
            let committed = describe(&env.at(format!("m-{name}")), &names[..1]);
            if tag == "one" {
                assert_eq!(committed, [". 555 3:4 0"], "{name}");
            }
            env.ok(&["umount", &format!("m-{name}")]);
        }
    }
    env.is_sound();
    for tag in ["one", "two"] {
        env.ok(&["container", "umount", &format!("{tag}-fuse")]);
    }
}
