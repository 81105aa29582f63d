//! Other overlays that have their upper directory on a mount of ours: their marks are kept apart
//! from our own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Stack, binary, shell};

/// The directories of an inner overlay, on the mount `at`: its lower, upper, work directory and
/// mountpoint.
const PREPARE: &str = r"
umask 022; mkdir lower upper work inner
mkdir -p lower/d/e lower/gone lower/replaced; echo old > lower/d/f; echo x > lower/d/e/x; echo x > lower/gone/x
echo x > lower/file; echo x > lower/moved; echo x > lower/replaced/x; ln -s file lower/link; echo x > lower/over
";

/// Deletions, replaced directories and renames in the inner overlay: whiteouts, opaque marks,
/// RENAME_WHITEOUT.
const WORK: &str = r"
umask 022; rm file; rm -r gone; rm -r replaced; mkdir replaced; echo new > replaced/y
mv moved renamed; echo new >> d/f; rm d/e/x; mv -f link link2; mv over target; echo again > moved; rm moved
mkdir fresh; echo x > fresh/x; chmod 700 d
";

const LOOK: &str = r"find . -mindepth 1 -printf '%P %y %m %s %l\n' | sed -E 's/ d ([0-9]+) [0-9]+ / d \1 /' | sort; grep -r . . | sort";

/// What the inner overlay stores on the mount, as the mount shows it.
const MARKS: &str = r"find upper -printf '%P %y\n' | sort; getfattr -R -h -d -m - upper 2>/dev/null | grep -v 'impure\|origin\|uuid\|overlay.unionmount\|nlink' | sort";

/// Who stacks on the mount.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inner {
    Kernel,
    FuseOverlayfs,
    Unionmount,
    UnionmountChar,
}

impl Inner {
    fn mount(self, at: &Path) -> bool {
        let script = match self {
            Self::Kernel => {
                "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work inner"
                    .to_owned()
            }
            Self::FuseOverlayfs => {
                "fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work inner".to_owned()
            }
            Self::Unionmount => format!(
                "{} -o lowerdir=lower,upperdir=upper,workdir=work inner",
                binary().display()
            ),
            Self::UnionmountChar => {
                format!(
                    "{} -o lowerdir=lower,upperdir=upper,workdir=work,whiteout=char inner",
                    binary().display()
                )
            }
        };
        let output = Command::new("timeout")
            .args(["30", "bash", "-euc", &script])
            .current_dir(at)
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!("{self:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    }
}

/// Takes the inner overlay away, also when the test failed.
struct Unmounted<'a>(&'a Path);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            Command::new("umount").arg("-l").arg(self.0).status().ok();
        }
        self.wait_for_its_daemon();
    }
}

impl Unmounted<'_> {
    /// umount(8) does not wait for the inner daemon, which keeps the outer mount busy until it has
    /// ended.
    fn wait_for_its_daemon(&self) {
        let outer = self.0.parent().unwrap();
        let holds_it = |process: &Path| {
            let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
            descriptors
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(outer)))
        };
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            let mut processes = fs::read_dir("/proc").unwrap().flatten();
            if !processes.any(|process| holds_it(&process.path())) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn stacked(inner: Inner, options: &[&str]) {
    let plain = Stack::new(0);
    shell(
        plain.dir.path(),
        &format!("mkdir plain; cd plain\n{PREPARE}\ncd lower\n{WORK}"),
    );
    let expected = shell(plain.dir.path().join("plain/lower"), LOOK);
    let mut stack = Stack::new(1);
    for option in options {
        stack = stack.option(option);
    }
    let inside = stack.merged().join("inner");
    let mount = stack.mount();
    shell(&mount.at, PREPARE);
    if !inner.mount(&mount.at) {
        assert!(
            inner == Inner::FuseOverlayfs,
            "{inner:?} cannot be mounted on it"
        );
        return;
    }
    let seen = {
        let _inner = Unmounted(&inside);
        shell(&inside, WORK);
        assert_eq!(shell(&inside, LOOK), expected, "{inner:?}");
        shell(&inside, LOOK)
    };
    let marks = shell(&mount.at, MARKS);
    mount.unmount();
    let mount = stack.mount();
    assert_eq!(
        shell(&mount.at, MARKS),
        marks,
        "{inner:?}: marks after a remount"
    );
    assert!(inner.mount(&mount.at));
    {
        let _inner = Unmounted(&inside);
        assert_eq!(shell(&inside, LOOK), seen, "{inner:?}: after a remount");
    }
    // Our own view of the same shows the marks as what they are: nothing of them hides anything
    // here.
    if matches!(inner, Inner::Kernel | Inner::UnionmountChar) {
        assert!(
            marks.contains("file c\n") && marks.contains("moved c\n"),
            "{marks}"
        );
    }
    mount.unmount();
    stack.assert_work_is_empty();
}

#[test]
fn kernel_overlayfs_mounts_directories_of_a_union() {
    support::need_fuse!();
    for options in [&[][..], &["whiteout=char"], &["xattr_permissions=2"]] {
        stacked(Inner::Kernel, options);
    }
}

#[test]
fn fuse_overlayfs_mounts_directories_of_a_union() {
    support::need_fuse!();
    stacked(Inner::FuseOverlayfs, &["whiteout=char"]);
}

#[test]
fn another_union_mounts_directories_of_a_union() {
    support::need_fuse!();
    stacked(Inner::UnionmountChar, &[]);
    stacked(Inner::UnionmountChar, &["whiteout=char"]);
    stacked(Inner::Unionmount, &["whiteout=char"]);
}

/// A whiteout of a third overlay, in the layers of one that is a layer of ours.
#[test]
fn devices_stay_devices_when_the_upper_becomes_a_layer() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let mount = stack.mount();
    shell(
        &mount.at,
        "mknod zero c 0 0; mkdir d; mknod d/zero c 0 0; ln d/zero d/two; mv zero moved",
    );
    mount.unmount();
    let mut above = Stack::new(1);
    above.lowers.push(stack.upper());
    let look = |at: &Path| shell(at, "stat -c '%n %F %t:%T' moved d/*");
    let expected = "moved character special file 0:0\nd/two character special file 0:0\nd/zero character special file 0:0\n";
    above.twice(
        |at| {
            assert_eq!(look(at), expected);
            // Copied up, and still devices.
            shell(at, "chmod 640 moved d/two");
        },
        |at| assert_eq!(look(at), expected),
    );
    assert!(fs::metadata(above.upper().join("moved")).unwrap().is_file());
}
