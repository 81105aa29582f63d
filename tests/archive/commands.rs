//! `unionmount layer apply` and `layer diff`.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::build::{Place, Tar};
use super::survey::survey;

/// The program under test.
pub fn binary() -> PathBuf {
    std::env::var_os("UNIONMOUNT_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_unionmount").into(), PathBuf::from)
}

fn layer(place: &Place, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(binary())
        .arg("layer")
        .args(arguments)
        .current_dir(place.at(""))
        .env_remove("SOURCE_DATE_EPOCH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who fails early does not read all of it.
    let _sent = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn ok(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "silent in pipes");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fails(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(
        said.starts_with("unionmount: ") && said.ends_with('\n'),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn there_and_back_through_pipes_and_files() {
    let place = Place::new();
    let tar = Tar::new()
        .dir("d/")
        .file("d/f", b"content")
        .file(".wh.gone", b"")
        .end();
    fs::write(place.at("in.tar"), &tar).unwrap();
    let from_file = ok(&layer(&place, &["apply", "in.tar", "a", "--json"], b""));
    let from_pipe = ok(&layer(&place, &["apply", "-", "b", "--json"], &tar));
    assert_eq!(from_file, from_pipe);
    let json: serde_json::Value = serde_json::from_str(&from_file).unwrap();
    assert_eq!(
        (json["entries"].as_u64(), json["content"].as_u64()),
        (Some(3), Some(7))
    );
    assert_eq!(json["size"].as_u64(), Some(tar.len() as u64));
    assert_eq!(
        survey(&place.at("a")).keys().collect::<Vec<_>>(),
        ["", ".wh.gone", "d", "d/f"]
    );

    let piped = layer(&place, &["diff", "--upper", "a"], b"").stdout;
    for how in ["none", "gzip", "zstd"] {
        let said = ok(&layer(
            &place,
            &[
                "diff",
                "--upper",
                "a",
                "-o",
                how,
                "--compress",
                how,
                "--json",
            ],
            b"",
        ));
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            json["diffID"].as_str(),
            Some(&*unionmount::internal::archive::Digest::of(&piped).to_string())
        );
        let digest = json["digest"].as_str().unwrap();
        ok(&layer(
            &place,
            &[
                "apply",
                how,
                &format!("to-{how}"),
                "--expect-digest",
                digest,
            ],
            b"",
        ));
        ok(&layer(
            &place,
            &[
                "apply",
                how,
                &format!("too-{how}"),
                "--expect-digest",
                json["diffID"].as_str().unwrap(),
            ],
            b"",
        ));
    }
    let text = ok(&layer(&place, &["apply", "none", "text"], b""));
    assert!(text.contains("diffID sha256:"), "{text}");
    // Onto what it is already.
    ok(&layer(&place, &["apply", "gzip", "a"], b""));
    assert!(!place.at("a/.wh.gone").exists() || survey(&place.at("a")).len() == 4);
}

#[test]
fn whiteouts_in_the_form_that_is_asked_for() {
    let place = Place::new();
    let tar = Tar::new().file(".wh.gone", b"").file("f", b"").end();
    ok(&layer(
        &place,
        &["apply", "-", "char", "--whiteout", "char"],
        &tar,
    ));
    assert_eq!(survey(&place.at("char"))["gone"].kind, 'c');
    fs::create_dir(place.at("tree")).unwrap();
    fs::write(place.at("tree/gone"), "").unwrap();
    let said = fails(
        &layer(&place, &["apply", "-", "tree", "--whiteout", "wh"], &tar),
        1,
    );
    assert!(
        said.contains("not empty") && said.contains("--whiteout apply"),
        "{said}"
    );
    ok(&layer(&place, &["apply", "-", "tree"], &tar));
    assert_eq!(
        survey(&place.at("tree")).keys().collect::<Vec<_>>(),
        ["", "f"]
    );
    ok(&layer(
        &place,
        &["apply", "-", "fresh", "--whiteout", "apply"],
        &tar,
    ));
    assert_eq!(
        survey(&place.at("fresh")).keys().collect::<Vec<_>>(),
        ["", "f"]
    );
}

#[test]
fn what_fails_says_so_in_one_line_and_leaves_nothing() {
    let place = Place::new();
    let tar = Tar::new().file("f", b"x").file("../evil\nname", b"").end();
    let said = fails(&layer(&place, &["apply", "-", "new"], &tar), 1);
    assert!(said.contains(r"entry '../evil\nname'"), "{said}");
    let good = Tar::new().file("f", b"x").end();
    let other = format!("sha256:{}", "0".repeat(64));
    let said = fails(
        &layer(
            &place,
            &["apply", "-", "new", "--expect-digest", &other],
            &good,
        ),
        1,
    );
    assert!(said.contains("not sha256:000"), "{said}");
    fails(
        &layer(
            &place,
            &["apply", "-", "new", "--expect-digest", "sha256:../../etc"],
            &good,
        ),
        2,
    );
    let said = fails(
        &layer(&place, &["apply", "-", "new", "--max-size", "1k"], &good),
        1,
    );
    assert!(said.contains("--max-size"), "{said}");
    fails(
        &layer(&place, &["apply", "-", "new", "--max-entries", "0"], &good),
        1,
    );
    fails(&layer(&place, &["apply", "no.tar", "new"], b""), 1);
    fails(&layer(&place, &["apply", "outside", "new"], b""), 1);
    fails(&layer(&place, &["apply", "-", "no/such/new"], &good), 1);
    fails(&layer(&place, &["apply", "-", "outside/victim"], &good), 1);
    fails(&layer(&place, &["apply", "-"], &good), 2);
    fails(
        &layer(&place, &["diff", "--upper", "none", "-o", "out.tar"], b""),
        1,
    );
    fails(
        &layer(
            &place,
            &["diff", "--upper", "into", "-o", "no/such.tar"],
            b"",
        ),
        1,
    );
    fails(
        &layer(&place, &["diff", "--upper", "into", "--json"], b""),
        2,
    );
    fails(
        &layer(
            &place,
            &["diff", "--upper", "into", "--compress", "lzma"],
            b"",
        ),
        2,
    );
    let seen = survey(&place.at(""));
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        ["", "into", "outside", "outside/victim"]
    );
}

#[test]
fn times_are_given_by_option_or_environment() {
    let place = Place::new();
    fs::write(place.target().join("f"), "").unwrap();
    let diff = |arguments: &[&str], epoch: Option<&str>| {
        let mut command = Command::new(binary());
        command
            .args(["layer", "diff", "--upper"])
            .arg(place.target())
            .args(arguments);
        match epoch {
            Some(epoch) => command.env("SOURCE_DATE_EPOCH", epoch),
            None => command.env_remove("SOURCE_DATE_EPOCH"),
        };
        command.output().unwrap()
    };
    let now = diff(&[], None).stdout;
    let fixed = diff(&["--mtime", "-5"], None).stdout;
    let clamped = diff(&[], Some("7")).stdout;
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(place.target().join("f"), "").unwrap();
    assert_ne!(diff(&[], None).stdout, now);
    assert_eq!(diff(&["--mtime", "-5"], Some("7")).stdout, fixed);
    assert_eq!(diff(&[], Some("7")).stdout, clamped);
    assert_ne!(fixed, clamped);
    let said = fails(&diff(&[], Some("yesterday")), 2);
    assert!(said.contains("SOURCE_DATE_EPOCH"), "{said}");
}

#[test]
fn help_has_examples() {
    let place = Place::new();
    for (command, example) in [
        ("apply", "unionmount layer apply layer.tar.gz"),
        ("diff", "unionmount layer diff --lower"),
    ] {
        let help = ok(&layer(&place, &[command, "--help"], b""));
        assert!(help.contains(example), "{help}");
    }
}

/// What a command asks of the disk, in order: `syncfs`, `fsync`, `rename`.
fn synced(place: &Place, arguments: &[&str], input: &[u8]) -> Vec<String> {
    fs::write(place.at("input"), input).unwrap();
    let output = support::programs::program("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "trace",
            "-e",
            "trace=syncfs,fsync,rename,renameat,renameat2",
        ])
        .arg(binary())
        .arg("layer")
        .args(arguments)
        .current_dir(place.at(""))
        .stdin(fs::File::open(place.at("input")).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let trace = fs::read_to_string(place.at("trace")).unwrap();
    let calls = trace.lines().filter_map(|line| {
        let call = line.split_whitespace().nth(1)?.split_once('(')?.0;
        let is_rename = call.starts_with("rename");
        Some(if is_rename { "rename" } else { call }.to_owned())
    });
    calls.collect()
}

#[test]
fn what_is_published_is_on_the_disk_first_and_its_name_then() {
    if !support::images::has_program("strace") {
        return;
    }
    let place = Place::new();
    let tar = Tar::new().file("f", b"x").end();
    assert_eq!(
        synced(&place, &["apply", "-", "new"], &tar),
        ["syncfs", "rename", "fsync"]
    );
    assert_eq!(
        synced(&place, &["apply", "-", "new"], &tar),
        ["syncfs", "rename", "syncfs"]
    );
    assert_eq!(
        synced(&place, &["diff", "--upper", "new", "-o", "out.tar"], b""),
        ["fsync", "rename", "fsync"]
    );
    assert!(synced(&place, &["diff", "--upper", "new", "-o", "/dev/null"], b"").is_empty());
}

/// The name of the file under way can be guessed: what lies there is not written to.
#[test]
fn a_planted_link_is_not_written_through() {
    let place = Place::new();
    fs::write(place.target().join("f"), "x").unwrap();
    // The pid stays that of the shell, which plants the link first.
    let output = Command::new("sh")
        .arg("-c")
        .arg(r#"ln -s outside/victim ".out.tar.unionmount-$$"; exec "$0" layer diff --upper into -o out.tar"#)
        .arg(binary())
        .current_dir(place.at(""))
        .output()
        .unwrap();
    ok(&output);
    assert_eq!(
        fs::read_to_string(place.at("outside/victim")).unwrap(),
        "untouched"
    );
    assert!(place.at("out.tar").symlink_metadata().unwrap().is_file());
    let names = survey(&place.at(""));
    assert_eq!(
        names
            .keys()
            .filter(|name| name.contains("unionmount"))
            .count(),
        1
    );
}
