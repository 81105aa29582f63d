//! Tables of directory layouts: which are refused, with which words, and which are made to work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::symlink;

use super::*;

/// A directory tree to pick from: `l1`, `l2`, `u`, `w`, `m`, nested ones, a file and symlinks.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    for path in [
        "l1/in",
        "l2",
        "u/in",
        "w/in",
        "m/l",
        "m/u",
        "m/w",
        "store/ID/diff1",
        "store/l",
        "empty",
    ] {
        std::fs::create_dir_all(top.join(path)).unwrap();
    }
    std::fs::write(top.join("file"), "").unwrap();
    symlink("l1", top.join("to_l1")).unwrap();
    symlink("missing", top.join("dangling")).unwrap();
    symlink("../ID", top.join("store/l/SHORT")).unwrap();
    symlink("circle", top.join("circle")).unwrap();
    dir
}

fn config(top: &Path, lowers: &str, writable: &str) -> Config {
    let at = |path: &str| top.join(path);
    let (upper, work) = match writable.split_once(' ') {
        Some((upper, work)) => (Some(at(upper)), Some(at(work))),
        None => (None, None),
    };
    Config {
        lowers: lowers.split_whitespace().map(at).collect(),
        upper,
        work,
        ..Config::default()
    }
}

/// The outcome with the temporary directory's path taken out.
fn outcome(top: &Path, config: &Config, mountpoint: &str) -> Result<(), String> {
    let prefix = format!("{}/", top.display());
    check(config, &top.join(mountpoint))
        .map(drop)
        .map_err(|err| err.to_string().replace(&prefix, ""))
}

#[test]
fn layouts_that_work() {
    let dir = tree();
    let top = dir.path();
    let cases = [
        // lowers, upper and work, mountpoint
        ("l1", "", "m"),
        ("l1 l2", "u w", "m"),
        ("l1 l1 l1", "u w", "m"),
        ("empty", "u w", "m"),
        ("l1 l1/in", "u w", "m"),
        ("store/l/SHORT/diff1", "u w", "m"),
        // `..` behind a symlink leads to where the symlink leads, not back.
        ("store/l/SHORT/../ID/diff1", "u w", "m"),
        ("l1", "u w", "l1"),
        ("m/l", "u w", "m"),
        ("m/l", "", "m"),
    ];
    for (lowers, writable, mountpoint) in cases {
        let config = config(top, lowers, writable);
        assert_eq!(
            outcome(top, &config, mountpoint),
            Ok(()),
            "{lowers}, {writable}, {mountpoint}"
        );
    }
}

#[test]
fn layouts_that_are_refused() {
    let dir = tree();
    let top = dir.path();
    let cases = [
        (
            "x",
            "",
            "m",
            "lower directory 'x' does not exist; create it with mkdir, or correct the path",
        ),
        (
            "l1 x l2",
            "",
            "m",
            "lower directory 2 of 3 'x' does not exist",
        ),
        (
            "l1 dangling",
            "",
            "m",
            "lower directory 2 of 2 'dangling' does not exist",
        ),
        (
            "file",
            "",
            "m",
            "lower directory 'file' is a file, not a directory; name a directory",
        ),
        (
            "file/x",
            "",
            "m",
            "lower directory 'file/x': Not a directory",
        ),
        (
            "circle",
            "",
            "m",
            "lower directory 'circle': Too many levels of symbolic links",
        ),
        ("l1", "x w", "m", "upper directory 'x' does not exist"),
        ("l1", "u x", "m", "work directory 'x' does not exist"),
        ("l1", "u file", "m", "work directory 'file' is a file"),
        ("l1", "", "x", "mountpoint 'x' does not exist"),
        ("l1", "", "file", "mountpoint 'file' is a file"),
        (
            "l2 l1",
            "l1 w",
            "m",
            "upper directory 'l1' and lower directory 2 of 2 'l1' are the same directory; use separate",
        ),
        (
            "to_l1",
            "l1 w",
            "m",
            "upper directory 'l1' and lower directory 'to_l1' are the same directory",
        ),
        (
            "l1",
            "l1/in w",
            "m",
            "upper directory 'l1/in' is inside lower directory 'l1'",
        ),
        (
            "to_l1",
            "l1/in w",
            "m",
            "upper directory 'l1/in' is inside lower directory 'to_l1'",
        ),
        (
            "u/in",
            "u w",
            "m",
            "lower directory 'u/in' is inside upper directory 'u'",
        ),
        (
            "l1",
            "u u",
            "m",
            "upper directory 'u' and work directory 'u' are the same directory",
        ),
        (
            "l1",
            "u u/in",
            "m",
            "work directory 'u/in' is inside upper directory 'u'",
        ),
        (
            "l1",
            "w/in w",
            "m",
            "upper directory 'w/in' is inside work directory 'w'",
        ),
        (
            "l1",
            "u l1/in",
            "m",
            "work directory 'l1/in' is inside lower directory 'l1'",
        ),
        (
            "w/in",
            "u w",
            "m",
            "lower directory 'w/in' is inside work directory 'w'",
        ),
        (
            "l1",
            "u l1",
            "m",
            "work directory 'l1' and lower directory 'l1' are the same directory",
        ),
        (
            "l1",
            "m/u w",
            "m",
            "upper directory 'm/u' is inside mountpoint 'm'; mount on another directory",
        ),
        (
            "l1",
            "u m/w",
            "m",
            "work directory 'm/w' is inside mountpoint 'm'",
        ),
        (
            "l1",
            "u w",
            "u",
            "upper directory 'u' and mountpoint 'u' are the same directory",
        ),
        (
            "l1",
            "u w",
            "u/in",
            "mountpoint 'u/in' is inside upper directory 'u'",
        ),
        (
            "l1",
            "u w",
            "w/in",
            "mountpoint 'w/in' is inside work directory 'w'",
        ),
        (
            "l2 l1",
            "",
            "l1/in",
            "mountpoint 'l1/in' is inside lower directory 2 of 2 'l1'",
        ),
    ];
    for (lowers, writable, mountpoint, expected) in cases {
        let config = config(top, lowers, writable);
        let message = outcome(top, &config, mountpoint).expect_err(expected);
        assert!(message.starts_with(expected), "{message}\n{expected}");
        assert!(message.contains("; "), "no cure: {message}");
    }
}

#[test]
fn a_read_only_mount_needs_no_work_directory() {
    let dir = tree();
    let top = dir.path();
    for (lowers, writable, expected) in [
        ("l1", "u missing", Ok(())),
        ("l1", "l1 w", Ok(())),
        (
            "l1",
            "missing w",
            Err("upper directory 'missing' does not exist"),
        ),
    ] {
        let config = Config {
            read_only: true,
            ..config(top, lowers, writable)
        };
        let outcome = outcome(top, &config, "m");
        match expected {
            Ok(()) => assert_eq!(outcome, Ok(()), "{lowers}, {writable}"),
            Err(message) => assert!(outcome.unwrap_err().starts_with(message)),
        }
    }
    let mut writable = config(top, "l1", "u w");
    writable.work = None;
    assert!(
        outcome(top, &writable, "m")
            .unwrap_err()
            .contains("needs a work directory")
    );
}

#[test]
fn another_disk_is_told() {
    let dir = tree();
    let top = dir.path();
    let shm = Path::new("/dev/shm");
    if shm.metadata().map(|meta| meta.dev()).ok() == top.metadata().map(|meta| meta.dev()).ok()
        || !shm.is_dir()
    {
        return;
    }
    let other = tempfile::tempdir_in(shm).unwrap();
    let mut config = config(top, "l1", "u w");
    config.work = Some(other.path().to_owned());
    let message = outcome(top, &config, "m").unwrap_err();
    assert!(
        message.contains("is on another file system than upper directory 'u'"),
        "{message}"
    );
}

#[test]
fn the_mountpoint_is_given_back_as_the_kernel_sees_it() {
    let dir = tree();
    let top = dir.path();
    symlink("m", top.join("to_m")).unwrap();
    let config = config(top, "l1", "");
    let checked = check(&config, &top.join("to_m/../m")).unwrap();
    assert_eq!(checked.mountpoint, top.canonicalize().unwrap().join("m"));
    let descriptor = Path::new("/dev/fd/7");
    assert_eq!(check(&config, descriptor).unwrap().mountpoint, descriptor);
}

#[test]
fn each_cause_has_its_cure() {
    let cases = [
        (Errno::NOENT, "mkdir"),
        (Errno::NOTCONN, "unionmount umount --force /p"),
        (Errno::ACCESS, "run as a user who may read it"),
        (Errno::PERM, "run as a user who may read it"),
        (Errno::NOTDIR, "correct the path"),
        (Errno::LOOP, "correct them"),
        (Errno::NAMETOOLONG, "shorter path"),
        (Errno::IO, "check the file system"),
    ];
    for (errno, cure) in cases {
        let error = unreachable_directory(Role::Upper, Path::new("/p"), &errno.into());
        assert!(error.hint().contains(cure), "{error}");
        assert!(error.what().contains("upper directory '/p'"), "{error}");
    }
}

#[test]
fn nothing_of_the_union_changes_through_a_volume() {
    let dir = tree();
    let top = dir.path();
    for file in ["l1/in/f", "u/in/f", "w/f", "vol/f"] {
        std::fs::create_dir_all(top.join(file).parent().unwrap()).unwrap();
        std::fs::write(top.join(file), "").unwrap();
    }
    symlink("../l1/in/f", top.join("vol/to_f")).unwrap();
    std::fs::create_dir_all(top.join("home/l")).unwrap();
    let in_lower = "is in the lower directory";
    // source, what a writable and what a read-only one is told
    let cases = [
        ("vol", None, None),
        ("vol/f", None, None),
        ("file", None, None),
        ("l1", Some(in_lower), None),
        ("to_l1", Some(in_lower), None),
        ("l1/in", Some(in_lower), None),
        ("l1/in/f", Some(in_lower), None),
        ("vol/to_f", Some(in_lower), None),
        ("home", Some("'home/l' is inside volume 'home'"), None),
        ("home/l", Some("is in the lower directory 2 of 2"), None),
        ("u", Some("is in the upper"), Some("is in the upper")),
        ("u/in", Some("is in the upper"), Some("is in the upper")),
        ("u/in/f", Some("is in the upper"), Some("is in the upper")),
        ("w/f", Some("is in the work"), Some("is in the work")),
        ("w/in", Some("is in the work"), Some("is in the work")),
    ];
    for (source, writable, reading) in cases {
        for (read_only, expected) in [(false, writable), (true, reading)] {
            let mut config = config(top, "l1 home/l", "u w");
            config.volumes.push(crate::union::config::Volume {
                source: top.join(source),
                target: "/x".into(),
                read_only,
            });
            let got = outcome(top, &config, "m");
            match expected {
                None => assert_eq!(got, Ok(()), "{source} {read_only}"),
                Some(words) => {
                    let told = got.expect_err(source);
                    assert!(told.contains(words), "{source} {read_only}: {told}");
                }
            }
        }
    }
    // An upper that is only read here may be written by another mount.
    let mut shared = config(top, "l1", "u w");
    shared.read_only = true;
    shared.volumes.push(crate::union::config::Volume {
        source: top.join("u/in"),
        target: "/x".into(),
        read_only: true,
    });
    assert!(outcome(top, &shared, "m").is_err());
}
