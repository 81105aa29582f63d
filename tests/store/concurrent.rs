//! Several commands at a time, and commands that are killed at any moment.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::env::Env;
use crate::make::{Image, Pack, small_layers, write_dir};
use support::Running;

fn start(env: &Env, args: &[&str]) -> Running {
    let child: Child = env
        .command(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Running(child)
}

fn end(mut running: Running) -> (bool, String) {
    let mut said = String::new();
    if let Some(mut stderr) = running.0.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    }
    (running.0.wait().unwrap().success(), said)
}

fn prepared(layers: usize) -> Env {
    let env = Env::new();
    write_dir(
        &Image::new(small_layers(layers), Pack::Gzip).layout("app:1"),
        &env.at("app"),
    );
    write_dir(
        &Image::new(small_layers(layers / 2), Pack::Zstd).layout("half:1"),
        &env.at("half"),
    );
    env
}

#[test]
fn commands_run_side_by_side() {
    let env = prepared(6);
    let loads: Vec<Running> = (0..6)
        .map(|n| {
            start(
                &env,
                &["image", "load", if n % 2 == 0 { "app" } else { "half" }],
            )
        })
        .collect();
    for load in loads {
        let (ok, said) = end(load);
        assert!(ok, "{said}");
    }
    env.is_sound();
    assert_eq!(env.ok(&["layer", "ls", "-q"]).lines().count(), 6);
    // Makers against removers: each is done, or says why not; nothing breaks.
    let mut all = Vec::new();
    for round in 0..4 {
        all.push(start(&env, &["container", "create", "app:1"]));
        all.push(start(&env, &["image", "rm", "half:1"]));
        all.push(start(&env, &["image", "load", "-q", "half"]));
        all.push(start(&env, &["system", "prune", "--force", "--volumes"]));
        all.push(start(&env, &["volume", "create", &format!("v{round}")]));
    }
    for running in all {
        let (ok, said) = end(running);
        assert!(ok || said.contains("there is no image 'half:1'"), "{said}");
    }
    env.ok(&["system", "prune", "--force"]);
    env.is_sound();
    assert_eq!(env.ok(&["container", "ls", "-q"]).lines().count(), 4);
    assert_eq!(env.ok(&["volume", "ls", "-q"]).lines().count(), 4);
}

/// What has to be there, whatever was killed.
fn check_kept(env: &Env, round: u64) {
    let output = env.run(&["system", "check", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for finding in report["Findings"].as_array().unwrap() {
        let what = finding["What"].as_str().unwrap();
        assert!(
            what.contains("not in the catalog") || what.contains("a command that died"),
            "round {round}: {what}"
        );
    }
    assert_eq!(
        env.ok(&["container", "diff", "kept"]),
        "A /mine\n",
        "round {round}"
    );
    assert_eq!(
        env.json(&["image", "inspect", "keep:1"])[0]["RootFS"]["Layers"]
            .as_array()
            .unwrap()
            .len(),
        8,
        "round {round}"
    );
}

#[test]
fn killed_a_hundred_times_nothing_is_lost_and_nothing_stays() {
    let env = prepared(8);
    env.ok(&["image", "load", "-q", "app"]);
    env.ok(&["image", "tag", "app:1", "keep:1"]);
    let id = env.ok(&["container", "create", "--name", "kept", "keep:1"]);
    fs::write(
        env.root()
            .join("containers")
            .join(id.trim_end())
            .join("upper/mine"),
        "x",
    )
    .unwrap();
    write_dir(
        &Image::new(crate::make::rich_layers(), Pack::Gzip).layout("rich:1"),
        &env.at("rich"),
    );
    env.ok(&["image", "load", "-q", "rich"]);
    env.ok(&["container", "create", "--name", "source", "rich:1"]);
    let fresh = Image::new(crate::make::other_layers(6), Pack::Zstd);
    write_dir(&fresh.layout("fresh:1"), &env.at("fresh"));
    let commands: [&[&str]; 7] = [
        &["image", "load", "-q", "fresh"],
        &["image", "load", "-q", "rich"],
        &["container", "create", "--name", "temp", "keep:1"],
        &["container", "commit", "source", "committed:1"],
        &["container", "rm", "temp"],
        &["image", "rm", "-f", "fresh:1", "committed:1", "rich:1"],
        &["system", "prune", "-a", "--force", "--volumes"],
    ];
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1_u64);
    let mut random = fastrand::Rng::with_seed(seed);
    // Each is killed at a random moment of the time that it takes.
    let durations: Vec<Duration> = commands
        .iter()
        .map(|command| {
            let begin = std::time::Instant::now();
            env.ok(command);
            begin.elapsed()
        })
        .collect();
    println!("undisturbed: {durations:?}");
    let mut killed = 0;
    for round in 0..100_u64 {
        let number = usize::try_from(round).unwrap() % commands.len();
        let command = commands[number];
        if command.contains(&"commit") || command.contains(&"rm") {
            // Something for it to work on.
            let _prepared = (
                env.run(&["image", "load", "-q", "fresh"]),
                env.run(&["image", "load", "-q", "rich"]),
            );
        }
        let mut running = start(&env, command);
        let whole = u64::try_from(durations[number].as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(random.u64(..whole.max(1000))));
        if matches!(running.0.try_wait(), Ok(None)) {
            killed += 1;
        }
        let _ended = running.0.kill();
        drop(running);
        if round % 5 == 4 {
            check_kept(&env, round);
        }
    }
    println!("{killed} of 100 commands were killed before their end");
    assert!(killed > 40, "{killed}");
    check_kept(&env, 100);
    env.ok(&["container", "rm", "source"]);
    let _gone = env.run(&["container", "rm", "temp"]);
    env.ok(&["system", "prune", "-a", "--force", "--volumes"]);
    env.is_sound();
    // Only what is referred to is left: the image of the container, its eight layers, the
    // container.
    let count = |dir: &str| fs::read_dir(env.root().join(dir)).unwrap().count();
    assert_eq!(
        (
            count("layers"),
            count("images"),
            count("containers"),
            count("tmp")
        ),
        (8, 1, 1, 0)
    );
    for layer in fs::read_dir(env.root().join("layers")).unwrap() {
        assert_eq!(fs::read_dir(layer.unwrap().path()).unwrap().count(), 2);
    }
    assert_eq!(env.ok(&["container", "diff", "kept"]), "A /mine\n");
}

#[test]
fn one_of_several_mounts_and_all_say_where() {
    support::need_fuse!();
    let env = prepared(2);
    env.ok(&["image", "load", "-q", "app"]);
    env.ok(&["container", "create", "--name", "box", "app:1"]);
    for _ in 0..4 {
        let start = |what: &str| {
            let mut command = env.command(&["container", what, "box"]);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let outputs = |what: &str| -> Vec<String> {
            let all: Vec<Child> = (0..8).map(|_| start(what)).collect();
            let ended = all
                .into_iter()
                .map(|child| child.wait_with_output().unwrap());
            ended
                .map(|output| {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    let out = String::from_utf8_lossy(&output.stdout).into_owned();
                    format!("{:?} {out}{said}", output.status.code())
                })
                .collect()
        };
        let said = outputs("mount");
        let place = env.ok(&["container", "mount", "box"]);
        assert!(
            said.iter().all(|said| *said == format!("Some(0) {place}")),
            "{said:?}"
        );
        let merged = std::path::Path::new(place.trim_end());
        fs::write(merged.join("written"), "x").unwrap();
        // Who comes when all is over is told so, as without company.
        let said = outputs("umount");
        let fine = said.iter().filter(|said| *said == "Some(0) box\n").count();
        let late = said
            .iter()
            .filter(|said| said.contains("is not mounted here (created)"));
        assert!(fine > 0 && fine + late.count() == 8, "{said:?}");
        assert_eq!(
            env.json(&["container", "ls", "--json"])[0]["Status"],
            "created"
        );
        assert_eq!(env.ok(&["container", "diff", "box"]), "A /written\n");
    }
    env.is_sound();
}
