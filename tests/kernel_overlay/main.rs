//! Both ways with kernel overlayfs: what it wrote is read here, and what is written here it mounts,
//! entry by entry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;

use support::images::is_here;
use support::{Mount, Stack, shell};

/// Two lower layers for a stack.
const LOWERS: [&str; 2] = [
    // The newer one.
    r#"mkdir -p merged/deep opaque; echo new >merged/both; echo n >merged/deep/new; echo o >opaque/new"#,
    r#"mkdir -p merged/deep/er opaque many emptied
       echo old >merged/both; echo l >merged/deep/old; echo e >merged/deep/er/file; echo o >opaque/old
       for i in $(seq 30); do echo "file $i" >many/f$i; done
       echo a >emptied/a; ln many/f1 hard; ln -s many link; mkfifo pipe; mknod device c 1 3
       truncate -s 4M sparse; printf end >>sparse; head -c 300000 /dev/urandom >big; chmod 4711 big
       setfattr -n user.colour -v green big; setfacl -m u:7:rw many/f2"#,
];

/// What is done on a kernel mount of them; directories are renamed where `REDIRECT` says that it
/// can do that.
const CHANGES: &str = r#"
rm many/f3 pipe; rm -r opaque; mkdir opaque; echo p >opaque/made
rm -r emptied/a; chmod 600 big; chown 5:6 many/f4; touch -d '2001-02-03 04:05:06.7' many/f5
echo more >>many/f6; echo x >many/.hidden; mkdir -p fresh/sub; echo y >fresh/sub/file
ln many/f7 many/f7.again; ln -s dangling fresh/link; mkfifo fresh/pipe; mknod fresh/device b 7 1
rm merged/both; mkdir merged/both; echo d >merged/both/inside; rm merged/deep/new; echo f >merged/deep/new
setfattr -n user.colour -v red many/f8; setfacl -m u:8:rw many/f9; mv many/f10 many/moved; mv many/f11 fresh/f11
rm sparse; echo s >sparse; mv -T many/f12 many/f13; chmod 640 many/moved
if [ "$REDIRECT" = on ]; then
	mv merged/deep merged/shallow; mv merged/shallow fresh/shallow; mkdir merged/deep; echo z >merged/deep/z
	mv many lots; echo q >lots/f14; rm lots/f15; chmod 700 lots/f16
fi
"#;

/// Everything of a tree that can be compared: not the numbers of inodes, which are each system's
/// own.
fn describe(at: &Path) -> String {
    shell(
        at,
        r#"find . ! -name . -printf '%P %y %m %U:%G %l %T@ ' \( -type f -printf '%s ' -exec md5sum '{}' ';' -o -printf '\n' \) | sort
           find . -type f -links +1 -printf '%n %P\n' | sort
           find . -print0 | sort -z | xargs -0 getfattr -h -d -m '^(user|system)\.' 2>/dev/null; stat -c '%t:%T %n' $(find . -type b -o -type c | sort)"#,
    )
}

fn assert_same(found: &str, expected: &str, what: &str) {
    let only = |of: &str, not_in: &str| {
        let others: std::collections::HashSet<&str> = not_in.lines().collect();
        let lines = of.lines().filter(|line| !others.contains(line));
        lines.take(20).collect::<Vec<_>>().join("\n")
    };
    assert!(
        found == expected,
        "{what}: found\n{}\nexpected\n{}",
        only(found, expected),
        only(expected, found)
    );
}

/// A kernel mount of layers alone, read-only.
fn by_kernel(stack: &Stack, lowers: &[&Path], options: &str) -> Mount {
    let at = stack.dir.path().join("by-kernel");
    fs::create_dir_all(&at).unwrap();
    let lowers: Vec<_> = lowers.iter().map(|l| l.display().to_string()).collect();
    shell(
        "/",
        &format!(
            "mount -t overlay overlay -o ro,lowerdir={}{options} {}",
            lowers.join(":"),
            at.display()
        ),
    );
    Mount::found(at)
}

fn layers() -> Stack {
    let stack = Stack::new(2);
    for (layer, script) in LOWERS.iter().enumerate() {
        shell(stack.lower(layer), script);
    }
    stack
}

/// Lets the kernel work on a stack.
fn written_by_kernel(options: &str) -> Stack {
    let stack = layers();
    let lowers = format!("{}:{}", stack.lower(0).display(), stack.lower(1).display());
    let at = stack.merged();
    shell(
        "/",
        &format!(
            "mount -t overlay overlay -o lowerdir={lowers},upperdir={},workdir={}{options} {}",
            stack.upper().display(),
            stack.work().display(),
            at.display()
        ),
    );
    let mount = Mount::found(at);
    let redirect = if options.contains("redirect_dir=on") {
        "on"
    } else {
        "off"
    };
    shell(&mount.at, &format!("REDIRECT={redirect}\n{CHANGES}"));
    rustix::mount::unmount(&mount.at, rustix::mount::UnmountFlags::empty()).unwrap();
    stack
}

#[test]
fn what_the_kernel_wrote_is_read_right() {
    support::need_fuse!();
    if !is_here("overlay") {
        return;
    }
    for options in [
        "",
        ",redirect_dir=on",
        ",index=on,xino=on",
        ",userxattr",
        ",metacopy=on,redirect_dir=on",
    ] {
        let mut stack = written_by_kernel(options);
        let follow = options.replace("index=on,", "");
        let upper = stack.upper();
        let (newer, older) = (stack.lower(0).to_path_buf(), stack.lower(1).to_path_buf());
        let kernel = by_kernel(&stack, &[&upper, &newer, &older], &follow);
        let expected = describe(&kernel.at);
        drop(kernel);
        let mount = stack.mount_read_only("ours");
        assert_same(
            &describe(&mount.at),
            &expected,
            &format!("as an upper, {options}"),
        );
        mount.unmount();
        // As a lower layer among others.
        stack.lowers.insert(0, upper.clone());
        stack.upper = Some(stack.dir.path().join("second"));
        fs::create_dir(stack.upper()).unwrap();
        let mount = stack.mount();
        assert_same(
            &describe(&mount.at),
            &expected,
            &format!("as a lower, {options}"),
        );
        mount.unmount();
        // Written on by us, in the kernel's form, and mounted by the kernel again.
        stack.lowers.remove(0);
        stack.upper = Some(upper.clone());
        stack.options.push("whiteout=auto".to_owned());
        let mount = stack.mount();
        assert_same(
            &describe(&mount.at),
            &expected,
            &format!("goes on, {options}"),
        );
        let many = if options.contains("redirect_dir=on") {
            "lots"
        } else {
            "many"
        };
        shell(
            &mount.at,
            &format!(
                "echo ours >>{many}/f17; rm {many}/f18 big; mv {many}/f16 fresh/f16; ln {many}/f4 fresh/f4
                 rm -r opaque; mkdir opaque; mv {many} again; echo t >>again/moved; rm -r merged"
            ),
        );
        let expected = describe(&mount.at);
        mount.unmount();
        let kernel = by_kernel(&stack, &[&upper, &newer, &older], &follow);
        assert_same(
            &describe(&kernel.at),
            &expected,
            &format!("by the kernel again, {options}"),
        );
    }
}

#[test]
fn what_is_written_here_the_kernel_mounts() {
    support::need_fuse!();
    if !is_here("overlay") {
        return;
    }
    for redirect in ["off", "on"] {
        let stack = layers()
            .option("whiteout=char")
            .option(&format!("redirect_dir={redirect}"));
        let (upper, newer, older) = (
            stack.upper(),
            stack.lower(0).to_path_buf(),
            stack.lower(1).to_path_buf(),
        );
        let mount = stack.mount();
        shell(&mount.at, &format!("REDIRECT=on\n{CHANGES}"));
        mount.unmount();
        for seed in 0..3 {
            let mount = stack.mount();
            shell(&mount.at, &random_changes(seed, 120));
            let expected = describe(&mount.at);
            mount.unmount();
            let kernel = by_kernel(&stack, &[&upper, &newer, &older], ",redirect_dir=on");
            assert_same(
                &describe(&kernel.at),
                &expected,
                &format!("seed {seed}, redirect_dir={redirect}"),
            );
            drop(kernel);
            let mount = stack.mount();
            assert_same(&describe(&mount.at), &expected, "remounted");
            mount.unmount();
        }
    }
}

/// A script of steps on a few names, many of which fail.
fn random_changes(seed: u64, steps: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = |below: u64| random.u64(..below);
    let names = [
        "merged",
        "merged/deep",
        "merged/deep/er",
        "merged/both",
        "lots",
        "lots/f1",
        "lots/f2",
        "lots/f20",
        "lots/f21",
        "opaque",
        "opaque/old",
        "opaque/new",
        "emptied",
        "emptied/a",
        "big",
        "hard",
        "link",
        "fresh",
        "fresh/sub",
        "fresh/sub/file",
        "new",
        "new/a",
        "new/b",
        "a",
        "b",
        "sparse",
        "fresh/shallow/er",
        "fresh/shallow",
    ];
    let mut script = String::from("exec 2>/dev/null\nset +e\n");
    for step in 0..steps {
        let mut name = || names[usize::try_from(next(names.len() as u64)).unwrap()];
        let (one, other) = (name(), name());
        let line = match next(12) {
            0 => format!("rm -f {one}"),
            1 => format!("rm -rf {one}"),
            2 | 3 => format!("mkdir {one}"),
            4 => format!("echo {step} >>{one}"),
            5 => format!("echo {step} >{one}"),
            6 | 7 => format!("mv -T {one} {other}"),
            8 => format!("ln {one} {other}"),
            9 => format!("ln -s {step} {one}"),
            10 => format!("chmod {:o} {one}", 0o600 + next(0o200)),
            _ => format!("rmdir {one}"),
        };
        script.push_str(&line);
        script.push('\n');
    }
    script.push_str("true\n");
    script
}
