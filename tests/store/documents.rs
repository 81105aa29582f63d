//! Documents and archives that are not what they should be: each is refused in one line, and the
//! store stays as it was.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::env::Env;
use crate::make::{
    Image, Layer, PLAIN, Pack, digest, layout_of, small_layers, write_dir, write_tar,
};

type Files = BTreeMap<String, Vec<u8>>;

/// An image whose manifest was changed; everything refers to it as it is now.
fn with_manifest(change: impl FnOnce(&mut Value)) -> Files {
    let mut image = Image::new(small_layers(2), Pack::Gzip);
    let mut manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    change(&mut manifest);
    image.manifest = manifest.to_string().into_bytes();
    image
        .blobs
        .insert(digest(&image.manifest), image.manifest.clone());
    image.layout("x")
}

fn with_index(change: impl FnOnce(&mut Value)) -> Files {
    let image = Image::new(small_layers(2), Pack::Gzip);
    let mut index = json!({"schemaVersion": 2, "manifests": [image.descriptor("x")]});
    change(&mut index);
    layout_of(&index, &[&image])
}

fn with_config(more: Value) -> Files {
    Image::with(small_layers(2), Pack::Gzip, more).layout("x")
}

fn with_docker(change: impl FnOnce(&mut Value)) -> Files {
    let mut files = Image::new(small_layers(2), Pack::Plain).docker("x:1");
    let mut list: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    change(&mut list);
    files.insert("manifest.json".into(), list.to_string().into_bytes());
    files
}

fn cases() -> Vec<(&'static str, Files, &'static str)> {
    let image = Image::new(small_layers(2), Pack::Gzip);
    let layer = || {
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        format!(
            "blobs/sha256/{}",
            &manifest["layers"][1]["digest"].as_str().unwrap()[7..]
        )
    };
    let changed = |change: &dyn Fn(&mut Files)| {
        let mut files = image.layout("x");
        change(&mut files);
        files
    };
    let big = vec![b' '; (8 << 20) + 1];
    let swap = |files: &mut Files, name: &str, bytes: Vec<u8>| {
        files.insert(name.to_owned(), bytes);
    };
    let config_path = format!("blobs/sha256/{}", &image.id()[7..]);
    let mut config_confused = image.layout("x");
    config_confused.insert(config_path.clone(), b"{}".to_vec());
    let hostile = |tar: Vec<u8>| Image::new(vec![tar], Pack::Gzip).layout("x");
    vec![
        (
            "manifests and layers",
            with_manifest(|m| m["manifests"] = json!([])),
            "both 'manifests'",
        ),
        (
            "an index as manifest",
            with_index(|i| {
                i["manifests"][0]["mediaType"] = json!("application/vnd.oci.image.index.v1+json")
            }),
            "referred to as",
        ),
        (
            "a digest as path",
            with_index(|i| i["manifests"][0]["digest"] = json!("sha256:../../../etc/passwd")),
            "a digest is",
        ),
        (
            "another algorithm",
            with_index(|i| i["manifests"][0]["digest"] = json!("md5:00")),
            "a digest is",
        ),
        (
            "a layer's digest as path",
            with_manifest(|m| m["layers"][0]["digest"] = json!("../../x")),
            "a digest is",
        ),
        (
            "another size",
            with_index(|i| i["manifests"][0]["size"] = json!(7)),
            "not 7",
        ),
        (
            "a layer's other size",
            with_manifest(|m| m["layers"][0]["size"] = json!(7)),
            "not 7",
        ),
        (
            "a negative size",
            with_manifest(|m| m["layers"][0]["size"] = json!(-7)),
            "is wrong",
        ),
        (
            "a missing layer",
            changed(&|files| {
                files.remove(&layer());
            }),
            "has no 'blobs/",
        ),
        (
            "a missing configuration",
            changed(&|files| {
                files.remove(&config_path);
            }),
            "has no 'blobs/",
        ),
        (
            "no index",
            changed(&|files| {
                files.remove("index.json");
            }),
            "no index.json",
        ),
        (
            "a long document",
            changed(&|files| swap(files, "index.json", big.clone())),
            "longer than 8388608",
        ),
        (
            "deep JSON",
            changed(&|files| swap(files, "index.json", b"[".repeat(100_000))),
            "index.json is wrong",
        ),
        (
            "a changed configuration",
            changed(&|files| {
                let mut config = image.config.clone();
                config[2] = b'\t';
                swap(files, &config_path, config);
            }),
            "another digest",
        ),
        ("another configuration", config_confused, "bytes, not"),
        (
            "a changed layer",
            changed(&|files| {
                let mut bytes = files[&layer()].clone();
                let end = bytes.len() - 9;
                bytes[end] ^= 0x55;
                swap(files, &layer(), bytes);
            }),
            "layer ",
        ),
        (
            "a false type",
            with_manifest(|m| {
                m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar")
            }),
            "compression",
        ),
        (
            "no layer's type",
            with_manifest(|m| m["layers"][0]["mediaType"] = json!("application/json")),
            "no layer's",
        ),
        (
            "an artifact",
            with_manifest(|m| {
                m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")
            }),
            "no image",
        ),
        (
            "too few diff_ids",
            with_config(json!({"rootfs": {"type": "layers", "diff_ids": []}})),
            "names 0 layers",
        ),
        (
            "other diff_ids",
            with_config(
                json!({"rootfs": {"type": "layers", "diff_ids": [digest(b"1"), digest(b"2")]}}),
            ),
            "layer ",
        ),
        (
            "no rootfs",
            with_config(json!({"rootfs": null})),
            "is wrong",
        ),
        (
            "a version",
            changed(&|files| {
                swap(
                    files,
                    "oci-layout",
                    br#"{"imageLayoutVersion":"2.0"}"#.to_vec(),
                )
            }),
            "version",
        ),
        (
            "a bad name",
            with_index(|i| {
                i["manifests"][0]["annotations"] =
                    json!({"org.opencontainers.image.ref.name": "a/../b:1"})
            }),
            "not a name",
        ),
        (
            "docker: a path",
            with_docker(|l| l[0]["Layers"][0] = json!("../../etc/passwd")),
            "outside",
        ),
        (
            "docker: a missing layer",
            with_docker(|l| l[0]["Layers"][1] = json!("none.tar")),
            "has no 'none.tar'",
        ),
        (
            "docker: too few layers",
            with_docker(|l| {
                l[0]["Layers"].as_array_mut().unwrap().pop();
            }),
            "names 2 layers",
        ),
        (
            "docker: the same layer twice",
            with_docker(|l| l[0]["Layers"][0] = l[0]["Layers"][1].clone()),
            "layer ",
        ),
        (
            "nothing",
            Files::from([("readme".to_owned(), b"x".to_vec())]),
            "neither oci-layout nor manifest.json",
        ),
        (
            "no image",
            with_index(|i| i["manifests"] = json!([])),
            "no image",
        ),
        (
            "a layer that leads out",
            hostile(Layer::new().file("../../escaped", b"x", &PLAIN).tar()),
            "../../escaped",
        ),
        (
            "a layer through a symlink",
            hostile(
                Layer::new()
                    .symlink("d", "/tmp")
                    .file("d/escaped", b"x", &PLAIN)
                    .tar(),
            ),
            "d/escaped",
        ),
    ]
}

#[test]
fn wrong_images_are_refused_and_leave_nothing() {
    let env = Env::new();
    let layer = Layer::new().file("good", b"good", &PLAIN).tar();
    let good = Image::new(vec![layer], Pack::Gzip);
    write_dir(&good.layout("good:1"), &env.at("good"));
    env.ok(&["image", "load", "-q", "good"]);
    for (number, (what, files, expected)) in cases().into_iter().enumerate() {
        let (dir, tar) = (env.at(format!("case-{number}")), env.at("case.tar"));
        write_dir(&files, &dir);
        let said = env.fails(&["image", "load", "-q", &format!("case-{number}")]);
        assert!(said.contains(expected), "{what}: {said}");
        write_tar(&files, &tar);
        let said = env.fails(&["image", "load", "-q", "case.tar"]);
        assert!(said.contains(expected), "{what}, as tar: {said}");
    }
    assert_eq!(
        env.ok(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]),
        "good:1\n"
    );
    assert_eq!(env.ok(&["layer", "ls", "-q"]).lines().count(), 1);
    assert!(!env.dir.path().parent().unwrap().join("escaped").exists());
    env.is_sound();
}

#[test]
fn what_is_no_archive_is_refused() {
    let env = Env::new();
    fs::write(env.at("text"), "this is no archive").unwrap();
    fs::write(env.at("empty"), "").unwrap();
    fs::create_dir(env.at("dir")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", env.at("dir/oci-layout")).unwrap();
    for source in ["text", "empty", "dir", "missing"] {
        env.fails(&["image", "load", source]);
    }
    // Cut off in the middle of a layer.
    write_tar(
        &Image::new(small_layers(1), Pack::Plain).docker("x:1"),
        &env.at("whole.tar"),
    );
    let whole = fs::read(env.at("whole.tar")).unwrap();
    for length in [700, whole.len() / 2, whole.len() - 3000] {
        fs::write(env.at("cut.tar"), &whole[..length]).unwrap();
        env.fails(&["image", "load", "cut.tar"]);
    }
    env.is_sound();
}

#[test]
fn the_limits_that_messages_name_can_be_raised() {
    let env = Env::new();
    // Each layer is more than one option allows by default, or than the first of each pair does.
    let deep = format!("{}end", "directory/".repeat(500));
    let layer = Layer::new()
        .file("/absolute", b"x", &PLAIN)
        .file(&deep, b"x", &PLAIN)
        .tar();
    write_dir(
        &Image::new(vec![layer], Pack::Gzip).layout("odd:1"),
        &env.at("odd"),
    );
    let good = ["--absolute-names", "--max-path", "8192"];
    let load = ["image", "load", "-q", "odd"];
    for (args, option) in [
        (&good[1..], "--absolute-names"),
        (&good[..1], "--max-path"),
        (&["--max-size", "1K"], "--max-size"),
        (&["--max-entries", "1"], "--max-entries"),
        (&["--max-pax", "10"], "--max-pax"),
        (&["--max-json", "10"], "--max-json"),
    ] {
        let args = match args.len() {
            2 if option != "--absolute-names" => [&good[..], args].concat(),
            _ => args.to_vec(),
        };
        let said = env.fails(&[&load[..], &args].concat());
        assert!(said.contains(option), "{option}: {said}");
    }
    env.ok(&[&load[..], &good].concat());
    // What was accepted once is read again without a limit.
    env.is_sound();
    fs::remove_file(
        env.json(&["layer", "ls", "--json"])[0]["Path"]
            .as_str()
            .map(|path| format!("{path}/absolute"))
            .unwrap(),
    )
    .unwrap();
    env.ok(&["system", "check", "--deep", "--repair"]);
    env.is_sound();
}
