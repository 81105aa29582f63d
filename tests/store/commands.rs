//! Names, tables, templates, errors.

use std::fs;

use serde_json::json;

use crate::env::{Env, have};
use crate::make::{Image, Pack, small_layers, write_dir};

fn two(env: &Env) -> (Image, Image) {
    let one = Image::new(small_layers(2), Pack::Gzip);
    let other = Image::new(small_layers(3), Pack::Gzip);
    for (image, name) in [(&one, "one:1"), (&other, "localhost/team/other:2")] {
        write_dir(&image.layout(name), &env.at(name.replace(['/', ':'], "-")));
        env.ok(&["image", "load", "-q", &name.replace(['/', ':'], "-")]);
    }
    (one, other)
}

#[test]
fn images_are_found_by_name_and_by_the_beginning_of_their_id() {
    let env = Env::new();
    let (one, other) = two(&env);
    for word in [
        "one:1",
        &one.id(),
        &one.id()[7..],
        &one.id()[7..15],
        &one.manifest_digest(),
    ] {
        assert_eq!(
            env.json(&["image", "inspect", word])[0]["Id"],
            one.id(),
            "{word}"
        );
    }
    // Names without the registry of what was built here, as with podman.
    assert_eq!(
        env.json(&["image", "inspect", "team/other:2"])[0]["Id"],
        other.id()
    );
    for word in ["none", "one", "sha256:", "", "../one", "abcdefabcdef"] {
        let said = env.fails(&["image", "inspect", word]);
        assert!(said.contains("image ls"), "{said}");
    }
    env.ok(&["image", "tag", "one:1", "docker.io/library/two"]);
    let said = env.fails(&["image", "rm", &one.id()[7..20]]);
    assert!(said.contains("several names: one:1, two:latest"), "{said}");
    assert_eq!(env.ok(&["image", "rm", "one:1"]), "Untagged: one:1\n");
    let removed = env.json(&["image", "rm", "--json", "two"]);
    assert_eq!(removed[0]["Untagged"], json!(["two:latest"]));
    // Both layers are the other image's too.
    assert_eq!(removed[0]["Deleted"], json!([one.id()]));
    env.ok(&["image", "rm", "-f", &other.id()]);
    assert_eq!(fs::read_dir(env.root().join("layers")).unwrap().count(), 0);
    env.is_sound();
}

#[test]
fn listings_are_tables_templates_or_json() {
    let env = Env::new();
    let (one, _) = two(&env);
    let table = env.ok(&["image", "ls"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("REPOSITORY             TAG       IMAGE ID       CREATED"),
        "{table}"
    );
    assert!(
        table.contains(&format!(
            "one                    1         {}   ",
            &one.id()[7..19]
        )),
        "{table}"
    );
    assert_eq!(
        env.ok(&["image", "ls", "-q", "one"]),
        format!("{}\n", &one.id()[7..19])
    );
    assert_eq!(
        env.ok(&[
            "image",
            "ls",
            "--format",
            "{{.Repository}}:{{.Tag}} {{.Size}}",
            "one"
        ]),
        "one:1 22B\n"
    );
    assert!(
        env.ok(&["image", "ls", "--format", "table {{.Tag}}\\t{{.Digest}}"])
            .starts_with("TAG       DIGEST\n")
    );
    let line: serde_json::Value =
        serde_json::from_str(&env.ok(&["image", "ls", "--format", "json", "one"])).unwrap();
    assert_eq!(line["Repository"], "one");
    assert_eq!(
        env.ok(&[
            "image",
            "inspect",
            "-f",
            "{{len .RootFS.Layers}} {{.Os}}",
            "one:1"
        ]),
        "2 linux\n"
    );
    let wrong = env.run(&["image", "ls", "--format", "{{.Nope}}"]);
    assert_eq!(wrong.status.code(), Some(2));
    let history = env.ok(&["image", "history", "one:1"]);
    assert!(history.starts_with("IMAGE          CREATED"), "{history}");
    assert_eq!(history.matches("<missing>").count(), 3);
    assert_eq!(history.matches("0B").count(), 2);
    let df = env.ok(&["system", "df", "-v"]);
    assert!(
        df.contains("Images space usage:") && df.contains("SHARED SIZE"),
        "{df}"
    );
    let info = env.json(&["system", "info", "--json"]);
    assert_eq!(info["Root"], env.root().display().to_string());
    for key in [
        "Driver",
        "DriverReason",
        "Transport",
        "TransportReason",
        "Passthrough",
        "IO",
        "WhiteoutForm",
        "Kernel",
        "FileSystem",
    ] {
        assert!(!info[key].is_null(), "{key}");
    }
    for command in ["image", "container", "volume", "system"] {
        let alone = env.run(&[command]);
        let said = String::from_utf8(alone.stderr).unwrap();
        assert_eq!(alone.status.code(), Some(2));
        assert!(
            said.contains("what to do is missing") && said.lines().count() == 1,
            "{said}"
        );
        assert!(
            env.ok(&[command, "--help"]).contains("Examples:"),
            "{command}"
        );
    }
}

#[test]
fn containers_have_names_and_prefixes() {
    let env = Env::new();
    two(&env);
    let id = env.ok(&["container", "create", "one:1"]);
    let name = env.ok(&["container", "ls", "--format", "{{.Names}}"]);
    assert!(name.contains('_'), "{name}");
    for word in [id.trim_end(), &id[..5], name.trim_end()] {
        assert_eq!(
            env.json(&["container", "inspect", word])[0]["Id"],
            id.trim_end()
        );
    }
    let said = env.fails(&["container", "create", "--name", name.trim_end(), "one:1"]);
    assert!(said.contains("already"), "{said}");
    for wrong in ["a b", "../x", "-x", ""] {
        let output = env.run(&["container", "create", &format!("--name={wrong}"), "one:1"]);
        assert_eq!(output.status.code(), Some(1), "{wrong}");
    }
    env.fails(&["container", "rm", "none"]);
    let said = env.fails(&["container", "umount", name.trim_end()]);
    assert!(said.contains("not mounted"), "{said}");
    env.ok(&["container", "rm", &id[..5]]);
    env.is_sound();
}

#[test]
fn what_is_damaged_is_found_and_mended() {
    let env = Env::new();
    let (one, _) = two(&env);
    let layers = env.json(&["layer", "ls", "--json"]);
    let path = |n: usize| std::path::PathBuf::from(layers[n]["Path"].as_str().unwrap());
    // A changed file of the same size, a missing tree, a directory too many, a lost configuration.
    fs::write(path(0).join("d/f0"), "CONTENT 0").unwrap();
    fs::remove_dir_all(path(1)).unwrap();
    fs::create_dir(env.root().join("layers/stray")).unwrap();
    fs::create_dir_all(env.root().join("tmp/left/behind")).unwrap();
    fs::write(
        env.root()
            .join("images")
            .join(format!("{}.json", &one.id()[7..])),
        "x",
    )
    .unwrap();
    fs::create_dir_all(env.root().join("volumes/lost/_data/precious")).unwrap();
    let output = env.run(&["system", "check", "--deep", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings: Vec<&str> = report["Findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["What"].as_str().unwrap())
        .collect();
    for part in [
        "not what its archive holds: '/d/f0'",
        "is missing",
        "layers/stray",
        "tmp/left",
        "is not its configuration",
        "volumes/lost",
    ] {
        assert!(
            findings.iter().any(|finding| finding.contains(part)),
            "{part}: {findings:?}"
        );
    }
    env.ok(&["system", "check", "--deep", "--repair"]);
    env.is_sound();
    // Data are never thrown away because a catalog does not know them.
    assert!(env.root().join("volumes/lost/_data/precious").exists());
    assert_eq!(env.ok(&["volume", "ls", "-q"]), "lost\n");
    // What cannot be mended is said.
    let blob = fs::read_dir(path(0).parent().unwrap())
        .unwrap()
        .flatten()
        .find(|e| e.file_name() != "diff")
        .unwrap()
        .path();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let said = env.run(&["system", "check", "--deep", "--repair"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stdout).contains("is damaged"));
    let said = env.fails(&["image", "save", "one:1", "-o", "out.tar"]);
    assert!(said.contains("damaged"), "{said}");
    assert!(!env.at("out.tar").exists());
}

/// Names and labels come from others: on a terminal nothing of them acts.
#[test]
fn what_others_wrote_does_nothing_to_a_terminal() {
    support::need_fuse!();
    let env = Env::new();
    let odd = "RUN \u{1b}[2J\u{9b}31m\ttab\nline";
    let history = serde_json::json!({"history": [{"created_by": odd, "comment": odd}]});
    let image = Image::with(small_layers(1), Pack::Gzip, history);
    write_dir(&image.layout("odd:1"), &env.at("layout"));
    env.ok(&["image", "load", "-q", "layout"]);
    env.ok(&["container", "create", "--name", "box", "odd:1"]);
    let merged = env.mount("box");
    std::fs::write(merged.join("a\u{1b}[31m\nb"), "x").unwrap();
    // A table is one wherever it goes.
    let table = env.ok(&["image", "history", "--no-trunc", "odd:1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(!table.contains(['\u{1b}', '\u{9b}']), "{table}");
    let exact = env.json(&["image", "history", "--json", "odd:1"]);
    assert_eq!(exact[0]["CreatedBy"], odd);
    assert_eq!(env.ok(&["container", "diff", "box"]), "A /a\u{1b}[31m\nb\n");
    assert_eq!(
        env.ok(&["container", "diff", "-z", "box"]),
        "A /a\u{1b}[31m\nb\0"
    );
    if !have("script") {
        return;
    }
    let binary = support::binary();
    for (args, shown) in [
        ("container diff box", r"A /a\u001b[31m\nb"),
        ("image history --no-trunc odd:1", r"RUN \u001b[2J\u009b31m"),
        (
            "image history --no-trunc --format '{{.CreatedBy}}' odd:1",
            r"RUN \u001b[2J\u009b31m",
        ),
        (
            "image history --json odd:1",
            r"RUN \u001b[2J\u009b31m\ttab\nline",
        ),
        ("image inspect --format '{{json .Id}}' odd:1", "sha256:"),
    ] {
        let mut command = std::process::Command::new("script");
        let line = format!("{} {args}", binary.display());
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        command.env("UNIONMOUNT_ROOT", env.root());
        command.stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args}: {text}");
        assert!(text.contains(shown), "{args}: {text:?}");
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{args}: {text:?}");
    }
    env.ok(&["container", "umount", "box"]);
}
