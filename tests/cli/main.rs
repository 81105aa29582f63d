//! The real binary, as far as it goes without a mount: help, versions, errors and their exit codes,
//! documents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_unionmount");

fn run(args: &[&str]) -> Output {
    run_as(Path::new(BINARY), args)
}

fn run_as(program: &Path, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Checks that a call fails with this code and says exactly one line, which it returns without the
/// program's name.
fn fails(output: &Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.matches('\n').count(), 1, "{said:?}");
    let line = said
        .strip_suffix('\n')
        .unwrap()
        .strip_prefix("unionmount: ");
    line.unwrap_or_else(|| panic!("{said:?}")).to_owned()
}

#[test]
fn help_has_examples() {
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let output = run(args);
        assert!(output.status.success(), "{args:?}");
        let text = stdout(&output);
        for part in [
            "Usage:",
            "Examples:",
            "unionmount mount --lower new --lower old",
            "umount",
            "-o lowerdir=",
        ] {
            assert!(text.contains(part), "{args:?}: no {part:?} in\n{text}");
        }
    }
    for args in [&["mount", "--help"][..], &["help", "mount"]] {
        let text = stdout(&run(args));
        for part in [
            "--read-only",
            "Examples:",
            "redirect_dir=on|off",
            "xino",
            "xattr_permissions",
        ] {
            assert!(text.contains(part), "{args:?}: no {part:?} in\n{text}");
        }
    }
    assert!(stdout(&run(&["umount", "--help"])).contains("--lazy"));
}

#[test]
fn each_form_prints_its_version() {
    let own = format!("unionmount {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&run(&["--version"])), own);
    assert_eq!(stdout(&run(&["-V"])), own);
    let dir = tempfile::tempdir().unwrap();
    let alias = dir.path().join("fuse-overlayfs");
    symlink(BINARY, &alias).unwrap();
    assert_eq!(
        stdout(&run_as(&alias, &["--version"])),
        format!("fuse-overlayfs: version 1.13\n{own}")
    );
    let help = run_as(&alias, &["--help"]);
    assert!(help.status.success() && stdout(&help).contains("-o lowerdir="));
    // Under that name a subcommand's name is an ordinary argument.
    let line = fails(&run_as(&alias, &["mount", "/m", "-o", "upperdir=/u"]), 2);
    assert!(line.contains("lowerdir"), "{line}");
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "no arguments are given; see 'unionmount --help'"),
        (
            &["mount", "--lower", "/", "-o", "volatil", "/mnt"],
            "unknown option 'volatil'; did you mean 'volatile'?",
        ),
        (
            &["mount", "--lower", "/", "-o", "threads=abc", "/mnt"],
            "option 'threads=abc' is wrong; it takes a number from 1 to 512",
        ),
        (
            &["mount", "--lower", "/", "--upper", "/u", "/mnt"],
            "--upper needs a work directory; add --work DIR (on the same file system), or --read-only",
        ),
        (
            &["mount", "/mnt"],
            "no layer is given; add --lower DIR, newest first",
        ),
        (
            &["mount", "--lower", "/"],
            "the following required arguments were not provided: <MOUNTPOINT>; see 'unionmount mount --help'",
        ),
        (
            &["mount", "--lowr", "/", "/mnt"],
            "unexpected argument '--lowr' found; tip: a similar argument exists: '--lower'; see 'unionmount mount --help'",
        ),
        (
            &["mout", "--lower", "/", "/mnt"],
            "unknown command 'mout'; did you mean 'mount'?",
        ),
        (
            &["-o", "lowerdir=/"],
            "no mountpoint is given; it is the last argument, see 'unionmount --help'",
        ),
        (
            &["/mnt", "-o", "volatile"],
            "option 'lowerdir' is missing; add -o lowerdir=DIR[:DIR..]",
        ),
        (
            &["-o", "lowerdir=/,upperdir=/u", "/mnt"],
            "option 'upperdir' needs a work directory; add workdir=DIR on the same file system",
        ),
        (
            &["-o", "lowerdir=/,timeout=soon", "/mnt"],
            "option 'timeout=soon' is wrong; it takes a time in seconds, such as 0, 0.5 or 86400",
        ),
    ];
    for (args, expected) in cases {
        assert_eq!(fails(&run(args), 2), *expected, "{args:?}");
    }
}

#[test]
fn what_is_missing_on_disk_is_one_line_and_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for name in ["l", "m"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let (lower, missing, mountpoint) = (path("l"), path("a\nb"), path("m"));
    let line = fails(&run(&["mount", "--lower", &missing, &mountpoint]), 1);
    assert!(line.starts_with("lower directory '"), "{line}");
    assert!(
        line.contains(r"a\nb' does not exist; create it with mkdir"),
        "{line}"
    );
    let options = format!("lowerdir={lower},upperdir={missing},workdir={missing}");
    let line = fails(&run(&["-o", &options, &mountpoint]), 1);
    assert!(line.starts_with("upper directory '"), "{line}");
    let line = fails(
        &run(&["-o", &format!("lowerdir={lower}"), &path("nowhere")]),
        1,
    );
    assert!(line.starts_with("mountpoint '"), "{line}");
    let log = path("no/such/log");
    let line = fails(
        &run(&["mount", "--lower", &lower, "--log-file", &log, &mountpoint]),
        1,
    );
    assert!(line.starts_with("cannot open the log file"), "{line}");
}

#[test]
fn an_unknown_option_is_a_warning_in_the_compatible_form() {
    let output = run(&["-o", "lowerdir=/no/such/dir,private,shinynew=1", "/mnt"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].starts_with("unionmount: unknown option 'shinynew' is ignored; "),
        "{said}"
    );
    assert!(
        lines[1].starts_with("unionmount: lower directory '/no/such/dir' does not exist"),
        "{said}"
    );
}

#[test]
fn five_hundred_lowers_fit_into_one_argument() {
    let dir = tempfile::tempdir().unwrap();
    let lowers: Vec<String> = (0..500)
        .map(|number| {
            let lower = dir.path().join(format!("{number:0>200}"));
            std::fs::create_dir(&lower).unwrap();
            lower.display().to_string()
        })
        .collect();
    let options = format!("lowerdir={}:/no/such/dir", lowers.join(":"));
    assert!(options.len() < 128 * 1024);
    let line = fails(&run(&["-o", &options, "/mnt"]), 1);
    assert_eq!(
        line,
        "lower directory 501 of 501 '/no/such/dir' does not exist; create it with mkdir, or correct the path"
    );
}

#[test]
fn documents_are_printed_and_written() {
    let page = stdout(&run(&["man"]));
    assert!(page.contains(".TH unionmount 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    assert!(
        run(&["man", &dir.path().display().to_string()])
            .status
            .success()
    );
    for name in ["unionmount.1", "unionmount-mount.1", "unionmount-umount.1"] {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(text.len() > 500, "{name}");
    }
    fails(&run(&["man", "/no/such/dir"]), 1);
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(&["completions", shell]));
        assert!(script.contains("unionmount"), "{shell}");
    }
    fails(&run(&["completions", "cmd"]), 2);
}

#[test]
fn umount_refuses_what_is_no_union() {
    let dir = tempfile::tempdir().unwrap();
    let line = fails(&run(&["umount", &dir.path().display().to_string()]), 1);
    assert!(line.starts_with("nothing is mounted on '"), "{line}");
    let line = fails(&run(&["umount", "/proc"]), 1);
    assert_eq!(
        line,
        "'/proc' is a mount of type proc, not a union; use umount(8) or fusermount3 -u"
    );
    let line = fails(&run(&["umount", "--force", "/no/such/dir"]), 1);
    assert!(line.contains("No such file or directory"), "{line}");
    fails(&run(&["umount", "--lazy", "--force", "/proc"]), 2);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let script = format!("set -o pipefail; {BINARY} mount --help | head -n 1 >/dev/null");
    let status = Command::new("bash").args(["-c", &script]).status().unwrap();
    assert!(status.success());
}
