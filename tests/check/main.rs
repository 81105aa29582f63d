//! `unionmount convert` and `unionmount check`: layers that are not mounted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::images::is_here;
use support::{Running, Stack, binary, shell};

fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().unwrap()
}

fn convert(to: &str, layer: &Path) -> String {
    let output = run(&["convert", "--to", to, layer.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A layer with marks of all forms below it, and what is below.
fn marked() -> Stack {
    let stack = Stack::new(2);
    shell(
        stack.lower(1),
        "for d in a b c e f g; do mkdir -p $d/sub; echo $d >$d/file; echo x >$d/sub/file; done
         for i in $(seq 40); do mkdir -p many/$i; echo $i >many/$i/f; done; touch $(printf 'l%.0s' $(seq 253)) gone",
    );
    shell(
        stack.lower(0),
        "touch .wh.gone; mkdir -p a/sub b c e f g many; touch a/.wh.file b/.wh..wh..opq .wh.c b/new c/new; echo mine >c/file
         mknod e/file c 0 0; mknod f/sub c 0 0; setfattr -n trusted.overlay.opaque -v y e; echo again >e/again
         setfattr -n user.fuseoverlayfs.opaque -v y g; touch .wh..wh.aufs; mkdir .wh..wh.plnk; touch .wh..wh.plnk/1.2
         mknod $(printf 'l%.0s' $(seq 253)) c 0 0
         mkdir x y; setfattr -n trusted.overlay.opaque -v x f; touch f/file; setfattr -n trusted.overlay.whiteout -v y f/file
         for i in $(seq 1 2 40); do touch many/.wh.$i; done
         for i in $(seq 2 4 40); do mknod many/$i c 0 0; done
         for i in $(seq 4 4 40); do mkdir -p many/$i; touch many/$i/.wh..wh..opq many/$i/n; done
         touch -d '2001-02-03' a b c many",
    );
    stack
}

const TREE: &str = "find . ! -name . -printf '%P %y %m %T@ %s\\n' | sort";

fn seen(stack: &Stack) -> String {
    let mount = stack.mount_read_only("seen");
    let tree = shell(&mount.at, TREE);
    mount.unmount();
    tree
}

fn without_times_of_directories(seen: &str) -> String {
    let line = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [name, "d", mode, _, size] => format!("{name} d {mode} {size}\n"),
        _ => format!("{line}\n"),
    };
    seen.lines().map(line).collect()
}

/// Marks of each form that a layer has: `.wh.` files, devices, opaque xattrs.
fn forms(layer: &Path) -> (usize, usize, usize) {
    let count = |script: &str| shell(layer, script).trim().parse().unwrap();
    (
        count("find . -name '.wh.*' | wc -l"),
        count("find . -type c | wc -l"),
        count("getfattr -R -h -d -m 'overlay.*opaque' . 2>/dev/null | grep -c opaque= || true"),
    )
}

#[test]
fn marks_are_rewritten_and_nothing_else_is_seen() {
    support::need_fuse!();
    let stack = marked();
    let layer = stack.lower(0).to_path_buf();
    let before = seen(&stack);
    assert!(before.contains("b/new") && !before.contains("gone") && !before.contains("f/file"));
    let told = convert("char", &layer);
    assert!(told.ends_with("2 leftovers removed\n"), "{told}");
    assert_eq!(seen(&stack), before);
    let (files, devices, opaque) = forms(&layer);
    assert_eq!((files, opaque), (0, 14), "{devices} devices");
    // So the kernel mounts it.
    if is_here("overlay") {
        let at = stack.dir.path().join("kernel");
        fs::create_dir(&at).unwrap();
        let lowers = format!("{}:{}", layer.display(), stack.lower(1).display());
        let options = format!("-t overlay overlay -o ro,lowerdir={lowers}");
        let kernel = support::images::mount(stack.dir.path(), "kernel", &options);
        assert_eq!(shell(&kernel.at, TREE), before);
    }
    assert_eq!(
        convert("char", &layer),
        "0 whiteouts and 0 opaque marks rewritten\n"
    );
    let told = convert("wh", &layer);
    assert!(
        told.contains("1 whiteouts of names above 251 bytes stay devices"),
        "{told}"
    );
    assert_eq!(seen(&stack), before);
    let (files, devices, opaque) = forms(&layer);
    assert_eq!((devices, opaque), (1, 0), "{files} files");
    assert_eq!(files, 14 + 5 + 30);
}

#[test]
fn a_killed_conversion_shows_the_same_tree_and_goes_on() {
    support::need_fuse!();
    let stack = marked();
    let layer = stack.lower(0).to_path_buf();
    let before = seen(&stack);
    let mut interrupted = 0;
    for round in 0_u64..16 {
        let to = if round % 2 == 0 { "char" } else { "wh" };
        let mut running = Running(
            Command::new(binary())
                .args(["convert", "--to", to])
                .arg(&layer)
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        std::thread::sleep(Duration::from_micros(1500 + 1700 * (round / 2)));
        interrupted += u32::from(running.0.try_wait().unwrap().is_none());
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        // What it was in shows the time of the conversion until that is finished.
        assert_eq!(
            without_times_of_directories(&seen(&stack)),
            without_times_of_directories(&before),
            "killed on the way to {to}"
        );
        // Half the times it is taken to its end, half the times turned round.
        if round % 4 < 2 {
            convert(to, &layer);
            assert_eq!(seen(&stack), before, "then finished");
        }
    }
    assert!(interrupted > 0, "no conversion was interrupted");
    convert("char", &layer);
    assert_eq!(forms(&layer).0, 0);
    assert_eq!(seen(&stack), before);
}

#[test]
fn what_cannot_be_converted_is_refused_in_one_line() {
    support::need_fuse!();
    let stack = Stack::new(1).option("whiteout=char");
    stack.file(0, "f", "old");
    let refused = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    };
    let upper = stack.upper();
    let upper = upper.to_str().unwrap();
    let mount = stack.mount();
    shell(&mount.at, "rm f; mkdir d; echo ordinary >d/.wh.name");
    assert!(refused(&["convert", "--to", "wh", upper]).contains("is in use by process"));
    mount.unmount();
    // Its `.wh.` names are ordinary ones, and would be marks.
    let told = refused(&["convert", "--to", "wh", upper]);
    assert!(
        told.contains("d/.wh.name") && told.contains("rename it"),
        "{told}"
    );
    convert("char", Path::new(upper));
    fs::remove_file(stack.upper().join("d/.wh.name")).unwrap();
    convert("wh", Path::new(upper));
    assert!(stack.upper().join(".wh.f").exists());
    assert!(refused(&["convert", "--to", "char", "/nonexistent"]).contains("cannot open"));
    assert_eq!(run(&["convert", "--to", "x", upper]).status.code(), Some(2));
}

fn check(stack: &Stack, arguments: &[&str]) -> Output {
    let mut all = vec!["check".to_owned()];
    for lower in &stack.lowers {
        all.extend(["--lower".to_owned(), lower.display().to_string()]);
    }
    for (name, path) in [("--upper", stack.upper()), ("--work", stack.work())] {
        all.extend([name.to_owned(), path.display().to_string()]);
    }
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Command::new(binary()).args(all).output().unwrap()
}

fn kinds(output: &Output) -> Vec<String> {
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    let mut kinds: Vec<_> = told
        .lines()
        .filter_map(|line| line.trim().strip_prefix("\"kind\": \""))
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    kinds.sort();
    kinds
}

#[test]
fn a_stack_that_was_used_is_clean() {
    support::need_fuse!();
    for options in [
        "",
        "whiteout=char",
        "redirect_dir=on",
        "whiteout=char,redirect_dir=on",
    ] {
        let mut stack = marked();
        if !options.is_empty() {
            stack = stack.option(options);
        }
        let mount = stack.mount();
        shell(
            &mount.at,
            "rm a/sub/file; rm -r b; mkdir b; mv many lots; mv e again; ln c/file d; chmod 600 c/file; rm -r f; touch f
             mkfifo p; ln -s x y/l; mv lots/4 four; rmdir x; mkdir -p gone/deep; rm -r gone",
        );
        mount.unmount();
        let output = check(&stack, &[]);
        // The layer that it was made on has marks of all forms, which is said.
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let others: Vec<_> = told
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("mixed-marks"))
            .collect();
        assert!(others.is_empty(), "{options}: {told}");
        convert("wh", stack.lower(0));
        let _long = fs::remove_file(stack.lower(0).join("l".repeat(253)));
        let output = check(&stack, &[]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "clean\n",
            "{options}"
        );
        assert!(output.status.success());
    }
}

#[test]
fn what_is_wrong_is_found_explained_and_mended() {
    support::need_fuse!();
    let stack = Stack::new(1);
    shell(
        stack.lower(0),
        "mkdir -p d/sub e; echo x >d/f; echo y >d/sub/g; echo z >hidden; echo c >copied; ln -s x sym",
    );
    let mount = stack.mount();
    shell(
        &mount.at,
        "rm hidden; chmod 600 copied; mkdir new; touch new/f",
    );
    mount.unmount();
    assert!(check(&stack, &[]).status.success());
    shell(
        stack.upper(),
        "touch .wh.nothing new/.wh.x; mknod both c 0 0
         setfattr -n trusted.overlay.redirect -v /not/there new; setfattr -n trusted.overlay.unionmount.impure -v y .
         cp -a --preserve=all copied copy; setfattr -n user.containers.override_stat -v nonsense new/f
         setfattr -n user.fuseoverlayfs.unionmount.child.ffff -v 5:65535 new",
    );
    shell(stack.work(), "mkdir -p work/3/x; touch work/1");
    let before = seen(&stack);
    let output = check(&stack, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = [
        "dangling-origin",
        "dangling-origin",
        "dangling-redirect",
        "idle-whiteout",
        "idle-whiteout",
        "idle-whiteout",
        "odd-override",
        "stale-work",
        "stale-work",
    ];
    assert_eq!(kinds(&output), expected);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "unionmount: 9 problems found; 'unionmount check --repair' mends what is in the upper and the work directory\n"
    );
    let table = check(&stack, &[]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert_eq!(table.lines().count(), 10, "{table}");
    assert!(table.starts_with("PROBLEM "), "{table}");

    // Not under a mount.
    let mount = stack.mount();
    let refused = check(&stack, &["--repair"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by"));
    mount.unmount();
    shell(stack.work(), "mkdir -p work/3/x; touch work/1");

    let output = check(&stack, &["--repair", "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(kinds(&output), expected);
    let output = check(&stack, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "clean\n");
    assert_eq!(seen(&stack), before);
    assert!(stack.upper().join(".wh.hidden").exists());
    assert!(stack.upper().join("new/.wh..wh..opq").exists());
    stack.assert_work_is_empty();
}

#[test]
fn marks_of_both_forms_become_files() {
    support::need_fuse!();
    let stack = Stack::new(1);
    shell(stack.lower(0), "mkdir d e; touch a b d/c e/f");
    shell(
        stack.upper(),
        "touch .wh.a; mknod b c 0 0; mkdir d e; mknod d/c c 0 0; setfattr -n trusted.overlay.opaque -v y e",
    );
    let before = seen(&stack);
    assert_eq!(kinds(&check(&stack, &["--json"])), ["mixed-marks"]);
    let output = check(&stack, &["--json", "--repair"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(forms(&stack.upper()), (4, 0, 0));
    assert_eq!(seen(&stack), before);
    assert!(check(&stack, &[]).status.success());
}

#[test]
fn lower_layers_are_looked_at_and_never_written() {
    support::need_fuse!();
    let stack = marked();
    shell(
        stack.lower(0),
        "mkdir q r; setfattr -n trusted.overlay.redirect -v nowhere r; setfattr -n trusted.overlay.impure -v y .",
    );
    let list = "find . -printf '%P %i %C@\\n' | sort";
    let before = shell(stack.lower(0), list);
    let lowers: Vec<_> = stack
        .lowers
        .iter()
        .map(|l| l.display().to_string())
        .collect();
    let output = run(&[
        "check", "--json", "--lower", &lowers[0], "--lower", &lowers[1],
    ]);
    assert_eq!(kinds(&output), ["dangling-redirect"]);
    let output = check(&stack, &["--repair", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(kinds(&output), ["dangling-redirect"]);
    assert_eq!(shell(stack.lower(0), list), before);
    for wrong in [&["check"][..], &["check", "--repair", "--lower", "/"]] {
        assert_eq!(run(wrong).status.code(), Some(2));
    }
}

/// Kernel overlayfs takes `.wh.` names for ordinary ones and says nowhere that it did.
#[test]
fn files_that_only_look_like_marks_are_kept() {
    support::need_fuse!();
    if !is_here("overlay") {
        return eprintln!("skipped: no kernel overlayfs");
    }
    let stack = Stack::new(1);
    for name in ["foo", "dir/x", "gone", "sub/s"] {
        stack.file(0, name, "lower");
    }
    let disk = stack.dir.path();
    fs::create_dir(disk.join("kernel")).unwrap();
    let options = format!(
        "-t overlay overlay -o lowerdir={},upperdir={},workdir={}",
        stack.lower(0).display(),
        stack.upper().display(),
        stack.work().display()
    );
    let made = "echo precious >.wh.foo; mkdir .wh.dir; echo x >.wh.dir/x; echo zz >.wh.none; : >.wh.empty; rm gone";
    let kernel = support::images::mount(disk, "kernel", &options);
    shell(&kernel.at, made);
    let before = shell(&kernel.at, TREE);
    drop(kernel);
    let seen_by_the_kernel = || {
        let kernel = support::images::mount(disk, "kernel", &options);
        shell(&kernel.at, TREE)
    };
    // The kernel leaves its own in the work directory.
    let output = check(&stack, &["--repair"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(seen_by_the_kernel(), before);
    // Towards devices they stay what they are, towards files they would be marks.
    convert("char", &stack.upper());
    assert_eq!(seen_by_the_kernel(), before);
    let upper = stack.upper();
    let refused = run(&["convert", "--to", "wh", upper.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(
        told.contains(".wh.") && told.contains("rename it"),
        "{told}"
    );
    assert_eq!(seen_by_the_kernel(), before);
    // A layer of `.wh.` marks with a file among them that is none.
    let stack = Stack::new(2);
    shell(
        stack.lower(0),
        "touch .wh.gone; echo worth >.wh.something; mkdir d",
    );
    let layer = stack.lower(0).to_str().unwrap();
    for form in ["char", "wh"] {
        let refused = run(&["convert", "--to", form, layer]);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains(".wh.something"), "{told}");
    }
    assert_eq!(
        shell(stack.lower(0), "ls -A; cat .wh.something"),
        ".wh.gone\n.wh.something\nd\nworth\n"
    );
}
