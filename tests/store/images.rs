//! Loading and saving: every form gives the same image, the same tree as others see, and the
//! digests it came with.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::env::{Env, assert_same, have, survey};
use crate::make::{Image, Pack, layout_of, rich_layers, small_layers, write_dir, write_tar};

#[test]
fn every_form_gives_the_same_image_and_each_layer_is_stored_once() {
    let env = Env::new();
    let gzip = Image::new(rich_layers(), Pack::Gzip);
    let zstd = Image::new(rich_layers(), Pack::Zstd);
    let plain = Image::new(rich_layers(), Pack::Plain);
    write_dir(
        &gzip.layout("docker.io/library/rich:gzip"),
        &env.at("layout"),
    );
    write_tar(&zstd.layout("rich:zstd"), &env.at("zstd.tar"));
    write_tar(&plain.docker("rich:docker"), &env.at("docker.tar"));
    let loaded = env.json(&["image", "load", "--json", "layout"]);
    assert_eq!(loaded[0]["ID"], gzip.id());
    assert_eq!(loaded[0]["Layers"][2]["Status"], "unpacked");
    let again = env.json(&["image", "load", "--json", "zstd.tar"]);
    assert_eq!(again[0]["Layers"][2]["Status"], "already exists");
    let output = env.run(&["image", "load", "docker.tar"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr)
            .matches("already exists")
            .count(),
        3
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Loaded image: rich:docker\n"
    );
    // A compressed archive on standard input.
    let packed = zstd::encode_all(&fs::read(env.at("docker.tar")).unwrap()[..], 1).unwrap();
    fs::write(env.at("packed"), packed).unwrap();
    let input = fs::File::open(env.at("packed")).unwrap();
    let piped = env
        .command(&["image", "load", "-", "--name", "piped", "-q"])
        .stdin(input)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&piped.stdout),
        "Loaded image: piped:latest\n"
    );

    let images = env.json(&["image", "ls", "--json"]);
    let ids: Vec<&str> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["ID"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [gzip.id().as_str(); 4]);
    assert_eq!(fs::read_dir(env.root().join("layers")).unwrap().count(), 3);
    let inspected = env.json(&["image", "inspect", "rich:gzip"]);
    let diff_ids: Vec<String> = gzip.layers.iter().map(|l| crate::make::digest(l)).collect();
    assert_eq!(inspected[0]["RootFS"]["Layers"], json!(diff_ids));
    assert_eq!(inspected[0]["Manifest"]["Digest"], gzip.manifest_digest());
    assert_eq!(
        env.json(&["image", "inspect", "rich:zstd"])[0]["Manifest"]["Digest"],
        zstd.manifest_digest()
    );
    env.is_sound();
}

#[test]
fn the_merged_tree_is_what_others_see() {
    support::need_fuse!();
    let env = Env::new();
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_dir(&image.layout("rich"), &env.at("layout"));
    env.ok(&["image", "load", "layout"]);
    env.ok(&["container", "create", "--name", "box", "layout:rich"]);
    let merged = survey(&env.mount("box"));
    assert_eq!(
        merged.iter().filter(|line| line.contains(".wh.")).count(),
        0
    );
    if have("umoci") {
        let bundle = env.at("bundle");
        let status = Command::new("umoci")
            .args(["unpack", "--image"])
            .arg(format!("{}:rich", env.at("layout").display()))
            .arg(&bundle)
            .status()
            .unwrap();
        assert!(status.success());
        assert_same(&survey(&bundle.join("rootfs")), &merged, "umoci unpack");
    }
    env.ok(&["container", "export", "box", "-o", "flat.tar"]);
    fs::create_dir(env.at("flat")).unwrap();
    let names = support::shell(
        env.dir.path(),
        "tar -xpf flat.tar -C flat --xattrs --xattrs-include='*' && find flat | wc -l",
    );
    assert_eq!(names.trim().parse::<usize>().unwrap(), merged.len() + 1);
    env.ok(&["container", "rm", "--force", "box"]);
    env.is_sound();
}

/// The digests of everything in a saved archive, by what it is.
fn digests(env: &Env, archive: &str) -> (String, String, Vec<String>) {
    let read = |name: &str| support::shell(env.dir.path(), &format!("tar -xOf {archive} {name}"));
    let index: serde_json::Value = serde_json::from_str(&read("index.json")).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let text = read(&format!("blobs/sha256/{}", &manifest[7..]));
    assert_eq!(crate::make::digest(text.as_bytes()), manifest);
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let layers: Vec<String> = parsed["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["digest"].as_str().unwrap().to_owned())
        .collect();
    for digest in &layers {
        let sum = support::shell(
            env.dir.path(),
            &format!(
                "tar -xOf {archive} blobs/sha256/{} | sha256sum",
                &digest[7..]
            ),
        );
        assert_eq!(format!("sha256:{}", &sum[..64]), *digest);
    }
    (
        manifest,
        parsed["config"]["digest"].as_str().unwrap().to_owned(),
        layers,
    )
}

#[test]
fn digests_come_out_as_they_went_in() {
    let env = Env::new();
    for (pack, name) in [
        (Pack::Gzip, "gzip"),
        (Pack::Zstd, "zstd"),
        (Pack::Plain, "plain"),
    ] {
        let image = Image::new(rich_layers(), pack);
        write_tar(&image.layout(&format!("rich:{name}")), &env.at("in.tar"));
        env.ok(&["image", "load", "-q", "in.tar"]);
        env.ok(&["image", "save", &format!("rich:{name}"), "-o", "out.tar"]);
        let saved = digests(&env, "out.tar");
        assert_eq!(saved, digests(&env, "in.tar"), "{name}");
        assert_eq!((saved.0, saved.1), (image.manifest_digest(), image.id()));
        let first = fs::read(env.at("out.tar")).unwrap();
        let piped = env.run(&["image", "save", &format!("rich:{name}")]);
        assert!(
            piped.stdout == first,
            "{name}: the same image gives the same archive"
        );
    }
    // Another compression: other layers, the same configuration.
    let image = Image::new(rich_layers(), Pack::Plain);
    for compression in ["gzip", "zstd", "none"] {
        env.ok(&[
            "image",
            "save",
            "rich:zstd",
            "--compress",
            compression,
            "-o",
            "packed.tar",
        ]);
        let (_, config, layers) = digests(&env, "packed.tar");
        assert_eq!(config, image.id());
        if compression == "none" {
            let plain: Vec<String> = image
                .layers
                .iter()
                .map(|l| crate::make::digest(l))
                .collect();
            assert_eq!(layers, plain);
        }
    }
    // docker's form has the plain tars, unless a compression is asked for: then all have it, also
    // those that came so.
    let begins = |name: &str, magic: &[u8]| {
        env.ok(&[
            "image",
            "save",
            "--format",
            "docker",
            "--compress",
            name,
            "rich:gzip",
            "-o",
            "packed.tar",
        ]);
        let read = |member: &str| {
            let tar = std::process::Command::new("tar")
                .args(["-xOf", "packed.tar", member])
                .current_dir(env.dir.path())
                .output()
                .unwrap();
            assert!(tar.status.success(), "{name}: {member}");
            tar.stdout
        };
        let list: serde_json::Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        let members = list[0]["Layers"].as_array().unwrap();
        assert_eq!(members.len(), image.layers.len());
        for member in members {
            let bytes = read(member.as_str().unwrap());
            assert!(bytes.starts_with(magic), "{name}: {:?}", &bytes[..4]);
        }
        let other = Env::new();
        fs::copy(env.at("packed.tar"), other.at("packed.tar")).unwrap();
        let loaded = other.json(&["image", "load", "packed.tar", "--json"]);
        assert_eq!(loaded[0]["ID"], json!(image.id()), "{name}");
    };
    begins("gzip", &[0x1f, 0x8b]);
    begins("zstd", &[0x28, 0xb5, 0x2f, 0xfd]);
    env.ok(&[
        "image",
        "save",
        "--format",
        "docker",
        "rich:gzip",
        "rich:zstd",
        "-o",
        "docker.tar",
    ]);
    let list = support::shell(env.dir.path(), "tar -xOf docker.tar manifest.json");
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(
        list[0]["RepoTags"],
        json!(["docker.io/library/rich:gzip", "docker.io/library/rich:zstd"])
    );
    for (layer, name) in image
        .layers
        .iter()
        .zip(list[0]["Layers"].as_array().unwrap())
    {
        let sum = support::shell(
            env.dir.path(),
            &format!("tar -xOf docker.tar {} | sha256sum", name.as_str().unwrap()),
        );
        assert_eq!(format!("sha256:{}", &sum[..64]), crate::make::digest(layer));
    }
    let other = Env::new();
    fs::copy(env.at("docker.tar"), other.at("docker.tar")).unwrap();
    let loaded = other.json(&["image", "load", "docker.tar", "--json"]);
    assert_eq!(
        (
            &loaded[0]["ID"],
            loaded[0]["Names"].as_array().unwrap().len()
        ),
        (&json!(image.id()), 2)
    );
    other.is_sound();
    env.is_sound();
}

#[test]
fn others_read_what_is_saved() {
    let env = Env::new();
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_dir(&image.layout("docker.io/library/rich:1"), &env.at("in"));
    env.ok(&["image", "load", "-q", "in"]);
    env.ok(&["image", "save", "rich:1", "-o", "oci.tar"]);
    env.ok(&[
        "image",
        "save",
        "rich:1",
        "--format",
        "docker",
        "-o",
        "docker.tar",
    ]);
    if have("skopeo") {
        for source in ["oci-archive:oci.tar", "docker-archive:docker.tar"] {
            let id = support::shell(
                env.dir.path(),
                &format!("skopeo inspect --config --raw {source} | sha256sum"),
            );
            assert_eq!(format!("sha256:{}", &id[..64]), image.id(), "{source}");
            support::shell(
                env.dir.path(),
                &format!("rm -rf copied; skopeo copy -q --insecure-policy {source} oci:copied:x"),
            );
            let back = env.json(&["image", "load", "copied", "--json"]);
            assert_eq!(back[0]["Layers"][0]["Status"], "already exists", "{source}");
        }
    }
    if have("umoci") {
        support::shell(
            env.dir.path(),
            "mkdir layout && tar -xf oci.tar -C layout && umoci unpack --image layout:docker.io/library/rich:1 bundle >/dev/null 2>&1 || umoci ls --layout layout",
        );
    }
    if have("podman") && rustix::process::geteuid().is_root() {
        let podman = "podman --root $PWD/pr --runroot $PWD/prr --storage-driver vfs";
        for archive in ["oci.tar", "docker.tar"] {
            let said = support::shell(
                env.dir.path(),
                &format!(
                    "{podman} load -q -i {archive} && {podman} images --no-trunc -q && {podman} rmi -fa >/dev/null"
                ),
            );
            assert!(said.contains(&image.id()), "{archive}: {said}");
        }
    }
    env.is_sound();
}

#[test]
fn a_platform_is_chosen() {
    let env = Env::new();
    let images: Vec<Image> = ["amd64", "arm64", "s390x"]
        .iter()
        .map(|arch| Image::with(small_layers(1), Pack::Gzip, json!({"architecture": arch})))
        .collect();
    let entry = |image: &Image, os: &str, arch: &str| {
        let mut entry = image.descriptor("x");
        entry["platform"] = json!({"os": os, "architecture": arch});
        entry.as_object_mut().unwrap().remove("annotations");
        entry
    };
    let inner = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&images[0], "linux", "amd64"), entry(&images[1], "linux", "arm64"),
                      entry(&images[2], "unknown", "unknown")],
    })
    .to_string()
    .into_bytes();
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": crate::make::digest(&inner), "size": inner.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/multi:1", "org.opencontainers.image.ref.name": "1"},
    }]});
    let mut files = layout_of(&index, &[&images[0], &images[1], &images[2]]);
    files.insert(
        format!("blobs/sha256/{}", &crate::make::digest(&inner)[7..]),
        inner,
    );
    write_dir(&files, &env.at("multi"));
    let own = if cfg!(target_arch = "aarch64") {
        &images[1]
    } else {
        &images[0]
    };
    assert_eq!(
        env.json(&["image", "load", "multi", "--json"])[0]["ID"],
        own.id()
    );
    assert_eq!(
        env.json(&[
            "image",
            "load",
            "multi",
            "--json",
            "--platform",
            "linux/arm64/v8"
        ])[0]["ID"],
        images[1].id()
    );
    let said = env.fails(&["image", "load", "multi", "--platform", "linux/s390x"]);
    assert!(
        said.contains("no image for linux/s390x") && said.contains("linux/amd64, linux/arm64"),
        "{said}"
    );
    // The name went from one image to the other: the first has none now.
    let none = env.ok(&["image", "ls", "--format", "{{.Repository}} {{.Tag}}"]);
    assert_eq!(
        none.lines().count(),
        if cfg!(target_arch = "aarch64") { 1 } else { 2 }
    );
    env.ok(&["system", "prune", "--force"]);
    assert_eq!(env.ok(&["image", "ls", "-q"]).lines().count(), 1);
    env.is_sound();
}

#[test]
fn memory_is_bounded() {
    let env = Env::new();
    let mut content = vec![0_u8; 40 << 20];
    fastrand::Rng::with_seed(1).fill(&mut content);
    let mut layers: Vec<_> = (0..3)
        .map(|n| {
            crate::make::Layer::new()
                .file(&format!("big{n}"), &content[n..], &crate::make::PLAIN)
                .tar()
        })
        .collect();
    let wide = crate::make::Layer::new();
    let wide = (0..60_000).fold(wide, |layer, n| {
        layer.file(&format!("wide/{n}"), b"", &crate::make::PLAIN)
    });
    layers.push(wide.tar());
    let image = Image::new(layers, Pack::Gzip);
    write_tar(&image.layout("big:1"), &env.at("big.tar"));
    drop((image, content));
    for (args, input) in [
        (&["image", "load", "-q", "-"][..], true),
        (&["image", "save", "big:1", "-o", "out.tar"], false),
        (&["system", "check", "--deep"], false),
        (&["container", "create", "--name", "box", "big:1"], false),
        (&["container", "export", "-o", "flat.tar", "box"], false),
        (&["image", "load", "-q", "out.tar"], false),
    ] {
        let mut command = Command::new("/usr/bin/env");
        command.args([
            "python3",
            "-c",
            "
import resource, subprocess, sys
r = subprocess.run(sys.argv[1:]).returncode
print('RSS', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(r)",
        ]);
        command
            .arg(support::binary())
            .args(args)
            .current_dir(env.dir.path())
            .env("UNIONMOUNT_ROOT", env.root());
        command.stdin(if input {
            Stdio::from(fs::File::open(env.at("big.tar")).unwrap())
        } else {
            Stdio::null()
        });
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let rss: u64 = said
            .lines()
            .find_map(|line| line.strip_prefix("RSS "))
            .unwrap()
            .parse()
            .unwrap();
        println!("{args:?}: {} MiB", rss / 1024);
        assert!(rss <= 64 * 1024, "{args:?} takes {rss} KiB");
    }
}

/// One sync for a load, before anything has its place; then the names, before the catalog says that
/// they are there.
#[test]
fn what_is_loaded_is_on_the_disk_before_the_catalog_knows_it() {
    if !support::images::has_program("strace") {
        return;
    }
    let env = Env::new();
    write_dir(
        &Image::new(small_layers(3), Pack::Gzip).layout("app:1"),
        &env.at("app"),
    );
    env.ok(&["image", "ls"]);
    let inner = env.command(&["image", "load", "app"]);
    let output = support::programs::program("strace")
        .args(["-f", "-qq", "-y", "-o"])
        .arg(env.at("trace"))
        .args(["-e", "trace=syncfs,fsync,rename"])
        .arg(inner.get_program())
        .args(["image", "load", "app"])
        .current_dir(env.dir.path())
        .env("UNIONMOUNT_ROOT", env.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let trace = fs::read_to_string(env.at("trace")).unwrap();
    let calls: Vec<&str> = trace.lines().collect();
    let all = |what: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..calls.len()).filter(|at| what(calls[*at])).collect()
    };
    let root = env.root().canonicalize().unwrap();
    let layers = format!("{}/layers", root.display());
    let synced = all(&|call| call.contains("syncfs("));
    let placed = all(&|call| call.contains("rename(") && call.contains(&format!(", \"{layers}/")));
    let named = all(&|call| call.contains("fsync(") && call.contains(&format!("<{layers}>")));
    assert_eq!(
        (synced.len(), placed.len(), named.len()),
        (1, 3, 1),
        "{trace}"
    );
    assert!(synced[0] < placed[0] && placed[2] < named[0], "{trace}");
}
