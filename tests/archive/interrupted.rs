//! Commands that are interrupted leave nothing, and say so in one line; of what killed ones leave,
//! the next one takes care.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use unionmount::internal::archive::Digest;

use super::build::{Place, Tar};
use super::commands::binary;
use super::survey::survey;

/// A command that has begun, and is killed when the test fails.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _killed = self.0.kill();
            let _ended = self.0.wait();
        }
    }
}

impl Begun {
    fn new(place: &Place, arguments: &[&str]) -> Self {
        // A shell that runs the tests in the background has them ignore signals.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,TERM,HUP");
        command.arg(binary()).args(arguments);
        Self::of(place, command)
    }

    fn of(place: &Place, mut command: Command) -> Self {
        let child = command
            .current_dir(place.at(""))
            .env("UNIONMOUNT_ROOT", place.at("root"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn feed(&mut self, bytes: &[u8]) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// By which signal or with which code it ended, and what it said.
    fn end(mut self) -> (Result<i32, i32>, String) {
        // Waiting would close it, and the archive would end.
        let _input = self.0.stdin.take();
        let end = self.0.wait().unwrap();
        let mut said = String::new();
        let stderr = self.0.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (end.signal().ok_or(end.code().unwrap_or(-1)), said)
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Names below a directory that are a command's staging place and hold something.
fn staged(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = names
        .filter(|entry| {
            entry.file_name().to_string_lossy().contains(".unionmount-")
                && (entry.path().is_file()
                    || fs::read_dir(entry.path()).is_ok_and(|inside| inside.count() > 0))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A layer whose end never comes: more than any buffer holds.
fn half_a_layer() -> Vec<u8> {
    let mut tar = Tar::new().dir("d/").dir("d/e/");
    for number in 0..400 {
        tar = tar.file(format!("d/e/f{number}"), &[number as u8; 3000]);
    }
    tar.file(".wh.old", b"").0
}

const SIGNALS: [(Signal, &str); 3] = [
    (Signal::INT, "SIGINT"),
    (Signal::TERM, "SIGTERM"),
    (Signal::HUP, "SIGHUP"),
];

#[test]
fn an_interrupted_apply_leaves_everything_as_it_was() {
    let place = Place::new();
    fs::create_dir_all(place.at("tree/d")).unwrap();
    fs::write(place.at("tree/d/old"), "old").unwrap();
    fs::create_dir(place.at("empty")).unwrap();
    // But the time of the directory that it was staged in.
    let all = || {
        let mut all = survey(&place.at(""));
        all.remove("");
        all
    };
    let before = all();
    for (signal, name) in SIGNALS {
        for target in [
            &["new"][..],
            &["empty"],
            &["tree"],
            &["made", "--whiteout", "apply"],
        ] {
            let mut apply = Begun::new(&place, &[&["layer", "apply", "-"], target].concat());
            apply.feed(&half_a_layer());
            wait_until("it is staged", || !staged(&place.at("")).is_empty());
            // As timeout(1) does it: to the process and to its group.
            apply.send(signal);
            apply.send(signal);
            let (end, said) = apply.end();
            assert_eq!(end, Ok(signal.as_raw()), "{target:?} {said}");
            assert_eq!(
                said,
                format!("unionmount: interrupted by {name}; what was not complete is removed\n")
            );
            assert!(all() == before, "{target:?} {name}");
        }
    }
}

/// Before anything was begun, nothing has to notice.
#[test]
fn a_command_that_waits_for_its_archive_ends_at_once() {
    let place = Place::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let apply = Begun::new(&place, &["layer", "apply", "fifo", "new"]);
    std::thread::sleep(Duration::from_millis(300));
    apply.send(Signal::INT);
    let (end, said) = apply.end();
    assert_eq!(end, Ok(Signal::INT.as_raw()), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!place.at("new").exists());
}

#[test]
fn an_ignored_signal_does_not_interrupt() {
    let place = Place::new();
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' INT HUP; exec \"$0\" layer apply - new"])
        .arg(binary());
    let mut apply = Begun::of(&place, command);
    apply.feed(&half_a_layer());
    wait_until("it is staged", || !staged(&place.at("")).is_empty());
    apply.send(Signal::INT);
    apply.send(Signal::HUP);
    apply.feed(&[0; 1024]);
    drop(apply.0.stdin.take());
    assert_eq!(apply.end().0, Err(0));
    assert_eq!(fs::read_dir(place.at("new/d/e")).unwrap().count(), 400);
}

#[test]
fn what_a_killed_apply_left_goes_with_the_next_one() {
    let place = Place::new();
    let mut killed = Begun::new(&place, &["layer", "apply", "-", "app"]);
    killed.feed(&half_a_layer());
    wait_until("it is staged", || !staged(&place.at("")).is_empty());
    killed.send(Signal::KILL);
    assert_eq!(killed.end().0, Ok(Signal::KILL.as_raw()));
    let left = staged(&place.at(""));
    assert_eq!(left.len(), 1);
    // One that is alive is left alone.
    let mut alive = Begun::new(&place, &["layer", "apply", "-", "app"]);
    alive.feed(&half_a_layer());
    wait_until("the other one is staged", || {
        let now = staged(&place.at(""));
        !now.is_empty() && now != left
    });
    wait_until("the leftover is gone", || staged(&place.at("")).len() == 1);
    let of_the_living = staged(&place.at(""));
    assert_ne!(of_the_living, left);
    let mut third = Begun::new(&place, &["layer", "apply", "-", "app"]);
    third.feed(&Tar::new().file("third", b"3").end());
    drop(third.0.stdin.take());
    let (end, said) = third.end();
    assert_eq!((end, &*said), (Err(0), ""));
    assert_eq!(staged(&place.at("")), of_the_living);
    alive.send(Signal::TERM);
    assert_eq!(alive.end().0, Ok(Signal::TERM.as_raw()));
    assert!(staged(&place.at("")).is_empty() && place.at("app/third").exists());
}

/// Nothing that compresses quickly.
fn noise(len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    noise
}

#[test]
fn an_interrupted_archive_leaves_the_old_one() {
    let place = Place::new();
    fs::create_dir(place.at("upper")).unwrap();
    let noise = noise(16 << 20);
    for number in 0..8 {
        fs::write(place.at(format!("upper/noise{number}")), &noise).unwrap();
    }
    fs::write(place.at("out.tar"), "the old one").unwrap();
    let diff = Begun::new(
        &place,
        &[
            "layer",
            "diff",
            "--upper",
            "upper",
            "--compress",
            "gzip",
            "-o",
            "out.tar",
        ],
    );
    wait_until("it is staged", || !staged(&place.at("")).is_empty());
    diff.send(Signal::INT);
    let (end, said) = diff.end();
    assert_eq!(end, Ok(Signal::INT.as_raw()), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(staged(&place.at("")).is_empty());
    assert_eq!(fs::read(place.at("out.tar")).unwrap(), b"the old one");
}

/// An archive of one image with one layer of `bytes`, as `docker save` writes it.
fn image(bytes: &[u8]) -> Vec<u8> {
    let layer = Tar::new().file("noise", bytes).end();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    );
    let manifest = br#"[{"Config":"c.json","RepoTags":["noise:latest"],"Layers":["l.tar"]}]"#;
    Tar::new()
        .file("c.json", config.as_bytes())
        .file("l.tar", &layer)
        .file("manifest.json", manifest)
        .end()
}

/// Its output is not read: a thread that waits in a system call is woken.
#[test]
fn a_command_that_waits_for_its_reader_takes_its_place_in_the_store_with_it() {
    let place = Place::new();
    fs::write(place.at("image.tar"), image(&noise(4 << 20))).unwrap();
    let load = Begun::new(&place, &["image", "load", "-q", "image.tar"]);
    let (end, said) = load.end();
    assert_eq!(end, Err(0), "{said}");
    let save = Begun::new(&place, &["image", "save", "noise"]);
    let areas = || fs::read_dir(place.at("root/tmp")).unwrap().count();
    wait_until("it has a place in the store", || areas() > 0);
    std::thread::sleep(Duration::from_millis(300));
    save.send(Signal::TERM);
    let (end, said) = save.end();
    assert_eq!(end, Ok(Signal::TERM.as_raw()), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(areas(), 0);
}

#[test]
fn an_interrupted_load_leaves_nothing_in_the_store() {
    let place = Place::new();
    let mut load = Begun::new(&place, &["image", "load", "-q", "-"]);
    load.feed(&half_a_layer());
    let area = || {
        let areas = fs::read_dir(place.at("root/tmp")).into_iter().flatten();
        areas.flatten().count()
    };
    wait_until("the archive is read", || area() > 0);
    load.send(Signal::INT);
    let (end, said) = load.end();
    assert_eq!(end, Ok(Signal::INT.as_raw()), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(area(), 0);
}
