//! Stacks that kernel overlayfs wrote, with everything that it can be told to store there, read and
//! gone on with here.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Mount, Stack, binary, shell};

/// What is in the base layer.
const BASE: &str = r"
umask 022; mkdir -p d/e/deep t/u gone replaced; head -c 300000 /dev/urandom > d/large; head -c 70000 /dev/urandom > large2
echo small > d/small; echo x > d/e/deep/x; echo x > gone/x; echo x > replaced/x; echo y > t/u/y; ln -s d/small link
head -c 9000 /dev/urandom > hard1; ln hard1 d/hard2; truncate -s 1M d/sparse; echo end >> d/sparse; head -c 20000 /dev/urandom > t/f; mkfifo p
";

/// What is done through kernel overlayfs: attributes alone of files, renames of files and
/// directories, deletions.
const FIRST: &str = r"
chmod 600 d/large; chown 5:6 large2; mv large2 d/moved; mv d renamed; chmod 711 renamed/small; rm -r gone; rm -r replaced
mkdir replaced; echo new > replaced/y; mv t/u renamed/e/u; setfattr -n user.x -v y renamed/sparse; rm link; touch -d 2001-01-01 t/f
";

/// And above that, in another layer.
const SECOND: &str = r"
mv renamed again; chmod 640 again/large; mv again/moved top; mv again/e/deep t/deep; chmod 604 t/f; mv t/f t/g; echo more >> again/small
";

const LOOK: &str = r"
find . -mindepth 1 ! -type d -printf '%P %y %m %U %G %s %T@ %l\n' -o -type d -printf '%P d %m %U %G\n' | sort
find . -type f | sort | xargs md5sum; getfattr -R -h -d -m user -e hex . 2>/dev/null | grep '=' | sort
";

/// Mounts by the kernel with `lower` (a list), does something, and unmounts.
fn by_kernel(base: &Path, lower: &str, upper: &str, options: &str, script: &str) -> String {
    let said = shell(
        base,
        &format!(
            "mkdir -p {upper} {upper}.work; mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={upper}.work,{options} merged"
        ),
    );
    let mount = Mount::found(base.join("merged"));
    shell(&mount.at, script);
    let seen = shell(&mount.at, LOOK);
    drop(mount);
    assert_eq!(said, "");
    seen
}

fn ours(base: &Path, arguments: &[&str]) -> Mount {
    let output = Command::new("timeout")
        .args(["60".as_ref(), binary().as_os_str(), "mount".as_ref()])
        .args(arguments)
        .arg("merged")
        .current_dir(base)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Mount::found(base.join("merged"))
}

#[test]
fn metacopy_redirects_and_index_are_read_as_the_kernel_reads_them() {
    support::need_fuse!();
    for options in [
        "metacopy=on,redirect_dir=on,index=on,xino=on,nfs_export=off",
        "metacopy=on,redirect_dir=on,index=off,xino=off",
        "userxattr",
    ] {
        let stack = Stack::new(0);
        let base = stack.dir.path();
        shell(base, &format!("mkdir base\ncd base\n{BASE}"));
        // With user xattrs there are neither redirects nor metacopy: directories of layers cannot
        // be renamed.
        let redirects = options != "userxattr";
        let (first, second) = if redirects {
            (FIRST, SECOND)
        } else {
            (
                "chmod 600 d/large; rm -r gone replaced; mkdir replaced",
                "rm -r t; mkdir t; echo x >> d/small",
            )
        };
        // With index=on the kernel knows the other names of such a file by its work directory,
        // which is not read here.
        let links = if options.contains("index=on") {
            ""
        } else {
            "chmod 640 hard1; "
        };
        let first = format!("{links}{first}");
        let seen = by_kernel(base, "base", "one", options, &first);
        {
            let mount = ours(base, &["--lower", "one", "--lower", "base", "--read-only"]);
            assert_eq!(shell(&mount.at, LOOK), seen, "{options}");
        }
        let seen = by_kernel(base, "one:base", "two", options, second);
        {
            let mount = ours(
                base,
                &["--lower", "two", "--lower", "one", "--lower", "base"],
            );
            assert_eq!(shell(&mount.at, LOOK), seen, "{options}: as layers");
        }
        let upper = [
            "--lower", "one", "--lower", "base", "--upper", "two", "--work", "two.work",
        ];
        {
            let mount = ours(base, &upper);
            assert_eq!(shell(&mount.at, LOOK), seen, "{options}: as the upper");
            if redirects {
                // Changed, such a file has its bytes, and the layers theirs.
                shell(
                    &mount.at,
                    "md5sum top > ../sum; printf X | dd of=again/large bs=1 seek=5 conv=notrunc 2>/dev/null; chmod 444 top; truncate -s 10 t/g; ln top top2",
                );
            }
        }
        let mount = ours(base, &upper);
        if redirects {
            shell(&mount.at, "md5sum -c ../sum; [ $(stat -c %s t/g) = 10 ]; head -c 10 t/g | cmp - <(head -c 10 ../base/t/f)
                cmp top top2; cmp <(tail -c +7 again/large) <(tail -c +7 ../base/d/large); [ $(head -c 6 again/large | tail -c 1) = X ]");
        }
        drop(mount);
    }
}

#[test]
fn names_that_only_the_index_knows_are_taken_over() {
    support::need_fuse!();
    let stack = Stack::new(0);
    let base = stack.dir.path();
    shell(
        base,
        "mkdir -p base/d; echo old > base/one; ln base/one base/d/two; ln base/one base/gone; echo x > base/alone",
    );
    let options = "index=on,metacopy=off,redirect_dir=off";
    let script = "echo new >> one; rm gone; chmod 600 alone";
    let seen = by_kernel(base, "base", "upper", options, script);
    let upper = [
        "--lower",
        "base",
        "--upper",
        "upper",
        "--work",
        "upper.work",
    ];
    for _ in 0..2 {
        let mount = ours(base, &upper);
        assert_eq!(shell(&mount.at, LOOK), seen);
        assert_eq!(
            shell(&mount.at, "stat -c %h one d/two; cat d/two"),
            "2\n2\nold\nnew\n"
        );
    }
    {
        let mount = ours(base, &upper);
        shell(&mount.at, "echo more >> d/two");
    }
    let seen = by_kernel(base, "base", "upper", options, "true");
    let mount = ours(base, &upper);
    assert_eq!(shell(&mount.at, LOOK), seen);
    assert_eq!(
        shell(&mount.at, "cat one; ls"),
        "old\nnew\nmore\nalone\nd\none\n"
    );
}

#[test]
fn data_only_layers_hold_bytes_and_show_nothing() {
    support::need_fuse!();
    let stack = Stack::new(0);
    let base = stack.dir.path();
    shell(
        base,
        r"mkdir -p lower data/objects/ab upper work; head -c 50000 /dev/urandom > data/objects/ab/cd
        truncate -s 50000 lower/f; setfattr -n trusted.overlay.metacopy lower/f; setfattr -n trusted.overlay.redirect -v /objects/ab/cd lower/f
        truncate -s 50000 lower/lost; setfattr -n trusted.overlay.metacopy lower/lost; setfattr -n trusted.overlay.redirect -v /objects/nothing lower/lost
        chmod 640 lower/f",
    );
    let mount = ours(
        base,
        &["-o", "lowerdir=lower::data,upperdir=upper,workdir=work"],
    );
    assert_eq!(
        shell(&mount.at, "ls; stat -c '%a %s' f lost"),
        "f\nlost\n640 50000\n644 50000\n".replace(
            "644",
            &format!(
                "{:o}",
                fs::metadata(base.join("lower/lost"))
                    .map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777)
                    .unwrap()
            )
        )
    );
    shell(
        &mount.at,
        "cmp f ../data/objects/ab/cd; if cat lost > /dev/null 2>&1; then exit 1; fi; echo more >> f",
    );
    mount.unmount();
    let mount = ours(
        base,
        &[
            "-o",
            "lowerdir=lower,datadir+=data,upperdir=upper,workdir=work",
        ],
    );
    shell(
        &mount.at,
        "cmp <(head -c 50000 f) ../data/objects/ab/cd; tail -n 1 f | grep -q more; rm lost",
    );
}
